"""Messages that wait for a paused provider do so in a wait queue, and do not delay others."""

from __future__ import annotations

from itertools import pairwise

import pytest

from smsqueue import OutgoingMessage, exc
from smsqueue.ledger import AttemptOutcome
from tests.ledger.bench import Bench, Told


@pytest.fixture
def paused(bench: Bench) -> Told:
    """A provider that throttles, for 100 s."""
    provider = bench.add("a", exc.LimitsError(retry_after=100))
    bench.deliver(bench.send())
    provider.calls.clear()
    return provider


def stand(bench: Bench, count: int, *names: str) -> list[str]:
    """Messages that a worker has found to wait for the paused provider; the order of the line."""
    ids = [bench.send_by(*names) if names else bench.send() for _ in range(count)]
    for id in ids:
        assert bench.deliver(id).error == "ProviderPaused"
    return ids


def come(bench: Bench, *ids: str) -> set[str]:
    """Their time has come; those that upkeep publishes."""
    bench.drain()
    bench.redis.zadd(bench.key("due", "send"), dict.fromkeys(ids, 1), xx=True)
    return taken(bench)


def taken(bench: Bench) -> set[str]:
    """What upkeep publishes now; one script only looks at as many as take a few milliseconds."""
    found, more = set(), True
    while more:
        bench.drain()
        due, _, more, *_ = bench.ledger.take_due("send", 500)
        found |= {id for id, _ in due}
    return found


def looks(bench: Bench, ids: list[str]) -> list[float]:
    return [bench.look("send", id) or 0.0 for id in ids]


def test_they_come_one_by_one(bench: Bench, paused: Told) -> None:
    times = looks(bench, stand(bench, 20))
    until = float(bench.redis.hget(bench.key("pause", "a"), "until") or 0)
    assert times[0] >= until
    assert all(b - a >= 1 for a, b in pairwise(times))


def test_while_the_pause_lasts_one_looks_for_all(bench: Bench, paused: Told) -> None:
    ids = stand(bench, 20)
    assert len(come(bench, *ids)) == 1
    waiting = sorted(looks(bench, ids))
    until = float(bench.redis.hget(bench.key("pause", "a"), "until") or 0)
    assert waiting[1] >= until  # the first is the one that looks


def test_when_it_is_over_one_probes_and_the_rest_follows(bench: Bench, paused: Told) -> None:
    ids = stand(bench, 20)
    bench.unpause("a")
    bench.redis.hdel(bench.key("pause", "a"), "single")  # which ended with the pause
    [probe] = come(bench, *ids)
    rest = [id for id in ids if id != probe]
    assert all(look - bench.now() <= 1000 + len(ids) for look in looks(bench, rest))
    assert bench.deliver(probe).state == "sent"
    assert come(bench, *rest) == set(rest)
    for id in rest:
        assert bench.deliver(id).state == "sent"
    assert len(paused.calls) == len(ids)


def test_a_probe_that_fails_has_the_line_wait_for_the_new_end(bench: Bench, paused: Told) -> None:
    ids = stand(bench, 20)
    bench.unpause("a")
    paused.then(exc.LimitsError(retry_after=500))
    [probe] = come(bench, *ids)
    bench.deliver(probe)
    rest = [id for id in ids if id != probe]
    come(bench, *rest)
    assert sorted(looks(bench, rest))[1] >= bench.now() + 400_000


def test_a_fresh_single_message_does_not_stand_behind_a_campaign(
    bench: Bench, paused: Told
) -> None:
    campaign = bench.gateway.send_many([OutgoingMessage(f"1555{n}", "hi") for n in range(50)])
    for message in campaign:
        bench.deliver(message.id or "")
    [id] = stand(bench, 1)
    assert looks(bench, [id]) < looks(bench, [campaign[-1].id or ""])


def test_others_are_published_meanwhile(bench: Bench, paused: Told) -> None:
    bench.add("b")
    ids, other = stand(bench, 300), bench.send_by("b")
    found = come(bench, *ids, other)
    assert other in found
    assert len(found) < 10  # one of the line looks each 0.1 s


def test_what_others_wait_for_is_found_behind_a_long_line(bench: Bench, paused: Told) -> None:
    bench.add("b")
    ids, other = stand(bench, 700), bench.send_by("b")
    bench.redis.zadd(bench.key("due", "send"), dict.fromkeys(ids, 1), xx=True)
    bench.redis.zadd(bench.key("due", "send"), {other: 2}, xx=True)
    bench.drain()
    assert other in taken(bench)


def test_where_one_is_sent_elsewhere_all_ask_their_router_again(bench: Bench, paused: Told) -> None:
    """A deploy, or whatever the router looks at, may have changed their route."""
    b = bench.add("b")
    ids = stand(bench, 20, "a")
    bench.gateway.router = lambda message, *values: "b"
    [first] = come(bench, *ids)
    assert bench.deliver(first).state == "sent"
    rest = [id for id in ids if id != first]
    assert come(bench, *rest) == set(rest)
    for id in rest:
        assert bench.deliver(id).state == "sent"
    assert len(b.calls) == len(ids)
    assert paused.calls == []


def test_a_probe_at_another_provider_wakes_no_waiting_message(bench: Bench, paused: Told) -> None:
    b = bench.add("b", exc.LimitsError(retry_after=200))
    bench.deliver(bench.send_by("b"))
    ids = stand(bench, 20, "a", "b")
    bench.unpause("b")
    b.then(exc.LimitsError(retry_after=200))
    [first] = come(bench, *ids)
    assert len(b.calls) == 1
    bench.deliver(first)
    assert len(b.calls) == 2
    assert len(come(bench, *(id for id in ids if id != first))) <= 1


