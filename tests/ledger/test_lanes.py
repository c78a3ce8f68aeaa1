"""Single messages and their events come before those of bulk, which get a share."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import pytest

from smsqueue import IncomingMessage, OutgoingMessage, exc
from smsqueue.concurrency.greenlet_loop import Loop
from smsqueue.delivery.grouped_ledger import GroupingQueue
from smsqueue.message.ids import new_id
from tests.ledger.bench import Bench
from tests.workers.conftest import until


@pytest.fixture
def busy(make_bench: Callable[..., Bench]) -> Bench:
    """A bench whose workers are running, with little room for what is sent as one of many."""
    bench = make_bench(watermark=400, bulk_watermark=40)
    bench.add("a")
    bench.upkeep.turn()
    return bench


def campaign(bench: Bench, count: int) -> set[str]:
    """So many messages are sent as one of many; those without a trigger wait in the ledger."""
    messages = [OutgoingMessage("15550001", str(n)) for n in range(count)]
    return {message.id or "" for message in bench.gateway.send_many(messages)}


def due_since(bench: Bench, lane: str, when: int, ids: set[str]) -> None:
    """These are due since a time, in whichever due set of the lane they are; no trigger is out."""
    kind = "event" if lane == "hook" else "msg"
    for id in ids:
        bench.redis.hdel(bench.key(kind, id), "out", "not_before")
    for name in (lane, f"{lane}_bulk"):
        bench.redis.zadd(bench.key("due", name), dict.fromkeys(ids, when), xx=True)


def take(bench: Bench, lane: str, quota: int) -> list[str]:
    """What one script takes. It stops after a few milliseconds, but looks at eight of each lane."""
    return [id for id, _ in bench.ledger.take_due(lane, quota).due]


def publish_what_is_due(bench: Bench) -> list[str]:
    found: list[str] = []
    while True:
        taken = bench.ledger.take_due("send", 64)
        bench.queue.deliver(taken.due)
        found += [id for id, _ in taken.due]
        if not taken.due and not taken.more:
            return found


def take_all(bench: Bench, lane: str = "send") -> list[str]:
    """What is taken while the broker's queue is emptied again and again."""
    found: list[str] = []
    while True:
        bench.drain("hook" if lane == "hook" else "send")
        taken = bench.ledger.take_due(lane, 100)
        found += [id for id, _ in taken.due]
        if not taken.due and not taken.more:
            return found


def refused_once(bench: Bench) -> str:
    """A single message whose first attempt was refused, and whose next one is due now."""
    provider = bench.gateway.get_provider("a")
    provider.then(exc.ServerError("try again"))  # type: ignore[attr-defined]
    id = bench.send()
    assert bench.deliver(id).state == "retrying"
    bench.ripe(id)
    due_since(bench, "send", bench.now() - 1, {id})
    return id


def test_the_retry_of_a_single_message_is_taken_before_a_campaign_that_is_due_for_longer(
    busy: Bench,
) -> None:
    many = campaign(busy, 2000)
    due_since(busy, "send", 1, many)
    single = refused_once(busy)
    busy.drain()
    assert take(busy, "send", 100)[0] == single


def test_a_queue_that_is_full_of_bulk_has_room_for_the_retry_of_a_single_message(
    busy: Bench,
) -> None:
    campaign(busy, 300)
    publish_what_is_due(busy)
    single = refused_once(busy)
    assert busy.published() >= busy.settings.bulk_watermark
    assert take(busy, "send", 100)[0] == single


def test_bulk_gets_an_eighth_under_an_endless_stream_of_single_messages(busy: Bench) -> None:
    many = campaign(busy, 200)
    singles = {busy.send(str(n)) for n in range(300)}
    busy.drain()
    due_since(busy, "send", 1, singles)
    due_since(busy, "send", 2, many)
    taken = take(busy, "send", 64)
    assert len(many.intersection(taken)) == 8
    assert len(taken) >= 16
    assert singles.issuperset(taken[:-8])


