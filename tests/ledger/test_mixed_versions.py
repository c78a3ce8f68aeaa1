"""A rolling upgrade: processes that know a field by its former name and such that know its new one
change the same records, in either order."""

from __future__ import annotations

from random import Random

import pytest

from smsqueue import OutgoingMessage, exc
from tests.ledger.bench import Bench
from tests.ledger.former_version import FORMER_NAMES, MixedScripts, mix_versions
from tests.ledger.test_model import WALKS, Machine
from tests.ledger.test_uncertain import LOST, Asked, Once, upkeep
from tests.ledger.test_wait_queues import come, stand

#: Whether the process that acts first is of the former version; the other one is of the other.
ORDERS = pytest.mark.parametrize("former_first", [True, False], ids=["upgrade", "downgrade"])
LONG = "x" * 200  # two parts


@pytest.fixture
def scripts(bench: Bench) -> MixedScripts:
    return mix_versions(bench)


def values(bench: Bench, *key: str) -> dict[str, tuple[str | None, str | None]]:
    """By new name, the values that are stored under the new and the former name of a field."""
    fields: dict[str, str] = bench.redis.hgetall(bench.key(*key))  # type: ignore[assignment]
    return {
        name: (fields.get(name), fields.get(former))
        for name, former in FORMER_NAMES.items()
        if name in fields or former in fields
    }


def test_every_renamed_field_has_its_value_under_both_names(bench: Bench) -> None:
    """So a former version may take over at any time."""
    stored: dict[str, tuple[str | None, str | None]] = {}

    def look(id: str) -> None:
        for found in (values(bench, "msg", id), values(bench, "pause", "a")):
            assert all(new == former for new, former in found.values()), found
            stored.update(found)

    class Both(Once, Asked):
        pass

    provider = bench.add("a", lambda message: look(message.id or ""), cls=Both)
    upkeep(bench)
    first = bench.send(expires=600)
    look(first)
    bench.deliver(first)
    provider.then(LOST)
    lost = bench.send()
    bench.deliver(lost)
    look(lost)
    bench.redis.hset(bench.key("msg", lost), "pin_until", 1)
    bench.ripe(lost)
    bench.deliver(lost)
    assert bench.state(lost) == "unknown"
    provider.knows.append(None)
    bench.redis.zadd(bench.key("due", "ask"), {lost: 1}, xx=True)
    bench.upkeep.turn()
    bench.deliver(lost)
    look(lost)
    bench.gateway.requeue(lost)
    look(lost)
    bench.ledger.claim(lost, "token", lease=30.0, worker="gone")
    bench.lapse(lost)
    look(lost)
    provider.then(exc.LimitsError(retry_after=100))
    bench.deliver(bench.send())
    waiting = stand(bench, 1)
    look(waiting[0])
    come(bench, *waiting)
    look(waiting[0])
    assert stored.keys() == FORMER_NAMES.keys()
    for name in (first, lost, *waiting):
        look(name)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", WALKS)
def test_a_message_takes_the_same_way_whichever_version_runs_each_step(
    bench: Bench, scripts: MixedScripts, name: str, seed: int
) -> None:
    scripts.random = Random(seed)
    machine = type("Mixed", (Machine,), {"bench": bench})()
    kind, steps = WALKS[name]
    machine.accept(**kind)
    for step, arguments in steps:
        getattr(machine, step)(**arguments)
        machine.both_say_the_same()


@ORDERS
def test_a_trigger_that_the_other_version_claimed_has_left_the_queue(
    bench: Bench, scripts: MixedScripts, former_first: bool
) -> None:
    """Its message is published when its next attempt is due, however long the queue is."""
    bench.add("a", exc.ServerError("busy"))
    scripts.former = former_first
    id = bench.send()
    scripts.former = not former_first
    bench.deliver(id)
    bench.redis.rpush(bench.settings.send_key, "another trigger")
    bench.ripe(id)
    bench.redis.zadd(bench.key("due", "send"), {id: 1})
    scripts.former = former_first
    assert [taken for taken, _ in bench.ledger.take_due("send", 10).due] == [id]


@ORDERS
def test_a_trigger_in_the_queue_is_not_published_again(
    bench: Bench, scripts: MixedScripts, former_first: bool
) -> None:
    scripts.former = former_first
    id = bench.send()
    bench.redis.zadd(bench.key("due", "send"), {id: 1})
    scripts.former = not former_first
    assert bench.ledger.take_due("send", 10).due == []


@ORDERS
def test_messages_that_wait_for_a_paused_provider_stay_in_the_queue_until_one_is_rerouted(
    bench: Bench, scripts: MixedScripts, former_first: bool
) -> None:
    scripts.former = former_first
    bench.add("a", exc.LimitsError(retry_after=100))
    bench.deliver(bench.send())
    bench.add("b")
    ids = stand(bench, 5, "a")
    scripts.former = not former_first
    [first] = come(bench, *ids)
    bench.gateway.router = lambda message, *values: "b"
    assert bench.deliver(first).state == "sent"
    scripts.former = former_first
    assert come(bench, *ids) == set(ids) - {first}


@ORDERS
def test_a_message_that_no_longer_waits_for_a_paused_provider_is_not_kept_back_for_it(
    bench: Bench, scripts: MixedScripts, former_first: bool
) -> None:
    scripts.former = former_first
    bench.add("a", exc.LimitsError(retry_after=100))
    bench.deliver(bench.send())
    bench.add("b", exc.ServerError("busy"))
    ids = stand(bench, 2, "a")
    come(bench, ids[0])  # the one that the queue publishes now and then
    scripts.former = not former_first
    bench.gateway.router = lambda message, *values: "b"
    bench.ripe(ids[1])
    bench.deliver(ids[1])
    scripts.former = former_first
    bench.redis.hdel(bench.key("pause", "a"), "rerouted")
    assert come(bench, ids[1]) == {ids[1]}


