"""What the webhooks of one provider may hold in Redis: a flood of them takes no room of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from smsqueue import IncomingMessage, exc
from smsqueue.message.messages import Part
from smsqueue.providers.africastalking import AfricasTalkingProvider
from tests.ledger.bench import Bench

Make = Callable[..., Any]
#: Bytes: about forty small events.
QUOTA = 100_000


def _message(n: int, provider: str = "flooded", **fields: Any) -> IncomingMessage:
    message = IncomingMessage("15550001", fields.pop("body", "hi"), f"m{n}")
    message.provider = provider
    vars(message).update(fields)
    return message


def _flood(bench: Bench, provider: str = "flooded", first: int = 0) -> int:
    """Send webhooks until they are refused; how many were recorded."""
    for n in range(first, first + 500):
        try:
            bench.gateway.receive_message(_message(n, provider))
        except exc.QueueUnavailable as error:
            refusal = error
            break
    else:
        raise AssertionError("nothing was refused")
    assert "SMSQUEUE_WEBHOOK_QUOTA" in str(refusal)
    assert refusal.retry_after
    return n - first


def _held(bench: Bench, provider: str = "flooded") -> tuple[int, int, int]:
    """How many events of a provider wait, what they hold, and what is kept of others."""
    for found in bench.ledger.room().webhooks:
        if found.provider == provider:
            return found.waiting, found.held, found.kept
    return 0, 0, 0


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    made = make_bench(webhook_quota=QUOTA)
    made.add("flooded")
    made.add("neighbour")
    return made


def test_at_its_quota_a_provider_is_refused_and_its_neighbour_is_not(bench: Bench) -> None:
    recorded = _flood(bench)
    assert recorded > 20
    assert _held(bench)[:2] == (recorded, pytest.approx(QUOTA, rel=0.1))
    with pytest.raises(exc.QueueUnavailable, match="SMSQUEUE_WEBHOOK_QUOTA"):
        bench.report("delivered", msgid="nobody's", provider="flooded")
    with pytest.raises(exc.QueueUnavailable, match="SMSQUEUE_WEBHOOK_QUOTA"):
        bench.gateway.receive_message(_message(1000, part=Part("7", 1, 2)))
    for n in range(recorded // 2):
        bench.gateway.receive_message(_message(n, "neighbour"))
    bench.report("delivered", msgid="n1", provider="neighbour")
    assert bench.send("hello")
    refused = {found.provider: found.refused for found in bench.ledger.room().webhooks}
    assert refused == {"flooded": True, "neighbour": False}
    assert bench.ledger.counters()["webhooks_refused", "flooded", "quota"] == 3


def test_handled_events_make_room_again(bench: Bench) -> None:
    heard: list[IncomingMessage] = []
    bench.gateway.onReceive.connect(heard.append, name="heard")
    recorded = _flood(bench)
    bench.run_hooks()
    waiting, held, kept = _held(bench)
    assert (waiting, held) == (0, 0)
    assert kept == pytest.approx(QUOTA, rel=0.1)  # records of incoming messages stay
    assert _flood(bench, first=recorded) == recorded
    # A replayed one waits again.
    bench.gateway.replay(heard[0].id or "")
    assert _held(bench)[0] == recorded + 1


def test_reports_of_accepted_messages_are_recorded_above_the_quota(bench: Bench) -> None:
    ids = [bench.send(str(n), status_report=True) for n in range(3)]
    sent = [bench.deliver(id) for id in ids]
    assert [outcome.state for outcome in sent] == ["sent"] * 3
    _flood(bench)
    for id in ids:
        for state in ("accepted", "delivered"):
            bench.report(state, msgid=bench.record(id).msgid, provider="flooded")
        # Another report of the same changes nothing, however often it comes.
        with pytest.raises(exc.QueueUnavailable, match="SMSQUEUE_WEBHOOK_QUOTA"):
            bench.report("accepted", msgid=bench.record(id).msgid, provider="flooded", code="x")
    assert {bench.state(id) for id in ids} == {"delivered"}


def test_reports_of_parts_are_recorded_above_the_quota_once_each(bench: Bench) -> None:
    def parts(message: Any) -> None:
        message.msgid = ["p1", "p2", "p3"]

    provider = bench.gateway.get_provider("flooded")
    provider.then(parts)  # type: ignore[attr-defined]
    id = bench.send("x" * 400, status_report=True)
    assert bench.deliver(id).state == "sent"
    _flood(bench)
    for state in ("accepted", "delivered"):
        for part in ("p1", "p2"):
            bench.report(state, msgid=part, provider="flooded", of_part=True)
            with pytest.raises(exc.QueueUnavailable, match="SMSQUEUE_WEBHOOK_QUOTA"):
                bench.report(state, msgid=part, provider="flooded", of_part=True, code="again")
    bench.report("delivered", msgid="p3", provider="flooded", of_part=True)
    assert bench.state(id) == "delivered"


def test_a_long_message_counts_with_all_its_parts_and_once(bench: Bench) -> None:
    bench.gateway.onReceive.connect(lambda message: None, name="heard")
    sizes = []
    for number in (1, 2, 3):
        bench.gateway.receive_message(_message(number, body="x" * 300, part=Part("7", number, 3)))
        waiting, held, _ = _held(bench)
        assert waiting == 1
        sizes.append(held)
    assert sizes == sorted(set(sizes))
    bench.run_hooks()
    assert _held(bench)[:2] == (0, 0)


@pytest.mark.parametrize("gone", ["handled", "deleted"])
def test_events_that_an_older_worker_handled_do_not_count(bench: Bench, gone: str) -> None:
    """It knows nothing of the quota, and takes nothing out of its count."""
    recorded = _flood(bench)
    for event in bench.events():
        bench.redis.zrem(bench.key("due", "hook"), event)
        bench.redis.zrem(bench.key("state", "waiting"), event)
        if gone == "handled":
            bench.redis.hset(bench.key("event", event), "state", "done")
        else:
            bench.redis.delete(bench.key("event", event))
    for _ in range(recorded):  # a turn looks at a few at least, however slow the machine is
        bench.upkeep.turn()
    waiting, held, kept = _held(bench)
    assert (waiting, held) == (0, 0)
    assert kept == pytest.approx(QUOTA, rel=0.1) if gone == "handled" else kept < 0.3 * QUOTA
    assert _flood(bench, first=recorded) == recorded


def test_events_that_wait_are_counted_still_after_upkeep(bench: Bench) -> None:
    recorded = _flood(bench)
    before = _held(bench)
    for _ in range(3):
        bench.upkeep.turn()
    assert _held(bench) == before
    assert before[0] == recorded


def test_a_damaged_count_begins_anew_and_a_damaged_event_counts_no_more(bench: Bench) -> None:
    _flood(bench)
    damaged = bench.events()[0]
    bench.redis.hset(bench.key("event", damaged), "state", "nonsense")
    bench.redis.hset(bench.key("event", bench.events()[1]), "held", "nonsense")
    bench.gateway.onReceive.connect(lambda message: None, name="heard")
    bench.run_hooks()
    for _ in range(10):
        bench.upkeep.turn()
    assert bench.ledger.count_damaged() == 1
    assert _held(bench)[:2] == (0, 0)
    assert bench.gateway.remove(damaged)
    bench.redis.set(bench.key("webhook_bytes"), "no hash")
    bench.redis.set(bench.key("webhooks", "flooded"), "no sorted set")
    bench.gateway.receive_message(_message(5000))
    assert _held(bench)[0] == 1


def test_what_is_kept_of_handled_webhooks_is_counted_until_it_is_gone(bench: Bench) -> None:
    bench.listen()
    for n in range(10):
        bench.report("delivered", msgid=f"nobody's {n}", provider="flooded")
    for event in bench.events():
        bench.ripe_event(event)
    bench.run_hooks()
    assert bench.events() == []
    assert _held(bench)[0] == 0
    # The marks of repetitions and the reports for messages that may still become known.
    assert 5000 < _held(bench)[2] < 20_000
    fields: Any = bench.redis.hgetall(bench.key("kept", "flooded"))
    [(ends, kept)] = fields.items()
    assert int(ends) > bench.now()
    bench.redis.delete(bench.key("kept", "flooded"))
    bench.redis.hset(bench.key("kept", "flooded"), str(bench.now()), kept)
    bench.upkeep.turn()
    assert _held(bench) == (0, 0, 0)
    keys = bench.keys()
    assert not [key for key in keys if key.startswith(("webhook", "kept"))]


def test_a_flood_that_is_handled_at_once_leaves_room_for_a_neighbour(
    redis_server: Make, make_bench: Callable[..., Bench]
) -> None:
    """Records of incoming messages stay for a month: whoever has much of them is refused first."""
    bench = make_bench(redis_url=redis_server("--maxmemory", "12mb").url)
    bench.add("flooded")
    bench.gateway.onReceive.connect(lambda message: None, name="heard")
    for n in range(5000):
        message = _message(n, body="x" * 8000)
        try:
            bench.gateway.receive_message(message)
        except exc.QueueUnavailable:
            break
        bench.hooks.run(message.id or "")
        bench.drain("hook")
    else:
        raise AssertionError("nothing was refused")
    room = bench.ledger.room()
    assert not room.refuses_webhooks
    for n in range(20):
        bench.gateway.receive_message(_message(n, "neighbour"))
    assert bench.send("hello")


@pytest.mark.parametrize(("full", "why"), [("quota", "SMSQUEUE_WEBHOOK_QUOTA"), ("memory", "full")])
def test_the_log_of_the_receivers_says_why_a_webhook_is_refused(
    redis_server: Make,
    make_bench: Callable[..., Bench],
    caplog: pytest.LogCaptureFixture,
    full: str,
    why: str,
) -> None:
    if full == "quota":
        bench = make_bench(webhook_quota=QUOTA)
    else:  # less than what is in use already
        bench = make_bench(redis_url=redis_server().url)
        bench.redis.config_set("maxmemory", 2_000_000)
    bench.gateway.add_provider("africa", AfricasTalkingProvider, username="shop", api_key="k")
    app = bench.gateway.receiver_blueprints_register(Flask("quota"), "a-prefix-for-tests")
    form = {"from": "+15550001", "to": "1234", "text": "a text" * 500}
    for n in range(200):
        told = form | {"id": f"m{n}"}
        answer = app.test_client().post("/a-prefix-for-tests/africa/im", data=told)
        if answer.status_code != 200:
            break
    assert answer.status_code == 503
    [line] = [each for each in caplog.messages if each.startswith("webhook of africa")]
    assert line.startswith("webhook of africa refused: ")
    assert why in line
    assert "QueueUnavailable" not in line
    assert "15550001" not in caplog.text
