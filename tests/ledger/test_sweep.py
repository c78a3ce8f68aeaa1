"""What nobody will end any more, and what is forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from smsqueue import IncomingMessage, OutgoingMessage, exc
from smsqueue.ledger import AttemptBegun, Claimed
from tests.ledger.bench import Bench


def _claim(bench: Bench, id: str, *, call: bool) -> None:
    assert isinstance(bench.ledger.claim(id, "t", lease=60, worker="w"), Claimed)
    if call:
        made = bench.record(id).attempts
        begun = bench.ledger.begin(id, "t", "a", lease=60, attempt=made + 1)
        assert begun == AttemptBegun(made + 1)


def test_a_worker_that_died_before_it_called_anybody_is_retried(bench: Bench) -> None:
    provider = bench.add("a")
    id = bench.send()
    _claim(bench, id, call=False)
    bench.lapse(id)
    assert (bench.state(id), bench.tries(id)) == ("retrying", 1)
    bench.ripe(id)
    assert bench.deliver(id).state == "sent"
    assert provider.calls == [f"{id}.1"]


def test_a_worker_that_died_during_a_call_leaves_an_unknown(bench: Bench) -> None:
    provider = bench.add("a")
    id = bench.send()
    _claim(bench, id, call=True)
    bench.lapse(id)
    assert bench.state(id) == "unknown"
    for _ in range(3):
        bench.upkeep.turn()
        bench.deliver(id)
    assert bench.state(id) == "unknown"
    assert provider.calls == []


def test_a_worker_that_died_during_a_call_of_a_message_to_be_resent(bench: Bench) -> None:
    provider = bench.add("a")
    id = bench.send(on_unknown="resend")
    _claim(bench, id, call=True)
    bench.lapse(id)
    assert bench.state(id) == "retrying"
    bench.ripe(id)
    assert bench.deliver(id).state == "sent"
    assert provider.calls == [f"{id}.2"]


def test_a_message_that_kills_every_worker_fails_in_the_end(bench: Bench) -> None:
    heard = bench.listen()
    id = bench.send()
    for _ in range(3):
        assert bench.state(id) in ("queued", "retrying")
        bench.ripe(id)
        _claim(bench, id, call=False)
        bench.lapse(id)
    assert bench.state(id) == "failed"
    bench.run_hooks()
    assert [status.id for status in heard] == [id]


def test_a_message_to_be_resent_that_kills_every_worker_is_held_in_the_end(bench: Bench) -> None:
    id = bench.send(on_unknown="resend")
    for _ in range(3):
        assert bench.state(id) in ("queued", "retrying")
        bench.ripe(id)
        _claim(bench, id, call=True)
        bench.lapse(id)
    assert bench.state(id) == "unknown"


@pytest.mark.parametrize("state", ["accepted", "expired", "undelivered", "delivered"])
def test_a_report_is_the_outcome_of_a_call_whose_worker_died(bench: Bench, state: str) -> None:
    bench.add("a")
    for option in ("hold", "resend"):
        id = bench.send(on_unknown=option)
        _claim(bench, id, call=True)
        bench.report(state, reference=f"{id}.1")
        assert bench.state(id) == "sending"
        bench.lapse(id)
        assert bench.state(id) == state


def test_a_lease_that_has_not_ended_is_left_alone(bench: Bench) -> None:
    id = bench.send()
    _claim(bench, id, call=True)
    bench.upkeep.turn()
    assert bench.state(id) == "sending"


def test_waits_for_reports_end_as_they_are(bench: Bench) -> None:
    bench.add("a", None, None, RuntimeError())
    ids = {}
    for state in ("sent", "accepted", "unknown"):
        ids[state] = bench.send(status_report=True)
        bench.deliver(ids[state])
    bench.report("accepted", reference=f"{ids['accepted']}.1")
    for state, id in ids.items():
        assert bench.look("watch", id) is not None
        bench.lapse(id)
        assert bench.state(id) == state
        assert id not in bench.due()
        bench.report("delivered", reference=f"{id}.1")
        assert bench.state(id) == "delivered"


def test_what_asked_for_no_report_does_not_wait_for_one(bench: Bench) -> None:
    bench.add("a")
    id = bench.send()
    bench.deliver(id)
    assert id not in bench.due()


def test_due_sets_hold_nothing_final(bench: Bench) -> None:
    _everything(bench)
    final = {"delivered", "undelivered", "expired", "failed", "cancelled", "done", "dead"}
    due = bench.due()
    for key in sorted(bench.keys()):
        kind, _, name = key.partition(":")
        if kind == "state" and name in final:
            members: Any = bench.redis.zrange(bench.key("state", name), 0, -1)
            assert not due & set(members), name


def _everything(bench: Bench) -> None:
    bench.listen()
    a = bench.add("a", None, exc.RequestError(), None)
    bench.gateway.onReceive.connect(lambda message: None, name="received")
    ids = [bench.send(status_report=True) for _ in range(4)]
    for id in ids[:3]:
        bench.deliver(id)
    bench.report("delivered", reference=f"{ids[0]}.1")
    bench.report("undelivered", reference=f"{ids[2]}.1")
    bench.gateway.cancel(ids[3])
    a._receive_message(IncomingMessage("1777", "hi", "m"))
    bench.run_hooks()


def test_everything_is_forgotten_in_the_end(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(retention=0.2, report_wait=0.2, park_wait=0.2)
    bench.listen()
    for hook in (bench.gateway.onSend, bench.gateway.onReceive):
        hook.connect(lambda message: None, name="deaf")
    a = bench.add("a")
    plans: list[Any] = [None, exc.RequestError(), RuntimeError(), None, None, None]
    for n, plan in enumerate(plans):
        a.then(plan)
        id = bench.send(idempotency_key=f"k{n}", status_report=n > 3)
        bench.deliver(id)
        if n == 3:
            bench.report("delivered", msgid=bench.record(id).msgid)
        if n == 4:
            bench.report("undelivered", reference=f"{id}.1", msgid=bench.record(id).msgid)
    bench.gateway.cancel(bench.send())
    late = bench.send(expires=1)
    bench.outdated(late)
    bench.deliver(late)
    bench.report("delivered", msgid="of nobody")
    for msgid in ("in", None):
        a._receive_message(IncomingMessage("1777", "hi", msgid))
    deadline = time.monotonic() + 20
    # How its provider's last calls went is forgotten a day later.
    assert 0 < bench.redis.ttl(bench.key("health", "a")) <= 86400
    # What an operator does within a minute of another action is one entry of the audit.
    same = {key for key in bench.keys() if key.startswith("audit_same:")}  # noqa: SIM118
    assert all(0 < bench.redis.ttl(bench.key(key)) <= 60 for key in same)
    lasting = {"secret", "counts", "passed:send", "passed:hook", "sweeper", "filled:lanes"}
    while bench.keys() - {"health:a", *same} != lasting:
        assert time.monotonic() < deadline, bench.keys()
        bench.upkeep.turn()
        bench.run_hooks()
    again = bench.gateway.send(OutgoingMessage("15550001", "hello").options(idempotency_key="k0"))
    assert again.duplicate is False


def test_a_provider_id_that_was_used_again_outlives_its_first_message(
    bench: Bench,
) -> None:
    def numbered(message: OutgoingMessage) -> None:
        message.msgid = "1"

    bench.add("a", numbered, numbered)
    first, second = bench.send("one"), bench.send("two")
    bench.deliver(first)
    bench.deliver(second)
    bench.redis.zadd(bench.key("ends"), {first: 1})
    bench.upkeep.turn()
    with pytest.raises(LookupError):
        bench.record(first)
    bench.report("delivered", msgid="1")
    assert bench.state(second) == "delivered"


def test_what_is_not_final_is_never_forgotten(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(retention=0.001)
    bench.add("a", exc.ServerError())
    waiting, sending, retrying = bench.send(), bench.send(), bench.send()
    _claim(bench, sending, call=True)
    bench.deliver(retrying)
    for _ in range(5):
        bench.upkeep.turn()
    states = [bench.state(id) for id in (waiting, sending, retrying)]
    assert states == ["queued", "sending", "retrying"]


def test_a_requeued_message_is_not_forgotten(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(retention=0.05)
    bench.add("a", exc.RequestError())
    id = bench.send()
    bench.deliver(id)
    assert bench.gateway.requeue(id) is True
    deadline = bench.now() + 100
    while bench.now() < deadline:
        bench.upkeep.turn()
    assert bench.state(id) == "queued"
