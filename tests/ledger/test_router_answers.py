"""What a router's Refuse and NotBefore make of a message."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from smsqueue import Gateway, NotBefore, OutgoingMessage, Refuse, State, exc
from smsqueue.operation.metrics import scrape
from smsqueue.providers import NullProvider
from smsqueue.testing import capture
from tests.ledger.bench import Bench

TOMORROW = datetime.now(UTC) + timedelta(days=1)


def _send(bench: Bench, answer: Any, **options: Any) -> str:
    bench.gateway.router = lambda message: answer
    message = OutgoingMessage("15550001", "hi").options(**options).route()
    return str(bench.gateway.send(message).id)


def test_a_refused_message_fails_without_a_call(bench: Bench) -> None:
    provider, statuses = bench.add("a"), bench.listen()
    id = _send(bench, Refuse("no consent"))
    assert bench.deliver(id).state == State.FAILED
    record = bench.record(id)
    assert (record.state, record.error, record.attempts) == (State.FAILED, "Refused", 0)
    assert record.timeline[-1]["why"] == "no consent"
    assert provider.calls == []
    bench.run_hooks()
    assert [(status.id, status.status) for status in statuses] == [(id, "failed: Refused")]


def test_a_decision_is_not_counted_as_an_error(bench: Bench) -> None:
    bench.add("a")
    bench.deliver(_send(bench, Refuse("no consent")))
    bench.deliver(_send(bench, NotBefore(TOMORROW)))
    samples = scrape(bench.ledger).decode()
    assert "smsqueue_errors_total{" not in samples
    assert 'smsqueue_policy_total{decision="refused"} 1.0' in samples
    assert 'smsqueue_policy_total{decision="not_before"} 1.0' in samples
    assert not bench.redis.exists(bench.key("unrouted"))


def test_a_message_waits_until_the_time_of_the_router(bench: Bench) -> None:
    provider = bench.add("a")
    id = _send(bench, NotBefore(TOMORROW))
    bench.deliver(id)
    record = bench.record(id)
    assert (record.state, record.attempts) == (State.SCHEDULED, 0)
    assert record.timeline[-1]["next"] == TOMORROW.replace(
        microsecond=TOMORROW.microsecond // 1000 * 1000
    )
    bench.deliver(id)  # a trigger that comes early
    assert provider.calls == []
    bench.gateway.router = lambda message: "a"
    bench.ripe(id)
    bench.deliver(id)
    assert provider.calls == [f"{id}.1"]


def test_a_time_that_is_past_is_a_second_from_now(bench: Bench) -> None:
    bench.add("a")
    now = bench.now()
    id = _send(bench, NotBefore(datetime(2020, 1, 1, tzinfo=UTC)))
    bench.deliver(id)
    assert bench.record(id).state == State.SCHEDULED
    assert int(bench.redis.hget(bench.key("msg", id), "not_before")) >= now + 1000


def test_a_message_expires_while_the_router_lets_it_wait(bench: Bench) -> None:
    bench.add("a")
    id = _send(bench, NotBefore(TOMORROW), expires=5)
    bench.deliver(id)
    score = bench.redis.zscore(bench.key("due", "send"), id)
    assert score <= bench.now() + 5 * 60_000
    bench.outdated(id)
    assert bench.deliver(id).state == State.EXPIRED


@pytest.mark.parametrize(
    ("kind", "value", "error"),
    [
        (Refuse, "", ValueError),
        (Refuse, "x" * 201, ValueError),
        (Refuse, 7, TypeError),
        (NotBefore, datetime(2030, 1, 1), ValueError),  # noqa: DTZ001
        (NotBefore, "tomorrow", TypeError),
    ],
    ids=["empty", "too long", "number", "no time zone", "text"],
)
def test_an_invalid_answer_raises_where_it_is_made(
    kind: type[Any], value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=kind.__name__):
        kind(value)


@pytest.mark.parametrize("answer", [Refuse("no consent"), NotBefore(TOMORROW)])
def test_an_eager_gateway_raises(answer: Any) -> None:
    gateway = Gateway(eager=True)
    gateway.add_provider("null", NullProvider)
    gateway.router = lambda message: answer
    with pytest.raises(exc.Refused, match=r"no consent|not before"):
        gateway.send(OutgoingMessage("15550001", "hi").route())
    with capture(gateway) as outbox, pytest.raises(exc.Refused):
        gateway.send(OutgoingMessage("15550001", "hi").route())
    assert outbox == []


def test_capture_follows_the_router() -> None:
    gateway = Gateway()
    gateway.add_provider("null", NullProvider)
    statuses: list[Any] = []
    gateway.onStatus += lambda status: statuses.append(status.status)
    with capture(gateway) as outbox:
        gateway.router = lambda message: Refuse("no consent")
        refused = gateway.send(OutgoingMessage("15550001", "hi").route())
        gateway.router = lambda message: NotBefore(TOMORROW)
        later = gateway.send(OutgoingMessage("15550001", "hi").route())
        record = gateway.lookup(str(refused.id))
        assert (record.state, record.error, record.attempts) == (State.FAILED, "Refused", 0)
        assert gateway.lookup(str(later.id)).state == State.SCHEDULED
        assert [message.id for message in outbox] == [later.id]
    assert statuses == ["failed: Refused"]