def test_bulk_gets_an_eighth_of_a_queue_that_fresh_single_messages_keep_long(busy: Bench) -> None:
    many = campaign(busy, 200)
    busy.drain()
    due_since(busy, "send", 1, many)
    singles = [busy.send(str(n)) for n in range(320)]
    assert busy.published() == 320
    first = publish_what_is_due(busy)
    assert many.issuperset(first)
    assert len(first) == 46  # and 320 are single
    busy.deliver(singles[0])
    assert publish_what_is_due(busy) == []  # those are in the queue still
    # A trigger that was published after them has left the queue: so have they.
    while busy.now() <= int(busy.field(first[-1], "out") or 0):
        pass
    busy.deliver(busy.send("later"))
    second = publish_what_is_due(busy)
    assert second
    assert many.difference(first).issuperset(second)


def test_events_of_single_messages_and_incoming_ones_come_before_those_of_bulk(
    busy: Bench,
) -> None:
    busy.listen()
    busy.gateway.onSend += lambda message: None
    for id in campaign(busy, 60):
        busy.deliver(id)
    many = set(busy.events())
    single = busy.send(status_report=True)
    busy.deliver(single)
    busy.report("delivered", reference=f"{single}.1")
    busy.gateway.get_provider("a")._receive_message(IncomingMessage("15550001", "hi", "m1"))
    few = set(busy.events()) - many
    assert (len(many), len(few)) == (60, 3)
    due_since(busy, "hook", 1, many)
    due_since(busy, "hook", 2, few)
    busy.drain("hook")
    assert set(take(busy, "hook", 40)[:3]) == few


def test_events_of_bulk_get_an_eighth(busy: Bench) -> None:
    busy.gateway.onSend += lambda message: None
    for id in campaign(busy, 30):
        busy.deliver(id)
    many = set(busy.events())
    for n in range(100):
        busy.gateway.get_provider("a")._receive_message(IncomingMessage("15550001", "hi", f"m{n}"))
    busy.drain("hook")
    due_since(busy, "hook", 1, set(busy.events()) - many)
    due_since(busy, "hook", 2, many)
    assert len(many.intersection(take(busy, "hook", 64))) == 8


def test_events_that_wait_for_room_are_published_as_soon_as_there_is_some(busy: Bench) -> None:
    """Upkeep that is busy only fills the queues up, and does its other work each half second."""
    busy.gateway.onSend += lambda message: None
    for id in campaign(busy, 60):
        busy.deliver(id)
    # What is one of many gets a trigger of its own only while there are few.
    assert busy.published(busy.settings.hook_key) == 8
    busy.drain("hook")
    assert busy.upkeep.refill() is True
    assert busy.published(busy.settings.hook_key) == 40


@pytest.mark.parametrize("many", [True, False])
def test_a_report_that_a_worker_hears_of_is_bulk_if_its_message_is(busy: Bench, many: bool) -> None:
    """As some providers tell at once: its event shall take no slot of single messages' events."""
    (id,) = campaign(busy, 1) if many else {busy.send(status_report=True)}
    busy.deliver(id)
    loop = Loop("test", watched=False)
    queue = GroupingQueue(busy.settings, loop, busy.queue.app)
    queue.batches = lambda: True
    busy.gateway.queue = queue
    loop.run(lambda: busy.report("delivered", reference=f"{id}.1")).result(20)
    until(lambda: busy.published(busy.settings.hook_key) == 1)
    text: Any = busy.redis.lindex(busy.settings.hook_key, 0)
    headers, body = json.loads(text)["headers"], json.loads(text)["body"]
    (event,) = busy.events("status")
    if many:
        assert headers["task"] == "smsqueue.hook_many"
        assert json.loads(b64decode(body))[:2] == [[[event]], {"bulk": True}]
    else:
        assert headers["id"] == event
    queue.close()
    loop.close()


