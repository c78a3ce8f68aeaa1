"""The broker's queues stay short, and no trigger that is still in one is doubled."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from smsqueue import IncomingMessage, exc
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
    while bench.now() <= int(bench.field(lost, "out") or 0):
        pass  # so that the next one is published later
    after, waiting = bench.send(), bench.send()
    bench.deliver(after)
    overdue(bench, lost, waiting)
    bench.redis.delete(bench.settings.send_key)
    bench.redis.lpush(bench.settings.send_key, "somebody's")
    bench.upkeep.turn()
    assert bench.published() == 2
    assert int(bench.field(lost, "out") or 0) > int(bench.field(waiting, "out") or 0)


def test_an_empty_queue_has_lost_all(bench: Bench) -> None:
    bench.add("a")
    ids = [bench.send() for _ in range(3)]
    overdue(bench, *ids)
    bench.redis.delete(bench.settings.send_key)
    bench.upkeep.turn()
    assert bench.published() == 3


def test_ends_that_nobody_hears_wait_for_room_too(short: Bench) -> None:
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
        short.redis.delete(short.settings.hook_key)
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
