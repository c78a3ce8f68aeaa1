"""The broker's queues stay short, and no trigger that is still in one is doubled."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from smsqueue import IncomingMessage, exc
from smsqueue.ledger import ClaimedEvent
from tests.ledger.bench import Bench, Told


@pytest.fixture
def short(make_bench: Callable[..., Bench]) -> Bench:
    """A bench whose queues have room for three triggers."""
    bench = make_bench(watermark=3, bulk_watermark=3)
    bench.add("a")
    return bench


def overdue(bench: Bench, *ids: str) -> None:
    """Nobody has claimed these for longer than the grace."""
    bench.redis.zadd(bench.key("due", "send"), dict.fromkeys(ids, 1), xx=True)


def long_ago(bench: Bench, kind: str, id: str) -> None:
    """The trigger was published a grace earlier."""
    out = bench.now() - int(bench.settings.grace * 1000)
    bench.redis.hset(bench.key(kind, id), "out", out)


def test_a_trigger_that_is_still_in_the_queue_is_not_doubled(bench: Bench) -> None:
    bench.add("a")
    ids = [bench.send() for _ in range(3)]
    overdue(bench, *ids)
    bench.upkeep.turn()
    bench.upkeep.turn()
    assert bench.published() == 3
    assert all((bench.look("send", id) or 0) > bench.now() for id in ids)


def test_a_trigger_that_others_have_overtaken_was_lost(bench: Bench) -> None:
    bench.add("a")
    lost = bench.send()
    long_ago(bench, "msg", lost)
    after, waiting = bench.send(), bench.send()
    bench.deliver(after)
    bench.drain()
    bench.redis.lpush(bench.settings.send_key, "somebody's")
    for triggers in (1, 2):  # at first a worker may keep it still, as one of many
        overdue(bench, lost, waiting)
        bench.upkeep.turn()
        assert bench.published() == triggers
        assert (bench.look("send", lost) or 0) > bench.now()
    assert int(bench.field(lost, "out") or 0) > int(bench.field(waiting, "out") or 0)


def test_a_message_that_a_worker_keeps_when_others_have_overtaken_it_is_claimed_once(
    bench: Bench,
) -> None:
    """It came as one of many, and waits in that worker for a slot."""
    bench.add("a")
    kept = bench.send()
    long_ago(bench, "msg", kept)
    bench.deliver(bench.send())
    bench.drain()
    bench.redis.lpush(bench.settings.send_key, "somebody's")
    overdue(bench, kept)
    bench.upkeep.turn()
    assert bench.published() == 1
    assert bench.deliver(kept).state == "sent"
    assert bench.redis.hmget(bench.key("msg", kept), "out", "overtaken") == [None, None]


def test_triggers_that_came_in_another_order_are_not_lost(bench: Bench) -> None:
    """Who publishes later than others may have been told to before them."""
    bench.add("a")
    first = bench.send()
    while bench.now() <= int(bench.field(first, "out") or 0):
        pass  # so that the next one is published later
    bench.deliver(bench.send())
    overdue(bench, first)
    bench.upkeep.turn()
    assert bench.published() == 2


def test_an_empty_queue_has_lost_all(bench: Bench) -> None:
    bench.add("a")
    ids = [bench.send() for _ in range(3)]
    overdue(bench, *ids)
    bench.drain()
    bench.upkeep.turn()
    assert bench.published() == 3


def test_two_workers_do_not_fill_the_same_room(short: Bench) -> None:
    """The second one looks before the first has published what it took."""
    for _ in range(8):
        short.send()
    short.drain()
    pipe = short.redis.pipeline(transaction=True)  # nothing comes between
    for _ in range(2):
        short.ledger._scripts.run("take_due", "send", 500, 1, 500, 0, client=pipe)
    first, second = pipe.execute()
    assert len(first[0]) == 2 * 3
    assert second[0] == []


def test_endings_without_handlers_wait_for_room_too(short: Bench) -> None:
    ids = [short.send() for _ in range(8)]
    assert short.published() == 3
    for id in ids:
        assert short.gateway.cancel(id) is True
    assert short.published() == 3
    assert short.published(short.settings.hook_key) == 3


def test_webhooks_wait_in_the_ledger_while_the_queue_of_hooks_is_long(short: Bench) -> None:
    heard = short.listen()
    received: list[str] = []
    short.gateway.onReceive += lambda message: received.append(message.body)
    a = short.gateway.get_provider("a")
    sent = [short.send(status_report=True) for _ in range(3)]
    for id in sent:
        short.deliver(id)
    for n in range(5):
        a._receive_message(IncomingMessage("15550001", f"text {n}", f"m{n}"))
    for id in sent:
        short.report("delivered", reference=f"{id}.1")
    assert short.published(short.settings.hook_key) == 3
    # The rest is due at once: upkeep publishes as much as there is room for.
    while short.published(short.settings.hook_key):
        short.drain("hook")
        short.run_hooks()
        short.upkeep.turn()
    assert sorted(received) == [f"text {n}" for n in range(5)]
    assert [status.state for status in heard] == ["delivered"] * 3


def test_the_end_of_a_lost_worker_is_published_at_once(bench: Bench) -> None:
    a: Told = bench.add("a")
    a.then(exc.ServerError("busy"))
    heard, id = bench.listen(), bench.send()
    for n in range(3):
        bench.ledger.claim(id, f"token {n}", lease=30.0, worker="gone")
        bench.lapse(id)
        bench.ripe(id)
    assert bench.state(id) == "failed"
    assert bench.published(bench.settings.hook_key) == 1
    bench.run_hooks()
    [told] = heard
    assert told.status == "gave up: its worker did not report back in time"


def overdue_events(bench: Bench, *events: str) -> None:
    bench.redis.zadd(bench.key("due", "hook"), dict.fromkeys(events, 1), xx=True)


def receive(bench: Bench, count: int) -> list[str]:
    for n in range(count):
        bench.gateway.get_provider("a")._receive_message(IncomingMessage("1555", "hi", f"m{n}"))
    return bench.events("received")


def test_a_trigger_of_an_event_that_is_still_in_the_queue_is_not_doubled(bench: Bench) -> None:
    bench.add("a")
    events, queue = receive(bench, 3), bench.settings.hook_key
    for _ in range(2):
        overdue_events(bench, *events)
        bench.upkeep.turn()
    assert bench.published(queue) == 3
    assert all((bench.look("hook", event) or 0) > bench.now() for event in events)


def test_a_trigger_of_an_event_that_others_have_overtaken_was_lost(bench: Bench) -> None:
    bench.add("a")
    [lost] = receive(bench, 1)
    long_ago(bench, "event", lost)
    [after] = set(receive(bench, 2)) - {lost}
    bench.hooks.run(after)
    bench.drain("hook")
    bench.redis.lpush(bench.settings.hook_key, "somebody's")
    for triggers in (1, 2):  # at first a worker may keep it still, as one of many
        overdue_events(bench, lost)
        bench.upkeep.turn()
        assert bench.published(bench.settings.hook_key) == triggers


def test_a_trigger_that_a_busy_worker_put_off_is_published_again(bench: Bench) -> None:
    bench.add("a")
    events = receive(bench, 2)
    bench.hooks.later(events[0], 0.0)
    overdue_events(bench, events[0])
    bench.upkeep.turn()
    assert bench.published(bench.settings.hook_key) == 3


def test_a_parked_report_is_published_once(bench: Bench) -> None:
    a = bench.add("a")
    heard, id, queue = bench.listen(), bench.send(status_report=True), bench.settings.hook_key
    a.then(lambda message: bench.report("delivered", msgid=message.msgid))
    bench.deliver(id)
    bench.upkeep.turn()
    assert bench.published(queue) == 1
    bench.run_hooks()
    assert [status.id for status in heard] == [id]


def test_a_trigger_is_lost_too_if_only_questions_have_overtaken_it(bench: Bench) -> None:
    bench.add("a", ConnectionResetError())
    unknown, lost = bench.send(), bench.send()
    bench.deliver(unknown)
    assert bench.state(unknown) == "unknown"
    long_ago(bench, "msg", lost)
    bench.redis.set(bench.key("passed", "send"), bench.field(lost, "out") or "")
    bench.redis.zadd(bench.key("due", "ask"), {unknown: 1})
    bench.drain()
    assert bench.ledger.take_due("ask", 500).due == [(unknown, 1)]
    bench.deliver(unknown)
    bench.drain()
    bench.redis.lpush(bench.settings.send_key, "a question")
    for taken in ([], [(lost, 0)]):  # at first a worker may keep it still, as one of many
        overdue(bench, lost)
        assert bench.ledger.take_due("send", 500).due == taken


def test_a_report_that_waits_no_more_is_put_off_by_a_busy_worker(bench: Bench) -> None:
    bench.add("a")
    bench.report("delivered", msgid="nobody's")
    [event] = bench.events("status")
    bench.ripe_event(event)
    overdue_events(bench, event)
    bench.upkeep.turn()
    bench.hooks.later(event, 1.0)
    assert (bench.look("hook", event) or 0) <= bench.now() + 1000


def test_a_busy_worker_puts_nothing_off_to_before_its_time(bench: Bench) -> None:
    """It would be looked at too early, and the next time only after the grace for lost triggers."""
    bench.add("a")
    [event] = receive(bench, 1)
    not_before = bench.now() + 30_000
    bench.redis.hset(bench.key("event", event), "not_before", not_before)
    bench.hooks.later(event, 1.0)
    assert bench.look("hook", event) == not_before


def test_what_a_worker_gives_back_as_it_stops_is_published_at_once(bench: Bench) -> None:
    """Whatever it is: a report that waited long enough, an event whose worker died, a question."""
    bench.add("a", ConnectionResetError())
    bench.gateway.onReceive += lambda message: None
    unknown = bench.send()
    bench.deliver(unknown)
    bench.redis.zadd(bench.key("due", "ask"), {unknown: 1})
    [running] = receive(bench, 1)
    assert isinstance(bench.ledger.claim_event(running, "token", "dies"), ClaimedEvent)
    bench.redis.hset(bench.key("event", running), "lease", 1)
    bench.report("delivered", msgid="nobody's")
    [parked] = bench.events("status")
    bench.ripe_event(parked)
    overdue_events(bench, running, parked)

    def take(lane: str) -> list[str]:
        return sorted(id for id, _ in bench.ledger.take_due(lane, 10).due)

    events = sorted([running, parked])
    assert (take("hook"), take("ask")) == (events, [unknown])
    assert (take("hook"), take("ask")) == ([], [])
    bench.ledger.put_back("event", events)
    bench.ledger.put_back("msg", [unknown])
    assert (take("hook"), take("ask")) == (events, [unknown])


def test_an_event_whose_worker_lives_is_not_given_to_another_one(bench: Bench) -> None:
    bench.add("a")
    [running] = receive(bench, 1)
    bench.ledger.claim_event(running, "token", "lives")
    bench.redis.hset(bench.key("event", running), "out", bench.now())
    bench.ledger.put_back("event", [running])
    assert (bench.look("hook", running) or 0) > bench.now()
