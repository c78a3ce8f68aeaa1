"""A message that an operator sends again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from smsqueue.ledger import AttemptOutcome
from tests.ledger.bench import Bench, Told


@pytest.fixture
def provider(bench: Bench) -> Told:
    return bench.add("a")


def test_a_cancelled_message_is_sent_after_its_requeue(bench: Bench, provider: Told) -> None:
    id = bench.send()
    assert bench.gateway.cancel(id)
    assert bench.gateway.requeue(id)
    assert bench.gateway.lookup(id).state == "queued"
    bench.deliver(id)
    assert (provider.calls, bench.gateway.lookup(id).state) == ([f"{id}.1"], "sent")


def test_onstatus_hears_of_the_cancellation_once(bench: Bench, provider: Told) -> None:
    bench.listen()
    id = bench.send()
    bench.gateway.cancel(id)
    bench.gateway.requeue(id)
    bench.deliver(id)
    for event in bench.ledger.ids_in("waiting"):  # type: ignore[arg-type]
        bench.hooks.run(event)
    assert [status.status for status in bench.heard] == ["cancelled"]


def test_a_message_cancelled_while_it_retried_has_new_tries(bench: Bench, provider: Told) -> None:
    id = bench.send()
    bench.ledger.claim(id, "t", lease=60, worker="w")
    bench.ledger.begin(id, "t", "a", lease=60, attempt=1)
    retry = AttemptOutcome("retry", "a", error="ServerError", delay_ms=600_000, counted=True)
    bench.ledger.settle(id, "t", 1, retry)
    assert bench.gateway.cancel(id)
    assert bench.gateway.requeue(id, bulk=True)
    bench.deliver(id)
    record = bench.gateway.lookup(id)
    assert (provider.calls, record.state, record.attempts) == ([f"{id}.2"], "sent", 2)


def test_a_message_cancelled_before_its_time_is_scheduled_again(
    bench: Bench, provider: Told
) -> None:
    send_at = datetime.now(UTC) + timedelta(hours=1)
    id = bench.send(send_at=send_at, expires=10)
    expires = bench.ledger.expires(id)
    assert bench.gateway.cancel(id)
    assert bench.gateway.requeue(id)
    record = bench.gateway.lookup(id)
    assert record.state == "scheduled"
    assert abs(record.timeline[-1]["next"] - send_at) < timedelta(milliseconds=2)
    assert bench.ledger.expires(id) == expires
    bench.deliver(id)
    assert (provider.calls, bench.gateway.lookup(id).state) == ([], "scheduled")
    # An operator may shorten its validity, which counts from that time.
    bench.gateway.cancel(id)
    bench.gateway.requeue(id, expires=5)
    assert bench.ledger.expires(id) == expires - timedelta(minutes=5)  # type: ignore[operator]