def test_an_event_of_bulk_stays_in_its_lane_until_it_is_over(busy: Bench) -> None:
    failing = [True]

    def fail(message: OutgoingMessage) -> None:
        if failing:
            raise ValueError(failing.pop())

    busy.gateway.onSend.connect(fail, name="fail")
    (id,) = campaign(busy, 1)
    busy.deliver(id)
    (event,) = busy.events()
    assert busy.look("hook_bulk", event) is not None
    assert busy.hooks.run(event).state == "waiting"
    assert busy.look("hook_bulk", event) is not None
    assert busy.look("hook", event) is None
    busy.ripe_event(event)
    assert busy.hooks.run(event).state == "done"
    assert busy.due() == set()


def test_a_requeue_of_many_does_not_delay_single_messages(busy: Bench) -> None:
    provider = busy.gateway.get_provider("a")
    ids = set()
    for n in range(3):
        provider.then(exc.RequestError("no"))  # type: ignore[attr-defined]
        ids.add(busy.send(str(n)))
        busy.deliver(max(ids))
    for id in ids:
        busy.gateway.requeue(id, bulk=True)
    single = refused_once(busy)
    due_since(busy, "send", 1, ids)
    busy.drain()
    assert take(busy, "send", 100)[0] == single


def test_a_campaign_does_not_fill_the_queue_before_a_single_message(busy: Bench) -> None:
    begun = busy.now()
    campaign(busy, 300)
    # Triggers that are not published after 50 ms are forgotten, on a slow machine.
    most = 8 * (1 + (busy.now() - begun) // 50)
    assert busy.published() <= most
    busy.send("one-time password")
    assert busy.published() <= most + 1


def test_a_backlog_that_workers_take_quickly_leaves_room_for_single_messages(
    make_bench: Callable[..., Bench],
) -> None:
    """Triggers that workers took long ago were counted as long as one call followed the other."""
    bench = make_bench(watermark=10, bulk_watermark=10)
    bench.add("a")
    bench.upkeep.turn()
    many = campaign(bench, 500)
    due_since(bench, "send", 1, many)
    bench.drain()

    def take_and_consume() -> None:
        assert bench.ledger.take_due("send", 10, per_trigger=10).due
        bench.redis.set(bench.key("passed", "send"), bench.now())

    for _ in range(20):
        take_and_consume()  # more than the queue has room for, if none left it
    ends, calls = bench.now() + 300, 0
    one_time_password = OutgoingMessage("15550001", "one-time password")
    while not bench.ledger.accept(one_time_password, new_id()).publish:
        assert calls < 20 or bench.now() < ends, "the queue is empty, but it is not published"
        take_and_consume()
        calls += 1


def test_backlog_counts_both_lanes(busy: Bench) -> None:
    many = sorted(campaign(busy, 100))
    busy.send()
    due_since(busy, "send", 1, set(many[:60]))
    due_since(busy, "send", busy.now() + 60_000, set(many[60:]))
    backlog = busy.ledger.backlog()["send"]
    assert (backlog.held, backlog.due) == (101, 60)
    assert backlog.oldest > 1000


# --- rolling upgrades -----------------------------------------------------------------------------


def as_older_version_wrote(bench: Bench, ids: set[str]) -> None:
    """Records of messages that wait, as a version left them that has one lane for all."""
    for id in ids:
        bench.redis.hdel(bench.key("msg", id), "bulk")
        score = bench.look("send_bulk", id) or bench.look("send", id)
        bench.redis.zrem(bench.key("due", "send_bulk"), id)
        bench.redis.zadd(bench.key("due", "send"), {id: score or 1.0})


def test_a_campaign_of_an_older_version_moves_to_its_lane_and_all_of_it_is_taken(
    busy: Bench,
) -> None:
    many = campaign(busy, 500)
    as_older_version_wrote(busy, many)
    due_since(busy, "send", 1, many)
    single = refused_once(busy)
    found = take_all(busy)
    assert sorted(found) == sorted([*many, single])
    # The rest of the campaign had to be moved before it could be seen that the message is single.
    assert found.index(single) < len(many)
    assert all(busy.look("send_bulk", id) and not busy.look("send", id) for id in many)


def test_a_context_that_looks_like_a_mark_of_bulk_is_none(busy: Bench) -> None:
    id = busy.send('"bulk":true}', context={"bulk": True})
    due_since(busy, "send", 1, {id})
    busy.drain()
    assert take(busy, "send", 100) == [id]
    assert busy.look("send_bulk", id) is None


def test_without_upkeep_that_knows_the_lanes_everything_is_where_older_workers_look(
    bench: Bench,
) -> None:
    """The web processes were upgraded first."""
    bench.add("a")
    many = campaign(bench, 300)
    assert {id for id in many if bench.look("send", id)} == many
    due_since(bench, "send", 1, many)
    assert sorted(take_all(bench)) == sorted(many)


def test_what_an_older_worker_left_in_the_other_lane_is_looked_at(busy: Bench) -> None:
    sent, waits = campaign(busy, 2)
    event_of = {}
    busy.gateway.onSend += lambda message: None
    # An older worker knows one due set: it takes nothing out of the other one.
    left = {id: busy.look("send_bulk", id) or 0.0 for id in (sent, waits)}
    busy.deliver(sent)
    (event_of[sent],) = busy.events()
    busy.redis.zadd(busy.key("due", "send_bulk"), left)
    busy.redis.zadd(busy.key("due", "send"), {waits: 1})
    due_since(busy, "send", 1, {sent, waits})
    assert take_all(busy) == [waits]
    assert busy.look("send_bulk", sent) is None
    # It ended the event, and left it here.
    busy.redis.delete(busy.key("event", event_of[sent]))
    due_since(busy, "hook", 1, {event_of[sent]})
    assert take_all(busy, "hook") == []
    assert busy.look("hook_bulk", event_of[sent]) is None


def test_events_of_an_older_version_move_to_their_lane(busy: Bench) -> None:
    busy.gateway.onSend += lambda message: None
    (id,) = campaign(busy, 1)
    busy.deliver(id)
    (event,) = busy.events()
    busy.redis.hdel(busy.key("event", event), "bulk")
    busy.redis.zrem(busy.key("due", "hook_bulk"), event)
    busy.redis.zadd(busy.key("due", "hook"), {event: 1})
    due_since(busy, "hook", 1, {event})
    assert take_all(busy, "hook") == [event]
    assert busy.look("hook_bulk", event) is not None
    assert busy.look("hook", event) is None


def test_a_broken_lane_of_bulk_begins_anew(busy: Bench) -> None:
    many = campaign(busy, 100)
    due_since(busy, "send", 1, many)
    busy.redis.delete(busy.key("due", "send_bulk"))
    busy.redis.set(busy.key("due", "send_bulk"), "nonsense")
    busy.upkeep.turn()
    assert many <= busy.due()
    due_since(busy, "send", 1, many)
    assert sorted(take_all(busy)) == sorted(many)


def test_a_few_single_messages_get_a_trigger_each_only_if_there_is_room_for_them(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(watermark=10, bulk_watermark=10)
    bench.add("a")
    ids = {bench.send() for _ in range(5)}
    due_since(bench, "send", 1, ids)
    bench.drain()
    assert bench.ledger.take_due("send", 100, per_trigger=100, few=16).alone
    bench.redis.lpush(bench.settings.send_key, *["somebody's"] * 7)
    due_since(bench, "send", 1, ids)
    bench.redis.delete(bench.key("filled", "send"))
    for id in ids:
        bench.redis.hdel(bench.key("msg", id), "out")
    taken = bench.ledger.take_due("send", 100, per_trigger=100, few=16)
    assert (len(taken.due), taken.alone) == (5, False)