def test_a_message_that_began_to_wait_later_stays_in_the_wait_queue(
    bench: Bench, paused: Told
) -> None:
    bench.add("b")
    [first] = stand(bench, 1, "a")
    bench.gateway.router = lambda message, *values: "b"
    bench.deliver(first)
    while bench.now() <= int(bench.redis.hget(bench.key("pause", "a"), "rerouted") or 0):
        pass  # so that the others come later
    ids = stand(bench, 20, "a")
    assert len(come(bench, *ids)) == 1


def test_what_is_outdated_leaves_the_line(bench: Bench, paused: Told) -> None:
    ids = stand(bench, 5)
    bench.outdated(ids[3])
    assert ids[3] in come(bench, *ids)
    assert bench.deliver(ids[3]).state == "expired"


def test_a_pause_that_ended_before_the_settle_makes_no_wait_queue(
    bench: Bench, paused: Told
) -> None:
    id = bench.send()
    bench.ledger.claim(id, "t", lease=60, worker="w")
    bench.redis.delete(bench.key("pause", "a"))
    outcome = AttemptOutcome(
        "wait", "a", delay_ms=100_000, why="paused", wait_queue="single", waiting_for="a"
    )
    bench.ledger.settle(id, "t", 0, outcome)
    assert not bench.redis.exists(bench.key("pause", "a"))


def test_a_message_with_several_providers_waits_for_any_of_them(bench: Bench, paused: Told) -> None:
    """The first of two paused providers works again, while the other one is paused anew."""
    b = bench.add("b", exc.LimitsError(retry_after=50))
    bench.deliver(bench.send_by("b"))
    ids = stand(bench, 20, "a", "b")
    bench.redis.delete(bench.key("pause", "a"))
    assert come(bench, *ids) == set(ids)
    for id in ids:
        assert bench.deliver(id).state == "sent"
    assert len(paused.calls) == len(ids)
    assert len(b.calls) == 1


def test_a_message_with_several_providers_waits_for_the_first_pause_to_end(
    bench: Bench, paused: Told
) -> None:
    bench.add("b", exc.LimitsError(retry_after=50))
    bench.deliver(bench.send_by("b"))
    ids = stand(bench, 20, "b", "a")
    bench.redis.hset(bench.key("pause", "b"), "until", bench.now() + 500_000)
    assert len(come(bench, *ids)) == 1
    assert sorted(looks(bench, ids))[1] < bench.now() + 101_000


def test_a_message_that_waits_for_a_slot_leaves_the_wait_queue(bench: Bench, paused: Told) -> None:
    """Its router has chosen another provider since then, and that one is busy."""
    bench.add("b")
    ids = stand(bench, 20, "a")
    bench.gateway.router = lambda message, *values: "b"
    held = 0
    while bench.slots.take("b"):
        held += 1
    for id in ids:
        assert bench.deliver(id).error == "ProviderBusy"
    for _ in range(held):
        bench.slots.give_back("b")
    assert come(bench, *ids) == set(ids)


def test_a_message_that_could_not_be_routed_leaves_the_wait_queue(
    bench: Bench, paused: Told
) -> None:
    ids = stand(bench, 5, "a")
    bench.gateway.router = lambda message, *values: ["nobody"]
    for id in ids:
        assert bench.deliver(id).state == "retrying"
    assert come(bench, *ids) == set(ids)


def test_a_requeued_message_leaves_the_wait_queue(bench: Bench, paused: Told) -> None:
    ids = stand(bench, 5, "a")
    for id in ids:
        bench.outdated(id)
        assert bench.deliver(id).state == "expired"
        assert bench.gateway.requeue(id, 60)
    assert come(bench, *ids) == set(ids)


def test_what_cannot_be_repeated_any_more_leaves_the_line(bench: Bench, paused: Told) -> None:
    [id] = stand(bench, 1, "a")
    others = stand(bench, 5, "a")
    bench.redis.hset(bench.key("msg", id), mapping={"pin": "a", "pin_until": 1})
    assert len(come(bench, *others)) == 1  # the one that looks
    assert come(bench, id) == {id}
    assert bench.deliver(id).state == "unknown"


def test_a_message_that_also_waits_for_a_slot_enters_no_wait_queue(
    bench: Bench, paused: Told
) -> None:
    bench.add("b")
    while bench.slots.take("b"):
        pass
    for _ in range(2000):
        bench.slots.enter("b")  # for which it would have to wait longer
    bench.unpause("a")
    others = {"single": bench.now() + 200_000, "probe": "t", "probe_until": bench.now() + 60_000}
    bench.redis.hset(bench.key("pause", "a"), mapping=others)
    [id] = stand(bench, 1, "a", "b")
    assert (bench.look("send", id) or 0) <= bench.now() + 1000


def test_a_message_with_several_providers_enters_the_shortest_wait_queue(
    bench: Bench, paused: Told
) -> None:
    stand(bench, 1, "a")
    bench.add("b", exc.LimitsError(retry_after=150))
    bench.deliver(bench.send_by("b"))
    bench.redis.hset(bench.key("pause", "a"), "single", bench.now() + 200_000)
    [id] = stand(bench, 1, "a", "b")
    assert (bench.look("send", id) or 0) <= bench.now() + 150_000
    bench.redis.hset(bench.key("pause", "b"), "looks", bench.now() + 60_000)
    assert come(bench, id) == set()
    assert (bench.look("send", id) or 0) <= bench.now() + 150_001