@ORDERS
def test_a_repetition_has_the_validity_of_the_first_call(
    bench: Bench, scripts: MixedScripts, former_first: bool
) -> None:
    validities: list[float | None] = []

    def call(message: OutgoingMessage) -> None:
        validities.append(message.provider_options.expires)
        if len(validities) < 3:
            raise LOST

    bench.add("once", call, call, call, cls=Once)
    upkeep(bench)
    # An earlier claim, after which the message could not be sent, had another validity.
    id = bench.send(expires=60)
    scripts.former = not former_first
    bench.ledger.claim(id, "token", lease=30.0, worker="gone")
    bench.redis.hincrby(bench.key("msg", id), "expires", -5000)
    bench.lapse(id)
    scripts.former = former_first
    for _ in range(3):
        bench.ripe(id)
        bench.deliver(id)
        scripts.former = not scripts.former
    assert len(set(validities)) == 1
    assert bench.state(id) == "sent"


@ORDERS
def test_a_failure_of_an_attempt_before_the_requeue_does_not_count(
    bench: Bench, scripts: MixedScripts, former_first: bool
) -> None:
    bench.add("a", LOST, LOST, LOST)
    id = bench.send(status_report=True)
    for attempt in (1, 2):
        bench.deliver(id)
        scripts.former = former_first == (attempt == 1)
        assert bench.gateway.requeue(id)
        scripts.former = not scripts.former
        bench.report("undelivered", reference=f"{id}.{attempt}")
        assert bench.state(id) == "queued"


@ORDERS
def test_a_part_that_is_reported_during_the_call_waits_for_the_answer(
    bench: Bench, scripts: MixedScripts, former_first: bool
) -> None:
    """The receivers are upgraded after the workers."""

    def call(message: OutgoingMessage) -> None:
        scripts.former = not former_first
        bench.report("delivered", reference=f"{id}.1", msgid="p1", of_part=True)
        scripts.former = former_first
        message.msgid = ["p1", "p2"]

    bench.add("a", call)
    scripts.former = former_first
    id = bench.send(LONG, status_report=True)
    bench.deliver(id)
    assert bench.state(id) == "sent"
    scripts.former = not former_first
    bench.report("delivered", msgid="p2", of_part=True)
    assert bench.state(id) == "delivered"


@ORDERS
def test_a_message_whose_worker_is_lost_before_the_call_is_sent_again(
    bench: Bench, scripts: MixedScripts, former_first: bool
) -> None:
    """A call of the sending before, which the other version requeued, does not count."""
    bench.add("a")
    scripts.former = former_first
    id = bench.send()
    bench.ledger.claim(id, "t1", lease=30.0, worker="gone", default=("a", 30.0))
    bench.lapse(id)
    assert bench.state(id) == "unknown"
    scripts.former = not former_first
    assert bench.gateway.requeue(id)
    bench.ledger.claim(id, "t2", lease=30.0, worker="gone")
    scripts.former = former_first
    bench.lapse(id)
    assert bench.state(id) == "retrying"


@ORDERS
def test_a_message_that_ends_its_workers_fails_after_the_same_number_of_them(
    bench: Bench, scripts: MixedScripts, former_first: bool
) -> None:
    bench.add("a")
    id = bench.send()
    scripts.former = former_first
    for n in range(3):
        assert bench.state(id) in ("queued", "retrying")
        bench.ripe(id)
        bench.ledger.claim(id, f"token {n}", lease=30.0, worker="gone")
        scripts.former = not scripts.former
        bench.lapse(id)
    assert bench.state(id) == "failed"


@ORDERS
def test_a_provider_is_asked_about_a_message_that_the_other_version_pinned(
    bench: Bench, scripts: MixedScripts, former_first: bool
) -> None:
    class Both(Once, Asked):
        pass

    provider = bench.add("a", LOST, cls=Both)
    assert isinstance(provider, Both)
    upkeep(bench)
    scripts.former = former_first
    id = bench.send()
    bench.deliver(id)
    bench.redis.hset(bench.key("msg", id), "pin_until", 1)
    bench.ripe(id)
    scripts.former = not former_first
    bench.deliver(id)
    assert bench.state(id) == "unknown"
    for times in (1, 2):
        provider.knows.append(None)
        bench.redis.zadd(bench.key("due", "ask"), {id: 1}, xx=True)
        bench.upkeep.turn()
        scripts.former = not scripts.former
        bench.deliver(id)
        assert len(provider.questions) == times
        assert bench.field(id, "times_asked" if not scripts.former else "asks") == str(times)


def test_a_value_that_the_former_version_removed_does_not_count(
    bench: Bench, scripts: MixedScripts
) -> None:
    """Questions about the sending before do not make those about this one rarer."""
    provider = bench.add("a", LOST, LOST, cls=Asked)
    assert isinstance(provider, Asked)
    upkeep(bench)
    id = bench.send()
    for _ in range(2):
        scripts.former = False
        bench.deliver(id)
        assert bench.state(id) == "unknown"
        provider.knows.append(None)
        bench.redis.zadd(bench.key("due", "ask"), {id: 1}, xx=True)
        bench.upkeep.turn()
        bench.deliver(id)
        assert bench.field(id, "times_asked") == "1"
        scripts.former = True
        assert bench.gateway.requeue(id)
