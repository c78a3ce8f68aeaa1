"""Workers that continue after their claim has ended: nothing is sent again because of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from smsqueue import exc
from smsqueue.ledger import (
    AttemptBegun,
    AttemptOutcome,
    Claimed,
    ClaimLost,
    NextAttempt,
    NotClaimable,
)
from tests.ledger.bench import Bench
from tests.ledger.test_uncertain import LOST, once


def claim(bench: Bench, id: str, token: str, default: tuple[str, float] | None = None) -> Any:
    return bench.ledger.claim(id, token, lease=60, worker="w", default=default)


@contextmanager
def unheard(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Redis reads what a worker claims, but nothing comes back, and then it is away."""
    claim = bench.ledger.claim

    def lost(*args: Any, **options: Any) -> Any:
        claim(*args, **options)
        raise exc.QueueUnavailable("no answer")

    def away(*args: Any) -> Any:
        raise exc.QueueUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(bench.ledger, "claim", lost)
        patch.setattr(bench.ledger, "unclaim", away)
        yield


def outlived(bench: Bench, id: str) -> None:
    """A claim of a bound message ends, then the time in which the provider knows its key."""
    bench.lapse(id)
    bench.ripe(id)
    bench.redis.hset(bench.key("msg", id), "pin_until", 1)
    claim(bench, id, "another worker's")
    assert bench.state(id) == "unknown"


def calls(bench: Bench) -> int:
    provider: Any = bench.gateway.get_provider("once")
    return len(provider.keys)


@pytest.mark.parametrize("verdict", ["wait", "retry", "failed"])
def test_a_claim_without_a_call_does_not_settle_the_attempt_before(
    bench: Bench, verdict: Any
) -> None:
    once(bench, LOST)
    bench.add("other")
    id = bench.send_by("once", "other")
    bench.deliver(id)
    bench.ripe(id)
    assert isinstance(claim(bench, id, "asleep"), Claimed)
    outlived(bench, id)
    outcome = AttemptOutcome(verdict, "once", delay_ms=0, event="e")
    bench.ledger.settle(id, "asleep", 1, outcome)
    bench.ripe(id)
    bench.deliver(id)
    assert calls(bench) == 1
    assert bench.state(id) == "unknown"


def test_a_claim_given_back_says_nothing_of_the_attempt_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    once(bench, LOST)
    bench.add("other")
    id = bench.send_by("once", "other")
    bench.deliver(id)
    bench.ripe(id)
    with unheard(bench, monkeypatch), pytest.raises(exc.QueueUnavailable):
        bench.deliver(id)
    outlived(bench, id)
    bench.delivery.claims.lost.release()
    bench.ripe(id)
    bench.deliver(id)
    assert calls(bench) == 1
    assert bench.state(id) == "unknown"


def test_a_begin_that_redis_reads_late_begins_nothing(bench: Bench) -> None:
    bench.add("a")
    bench.add("b")
    id, ledger = bench.send_by("a", "b"), bench.ledger
    claim(bench, id, "t")
    assert ledger.begin(id, "t", "a", lease=60, attempt=1) == AttemptBegun(1)
    go = AttemptOutcome("retry", "a", next=NextAttempt("b", 60_000))
    assert ledger.settle(id, "t", 1, go).attempt == 2
    assert ledger.begin(id, "t", "a", lease=60, attempt=1) == ClaimLost()  # from a buffer
    sent = AttemptOutcome("sent", "b", msgids=("x",), msgid='"x"', event="e")
    assert ledger.settle(id, "t", 2, sent).state == "sent"


def test_what_was_delivered_meanwhile_is_not_sent_again(bench: Bench) -> None:
    a = bench.add("a", exc.ServerError("busy"))
    id = bench.send_by("a")
    bench.deliver(id)
    bench.ripe(id)

    def slow(message: Any, *values: Any) -> list[str]:
        bench.report("delivered", reference=f"{id}.1")
        return ["a"]

    bench.gateway.router = slow
    bench.deliver(id)
    assert len(a.calls) == 1
    assert bench.state(id) == "delivered"


def test_each_claim_that_was_given_up_has_no_effect(bench: Bench) -> None:
    bench.add("a")
    id = bench.send()
    for token in ("one", "two"):
        assert bench.ledger.unclaim(id, token) is None
    for token in ("one", "two"):
        assert isinstance(claim(bench, id, token, ("a", 60.0)), NotClaimable)
    assert bench.state(id) == "queued"


def test_two_lost_claims_of_a_message_are_both_given_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = bench.add("a")
    id = bench.send()
    with unheard(bench, monkeypatch):
        for _ in range(2):  # a trigger, and its double
            with pytest.raises(exc.QueueUnavailable):
                bench.deliver(id)
    bench.delivery.claims.lost.release()
    assert bench.state(id) == "retrying"
    bench.deliver(id)
    assert len(a.calls) == 1


def test_what_the_network_said_counts_when_a_bound_message_is_given_up(bench: Bench) -> None:
    once(bench, LOST)
    id = bench.send()
    bench.deliver(id)
    bench.report("undelivered", reference=f"{id}.1", provider="once")
    for n in range(3):
        bench.ripe(id)
        if bench.state(id) != "retrying":
            break
        claim(bench, id, f"token {n}")
        bench.lapse(id)
    assert bench.state(id) == "undelivered"


def test_a_provider_that_is_not_trusted_to_send_once_any_more_is_not_called_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    once(bench, LOST)
    id = bench.send()
    bench.deliver(id)
    # A deploy sets dedup_window=0, or gives the name to another class.
    monkeypatch.setattr(bench.gateway.get_provider("once"), "dedup_window", 0.0)
    bench.ripe(id)
    bench.deliver(id)
    assert calls(bench) == 1
    bench.redis.hset(bench.key("msg", id), "pin_until", 1)
    bench.ripe(id)
    bench.deliver(id)
    assert (calls(bench), bench.state(id)) == (1, "unknown")
