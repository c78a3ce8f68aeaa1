"""Claiming, beginning and settling attempts: fenced, repeatable, and each verdict's effect."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import pytest

from smsqueue import OutgoingMessage, exc
from smsqueue.ledger import (
    AttemptBegun,
    AttemptOutcome,
    ClaimAnswer,
    Claimed,
    ClaimLost,
    NextAttempt,
    NotClaimable,
)
from smsqueue.message.statuses import MessageError
from smsqueue.providers import NullProvider
from tests.ledger.bench import Bench


def state_of(answer: ClaimAnswer) -> str:
    """The state because of which a message was not claimed."""
    assert isinstance(answer, NotClaimable)
    return answer.state


def _claim(bench: Bench, id: str) -> str:
    token = secrets.token_hex(8)
    assert isinstance(bench.ledger.claim(id, token, lease=60, worker="w"), Claimed)
    return token


def _begin(bench: Bench, id: str, provider: str = "a") -> tuple[str, int]:
    token = _claim(bench, id)
    made = bench.record(id).attempts
    begun = bench.ledger.begin(id, token, provider, lease=60, attempt=made + 1)
    assert isinstance(begun, AttemptBegun)
    return token, begun.number


def _outcome(verdict: Any, **more: Any) -> AttemptOutcome:
    base: dict[str, Any] = {"provider": "a", "event": secrets.token_hex(10)}
    if verdict == "sent":
        base |= {"msgids": ("m1",), "msgid": '"m1"', "provider_works": True}
    if verdict == "failed":
        base |= {"why": "failed: RequestError", "error": "RequestError"}
    if verdict == "retry":
        base |= {"delay_ms": 5000, "counted": True, "error": "ServerError"}
    return AttemptOutcome(verdict, **(base | more))


EXPECTED = {
    "sent": "sent",
    "retry": "retrying",
    "failed": "failed",
    "unknown": "unknown",
    "wait": "retrying",
}


def test_a_repeated_claim_gives_the_first_answer(bench: Bench) -> None:
    id = bench.send()
    first = bench.ledger.claim(id, "t", lease=60, worker="w")
    again = bench.ledger.claim(id, "t", lease=60, worker="w")
    assert isinstance(first, Claimed)
    assert isinstance(again, Claimed)
    assert replace(again, now_ms=first.now_ms) == first
    assert state_of(bench.ledger.claim(id, "other", lease=60, worker="w")) == "sending"


def test_a_repeated_begin_gives_the_first_answer(bench: Bench) -> None:
    id = bench.send()
    token = _claim(bench, id)
    for _ in range(3):
        assert bench.ledger.begin(id, token, "a", lease=60, attempt=1) == AttemptBegun(1)
    assert bench.record(id).attempts == 1
    assert bench.ledger.begin(id, "stale", "a", lease=60, attempt=1) == ClaimLost()


@pytest.mark.parametrize("verdict", EXPECTED)
def test_each_verdict_settles_once(bench: Bench, verdict: str) -> None:
    id = bench.send()
    token, attempt = _begin(bench, id)
    outcome = _outcome(verdict)
    first = bench.ledger.settle(id, token, attempt, outcome)
    lines, tries, events = bench.record(id).timeline, bench.tries(id), bench.events()
    assert first.state == bench.state(id) == EXPECTED[verdict]
    again = bench.ledger.settle(id, token, attempt, outcome)
    assert (again.state, again.attempt) == (first.state, first.attempt)
    assert bench.record(id).timeline == lines
    assert (bench.tries(id), bench.events()) == (tries, events)
    assert tries == (1 if verdict == "retry" else 0)


def test_a_stale_token_changes_nothing(bench: Bench) -> None:
    id = bench.send()
    token, attempt = _begin(bench, id)
    for verdict in EXPECTED:
        assert bench.ledger.settle(id, "stale", attempt, _outcome(verdict)).state == "sending"
    assert bench.ledger.settle(id, token, attempt, _outcome("sent")).state == "sent"
    for verdict in ("retry", "failed", "unknown", "wait"):
        assert bench.ledger.settle(id, token, attempt, _outcome(verdict)).state == "sent"


def test_an_earlier_attempt_does_not_settle_a_later_one(bench: Bench) -> None:
    id = bench.send()
    first, attempt = _begin(bench, id)
    bench.ledger.settle(id, first, attempt, _outcome("retry"))
    bench.ripe(id)
    second, later = _begin(bench, id)
    assert later == 2
    assert bench.ledger.settle(id, first, attempt, _outcome("failed")).state == "sending"
    assert bench.ledger.settle(id, second, attempt, _outcome("failed")).state == "sending"
    assert bench.ledger.settle(id, second, later, _outcome("sent")).state == "sent"


@pytest.mark.parametrize(
    ("verdict", "state"),
    [("sent", "sent"), ("retry", "retrying"), ("failed", "failed"), ("unknown", "unknown")],
)
def test_a_late_outcome_settles_an_unknown_message(bench: Bench, verdict: str, state: str) -> None:
    id = bench.send()
    token, attempt = _begin(bench, id)
    bench.lapse(id)
    assert bench.state(id) == "unknown"
    assert bench.ledger.settle(id, token, attempt, _outcome(verdict)).state == state
    assert bench.state(id) == state
    assert bench.ledger.settle(id, token, attempt, _outcome(verdict)).state == state


def test_a_late_outcome_of_a_requeued_message_is_noted_only(bench: Bench) -> None:
    id = bench.send()
    token, attempt = _begin(bench, id)
    bench.lapse(id)
    assert bench.gateway.requeue(id) is True
    for verdict in ("failed", "retry", "sent"):
        assert bench.ledger.settle(id, token, attempt, _outcome(verdict)).state == "queued"
    assert "late outcome: sent" in [line.get("why") for line in bench.record(id).timeline]


def test_a_late_success_stops_the_resend_of_what_was_lost(bench: Bench) -> None:
    id = bench.send(on_unknown="resend")
    token, attempt = _begin(bench, id)
    bench.lapse(id)
    assert bench.state(id) == "retrying"
    assert bench.ledger.settle(id, token, attempt, _outcome("sent")).state == "sent"
    assert state_of(bench.ledger.claim(id, "x", lease=60, worker="w")) == "sent"
    assert bench.look("send", id) is None


def test_settling_what_is_forgotten_says_so(bench: Bench) -> None:
    for verdict in EXPECTED:
        assert bench.ledger.settle("nobody", "t", 1, _outcome(verdict)).state == "gone"
    assert bench.keys() == set()


def test_moving_elsewhere_is_one_step_and_repeatable(bench: Bench) -> None:
    id = bench.send()
    token, attempt = _begin(bench, id)
    outcome = _outcome("retry", next=NextAttempt("b", 60_000))
    for _ in range(3):
        moved = bench.ledger.settle(id, token, attempt, outcome)
        assert (moved.state, moved.attempt) == ("sending", 2)
    assert bench.record(id).provider == "b"
    assert bench.tries(id) == 1
    # the first attempt's word is over, the second's counts
    assert bench.ledger.settle(id, token, 1, _outcome("failed")).state == "sending"
    assert bench.ledger.settle(id, token, 2, _outcome("sent", provider="b")).state == "sent"


def test_a_failed_message_tells_its_sender(bench: Bench) -> None:
    heard = bench.listen()
    bench.add("a", exc.RequestError("the text has 15550001", code="21211"))
    id = bench.send(context={"k": 1})
    assert bench.deliver(id).state == "failed"
    bench.run_hooks()
    assert [type(status) for status in heard] == [MessageError]
    status = heard[0]
    assert (status.id, status.status_code, status.context) == (id, "21211", {"k": 1})
    assert "15550001" not in str(status.status)
    assert id not in bench.due()
    record = bench.record(id)
    assert (record.error, record.code) == ("RequestError", "21211")


@pytest.mark.parametrize("before", ["failed", "expired", "undelivered", "unknown"])
def test_requeue_sends_again(bench: Bench, before: str) -> None:
    plans: dict[str, Any] = {"failed": exc.RequestError(), "unknown": RuntimeError()}
    provider = bench.add("a", *([plans[before]] if before in plans else []))
    id = bench.send(status_report=True)
    if before == "expired":
        bench.outdated(id)
    bench.deliver(id)
    if before == "undelivered":
        bench.report("undelivered", reference=f"{id}.1")
    assert bench.state(id) == before
    assert bench.gateway.requeue(id, expires=5) is True
    assert bench.gateway.requeue(id) is False
    assert bench.state(id) == "queued"
    assert int(bench.field(id, "expires") or 0) == pytest.approx(bench.now() + 300_000, abs=5000)
    assert bench.deliver(id).state == "sent"
    assert provider.calls[-1] == f"{id}.{len(provider.calls)}"


@pytest.mark.parametrize("scheduled", [False, True])
def test_what_is_sent_again_is_valid_for_as_long_as_before(bench: Bench, scheduled: bool) -> None:
    bench.add("a", exc.RequestError(), exc.RequestError())
    soon = datetime.now(UTC) + timedelta(seconds=60)
    id = bench.send(expires=5, **({"send_at": soon} if scheduled else {}))
    for _ in range(2):
        bench.ripe(id)
        bench.deliver(id)
        assert bench.state(id) == "failed"
        assert bench.gateway.requeue(id) is True
        left = int(bench.field(id, "expires") or 0) - bench.now()
        assert left == pytest.approx(300_000, abs=5000)
    endless = bench.send()
    bench.gateway.cancel(endless)
    assert bench.gateway.requeue(endless, states=["cancelled"]) is True
    assert bench.field(endless, "expires") is None


def test_requeue_refuses_what_waits_or_was_sent(bench: Bench) -> None:
    bench.add("a")
    id = bench.send()
    assert bench.gateway.requeue(id) is False
    token = _claim(bench, id)
    assert bench.gateway.requeue(id) is False
    bench.ledger.settle(id, token, 0, _outcome("wait", delay_ms=0))
    bench.deliver(id)
    assert bench.state(id) == "sent"
    assert bench.gateway.requeue(id) is False
    bench.report("delivered", reference=f"{id}.1")
    assert bench.gateway.requeue(id) is False
    assert bench.state(id) == "delivered"


@pytest.mark.parametrize("state", ["sent", "accepted", "delivered", "undelivered", "expired"])
def test_an_operator_settles_an_unknown_message(bench: Bench, state: str) -> None:
    bench.add("a", RuntimeError())
    id = bench.send()
    assert bench.gateway.settle(id, state) is False
    bench.deliver(id)
    assert bench.state(id) == "unknown"
    assert bench.gateway.settle(id, state) is True
    assert bench.gateway.settle(id, "sent") is False
    assert bench.state(id) == state
    assert bench.deliver(id).state == state
    assert id not in bench.due()  # no report was asked for
    bench.report("delivered", reference=f"{id}.1")
    assert bench.state(id) == "delivered"


@pytest.mark.parametrize("state", ["queued", "failed", "cancelled", "nonsense", ""])
def test_an_operator_cannot_settle_as_anything(bench: Bench, state: str) -> None:
    id = bench.send()
    with pytest.raises(ValueError, match="cannot be settled"):
        bench.gateway.settle(id, state)


def test_a_late_outcome_does_not_undo_an_operators_word(bench: Bench) -> None:
    id = bench.send()
    token, attempt = _begin(bench, id)
    bench.lapse(id)
    bench.gateway.settle(id, "undelivered")
    for verdict in ("sent", "failed", "retry", "unknown"):
        assert bench.ledger.settle(id, token, attempt, _outcome(verdict)).state == "undelivered"


def test_the_timeline_is_bounded_and_counts_repeats(bench: Bench) -> None:
    id = bench.send()
    for n in range(100):
        token, attempt = _begin(bench, id, f"p{n}")
        bench.ledger.settle(id, token, attempt, _outcome("retry", delay_ms=0, code=str(n)))
    lines = bench.record(id).timeline
    assert len(lines) <= 60
    assert lines[0]["state"] == "queued"
    assert lines[-1]["code"] == "99"
    assert lines[1]["dropped"] + len(lines) == 201
    for _ in range(5):
        bench.ledger.settle(id, "stale", 7, _outcome("failed"))
    assert bench.record(id).timeline[-1]["times"] == 5


def test_two_workers_with_one_trigger_send_once(bench: Bench) -> None:
    provider = bench.add("a")
    id = bench.send()

    def meanwhile(message: OutgoingMessage) -> None:
        assert bench.deliver(id).state == "sending"

    provider.then(meanwhile)
    assert bench.deliver(id).state == "sent"
    assert bench.deliver(id).state == "sent"
    assert provider.calls == [f"{id}.1"]


def test_many_workers_with_many_triggers_send_each_message_once(bench: Bench) -> None:
    provider = bench.add("a")
    bench.give_slots(1000)
    ids = [bench.send(str(n)) for n in range(60)]
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(bench.deliver, ids * 4))
    assert sorted(provider.calls) == sorted(f"{id}.1" for id in ids)
    assert bench.ledger.counts()["sent"] == 60
    assert bench.ledger.counts()["sending"] == 0


def test_whatever_a_provider_tells_is_settled(bench: Bench) -> None:
    """Half a character (a provider cut its echo of the text), numbers that JSON does not have."""

    def odd(message: OutgoingMessage) -> None:
        message.msgid = "id-\ud83d"
        message.meta = {"echo": "caf\ud83d", "price": float("nan"), "when": object()}

    bench.add("a", odd, exc.RequestError(code="\ud83d"), exc.ServerError(code={"a": 1}))
    bench.gateway.onSend.connect(lambda message: None, name="sent")
    for state in ("sent", "failed", "retrying"):
        id = bench.send()
        worker = Thread(target=bench.deliver, args=(id,), daemon=True)
        worker.start()
        worker.join(timeout=10)
        assert bench.state(id) == state
    bench.run_hooks()
    assert bench.events() == []


def test_no_report_is_awaited_from_a_provider_without_reports(bench: Bench) -> None:
    bench.gateway.add_provider("null", NullProvider)
    bench.add("a")
    silent, telling = (bench.send_by(name, status_report=True) for name in ("null", "a"))
    for id in (silent, telling):
        bench.deliver(id)
        assert bench.state(id) == "sent"
    assert bench.look("watch", silent) is None
    assert bench.look("watch", telling) is not None


def test_the_timeline_tells_which_worker_made_an_attempt(bench: Bench) -> None:
    bench.add("a", exc.ServerError("busy"))
    id = bench.send()
    bench.deliver(id)
    bench.ripe(id)
    bench.delivery.claims.worker = "another"
    bench.deliver(id)
    calls = [line for line in bench.record(id).timeline if line["state"] == "sending"]
    assert [line["worker"] for line in calls] == ["bench", "another"]
