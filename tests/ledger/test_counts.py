"""The counters: each thing that happens is counted once, under the right name."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import pytest

from smsqueue import IncomingMessage, OutgoingMessage, RetryPolicy, exc
from smsqueue.ledger import AttemptBegun, AttemptOutcome, Claimed, ClaimedEvent
from tests.ledger.bench import Bench

Counts = dict[str, int]
#: One message that was given to one provider.
ONE: Counts = {"accepted": 1, "attempts|a": 1}


def counted(bench: Bench, *, times: bool = False) -> Counts:
    """All counters as they stand in Redis; without the durations if those are not asked for."""
    counts: Any = bench.redis.hgetall(bench.key("counts"))
    return {k: int(v) for k, v in counts.items() if times or not k.startswith("took")}


def durations(bench: Bench, what: str) -> dict[str, int]:
    """Provider and bucket, and how many fell into it."""
    found = counted(bench, times=True)
    head = f"took|{what}|"
    return {k.removeprefix(head): n for k, n in found.items() if k.startswith(head)}


def earlier(bench: Bench, id: str, seconds: float) -> None:
    """Everything that happened to a message so far was so long ago."""
    ms, hash = int(seconds * 1000), bench.key("msg", id)
    lines = json.loads(bench.redis.hget(hash, "timeline"))  # type: ignore[arg-type]
    for line in lines:
        line["at"] -= ms
    bench.redis.hset(hash, "timeline", json.dumps(lines, separators=(",", ":")))
    for name in ("since", "sent_at"):
        if bench.field(id, name):
            bench.redis.hincrby(hash, name, -ms)


def begun(bench: Bench, id: str, token: str = "t") -> int:
    """A worker holds a message and calls a provider; the attempt's number."""
    made = bench.record(id).attempts
    assert isinstance(bench.ledger.claim(id, token, lease=60, worker="w"), Claimed)
    begun = bench.ledger.begin(id, token, "a", lease=60, attempt=made + 1)
    assert isinstance(begun, AttemptBegun)
    return begun.number


def outcome(verdict: Any, **more: Any) -> AttemptOutcome:
    if verdict == "sent":
        more |= {"msgids": ("m",), "msgid": '"m"'}
    else:
        more |= {"error": "ServerError", "delay_ms": 10}
    return AttemptOutcome(verdict, "a", event="e", **more)


# --- taking in ---------------------------------------------------------------------------------


def test_a_message_is_accepted_once(bench: Bench) -> None:
    message = OutgoingMessage("1555", "hi").options(idempotency_key="k")
    for _ in range(3):
        assert bench.ledger.accept(message, "1m842psghd5k1m5599r6").verdict == "accepted"
    assert bench.ledger.accept(message, "1m842psghd5k1m5599r7").verdict == "duplicate"
    other = OutgoingMessage("1555", "other").options(idempotency_key="k")
    assert bench.ledger.accept(other, "1m842psghd5k1m5599r8").verdict == "conflict"
    assert counted(bench) == {"accepted": 1}
    bench.gateway.send_many([OutgoingMessage("1555", "hi") for _ in range(5)])
    assert counted(bench) == {"accepted": 6}


# --- attempts ----------------------------------------------------------------------------------


def test_a_sent_message(bench: Bench) -> None:
    bench.add("a")
    id = bench.send()
    for _ in range(3):
        bench.deliver(id)
    assert counted(bench) == ONE
    assert sum(durations(bench, "sent").values()) == 1


@pytest.mark.parametrize("verdict", ["sent", "retry", "failed", "unknown"])
def test_a_repeated_answer_counts_nothing(bench: Bench, verdict: str) -> None:
    id = bench.send()
    attempt = begun(bench, id)
    bench.ledger.begin(id, "t", "a", lease=60, attempt=attempt)
    bench.ledger.settle(id, "t", attempt, outcome(verdict))
    first = counted(bench, times=True)
    assert first["attempts|a"] == 1
    assert first.get(f"errors|a|ServerError|{verdict}", 0) == (verdict != "sent")
    bench.ledger.settle(id, "t", attempt, outcome(verdict))
    assert counted(bench, times=True) == first


def test_a_next_provider_is_an_attempt_of_its_own(bench: Bench) -> None:
    bench.add("a", exc.ServerError())
    bench.add("b")
    bench.deliver(bench.send_by("a", "b"))
    errors = {"errors|a|ServerError|retry": 1}
    assert counted(bench) == ONE | errors | {"attempts|b": 1}
    assert {key.partition("|")[0] for key in durations(bench, "sent")} == {"b"}


def test_an_error_before_a_paused_provider_counts_once(bench: Bench) -> None:
    """Its attempt is settled twice: with the next provider, and with the wait for that one."""
    bench.add("a", exc.ServerError())
    bench.add("b", exc.LimitsError(retry_after=60))
    bench.deliver(bench.send_by("b"))
    before = Counter(counted(bench))
    assert bench.deliver(bench.send_by("a", "b")).state == "retrying"
    assert Counter(counted(bench)) - before == ONE | {"errors|a|ServerError|retry": 1}


def test_each_attempt_has_its_own_error(bench: Bench) -> None:
    bench.add("a", exc.ServerError(), exc.ServerError(), exc.RequestError())
    id = bench.send()
    for _ in range(3):
        bench.deliver(id)
        bench.ripe(id)
    assert counted(bench) == {
        "accepted": 1,
        "attempts|a": 3,
        "errors|a|ServerError|retry": 2,
        "errors|a|RequestError|failed": 1,
        "ended|failed|a|RequestError": 1,
    }


def test_an_error_of_a_router_is_counted_without_a_provider(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(RetryPolicy(attempts=1))
    bench.add("a")
    bench.gateway.router = lambda message, *values: {}["missing"]
    id = bench.gateway.send(OutgoingMessage("1555", "hi").route("x")).id or ""
    bench.deliver(id)
    assert counted(bench) == {
        "accepted": 1,
        "errors||KeyError|failed": 1,
        "ended|failed||KeyError": 1,
    }


def test_a_pause_is_counted_when_it_begins(bench: Bench) -> None:
    bench.add("a", exc.CreditError(), exc.CreditError())
    id, other = bench.send(), bench.send()
    bench.deliver(id)
    bench.deliver(other)  # is paused: nobody is called
    one = {"accepted": 2, "attempts|a": 1, "errors|a|CreditError|retry": 1}
    assert counted(bench) == one | {"pauses|a|CreditError": 1}
    bench.unpause("a")
    bench.ripe(id)
    bench.deliver(id)
    assert counted(bench)["pauses|a|CreditError"] == 2


# --- ends --------------------------------------------------------------------------------------


@pytest.mark.parametrize("called", [False, True])
def test_expired_before_it_could_be_sent(bench: Bench, called: bool) -> None:
    bench.add("a", exc.ServerError())
    id = bench.send(expires=1)
    if called:
        bench.deliver(id)
    bench.outdated(id)
    for _ in range(3):
        bench.deliver(id)
    ended = {f"ended|expired|{'a' if called else ''}|": 1}
    errors = {"attempts|a": 1, "errors|a|ServerError|retry": 1} if called else {}
    assert counted(bench) == {"accepted": 1} | errors | ended


def test_cancelled(bench: Bench) -> None:
    id = bench.send()
    assert [bench.gateway.cancel(id) for _ in range(3)] == [True, False, False]
    assert counted(bench) == {"accepted": 1, "ended|cancelled||": 1}


@pytest.mark.parametrize("state", ["undelivered", "expired", "delivered"])
def test_a_report_ends_a_message_once(bench: Bench, state: str) -> None:
    bench.add("a")
    id = bench.send(status_report=True)
    bench.deliver(id)
    for told in ("accepted", state, state):
        bench.report(told, reference=f"{id}.1")
    ended = {f"ended|{state}|a|": 1}
    reports = {"reports|a|accepted|matched": 1, f"reports|a|{state}|matched": 1}
    assert counted(bench) == ONE | ended | reports | {f"reports|a|{state}|repeated": 1}
    assert sum(durations(bench, "delivered").values()) == (state == "delivered")


def test_unknown_and_later_delivered_are_two_ends(bench: Bench) -> None:
    bench.add("a", exc.ServerError(ambiguous=True))
    id = bench.send(status_report=True)
    bench.deliver(id)
    unknown = {"errors|a|ServerError|unknown": 1, "ended|unknown|a|ServerError": 1}
    assert counted(bench) == ONE | unknown
    bench.report("delivered", reference=f"{id}.1")
    delivered = {"ended|delivered|a|": 1, "reports|a|delivered|matched": 1}
    assert counted(bench, times=True) == ONE | unknown | delivered  # nobody saw it being sent


def test_an_operators_word_is_an_end(bench: Bench) -> None:
    bench.add("a", exc.ServerError(ambiguous=True))
    id = bench.send()
    bench.deliver(id)
    assert [bench.gateway.settle(id, "undelivered") for _ in range(2)] == [True, False]
    assert counted(bench)["ended|undelivered|a|"] == 1


@pytest.mark.parametrize("state", ["sent", "unknown"])
def test_a_wait_for_reports_that_is_over_is_no_second_end(bench: Bench, state: str) -> None:
    bench.add("a", *([exc.ServerError(ambiguous=True)] if state == "unknown" else []))
    id = bench.send(status_report=True)
    bench.deliver(id)
    before = counted(bench, times=True)
    bench.lapse(id)
    assert bench.state(id) == state
    assert id not in bench.due()
    assert counted(bench, times=True) == before


def test_a_report_of_an_earlier_attempt_names_its_own_provider(bench: Bench) -> None:
    bench.add("a", exc.ServerError())
    bench.add("b")
    id = bench.send_by("a", "b", status_report=True)
    bench.deliver(id)
    bench.report("delivered", reference=f"{id}.1", provider="a")
    assert counted(bench)["ended|delivered|a|"] == 1
    # When b took it says nothing of how long a needed.
    assert durations(bench, "delivered") == {}


# --- workers that were lost --------------------------------------------------------------------


def test_a_worker_lost_in_a_call(bench: Bench) -> None:
    id = bench.send()
    attempt = begun(bench, id)
    bench.lapse(id)
    bench.upkeep.turn()
    lost = {"lapses|a": 1, "ended|unknown|a|WorkerLost": 1}
    assert counted(bench) == ONE | lost
    for _ in range(2):  # it was only slow
        bench.ledger.settle(id, "t", attempt, outcome("sent"))
    assert bench.state(id) == "sent"
    assert counted(bench) == ONE | lost
    assert sum(durations(bench, "sent").values()) == 1


def test_a_worker_lost_before_it_called_anybody(bench: Bench) -> None:
    id = bench.send()
    for n in range(3):
        bench.ripe(id)
        bench.ledger.claim(id, f"t{n}", lease=60, worker="w")
        bench.lapse(id)
    assert counted(bench) == {"accepted": 1, "lapses|": 3, "ended|failed||WorkerLost": 1}


def test_a_worker_lost_before_its_second_call_lost_nothing_at_the_first_provider(
    bench: Bench,
) -> None:
    bench.add("a", exc.ServerError())
    id = bench.send()
    bench.deliver(id)
    bench.ripe(id)
    bench.ledger.claim(id, "t", lease=60, worker="w")
    bench.lapse(id)
    assert counted(bench) == ONE | {"errors|a|ServerError|retry": 1, "lapses|": 1}


def test_the_error_of_a_lost_worker_that_comes_back_is_not_counted_beside_its_loss(
    bench: Bench,
) -> None:
    id = bench.send(on_unknown="resend")
    attempt = begun(bench, id)
    bench.lapse(id)
    for _ in range(2):
        bench.ledger.settle(id, "t", attempt, outcome("retry"))
    assert counted(bench) == ONE | {"lapses|a": 1}


def test_a_late_error_settles_an_unknown_message_and_counts_once(bench: Bench) -> None:
    id = bench.send()
    attempt = begun(bench, id)
    bench.lapse(id)
    for _ in range(2):
        bench.ledger.settle(id, "t", attempt, outcome("retry"))
    lost = {"lapses|a": 1, "ended|unknown|a|WorkerLost": 1}
    assert counted(bench) == ONE | lost | {"errors|a|ServerError|retry": 1}


# --- durations ---------------------------------------------------------------------------------


BUCKETS = ("0.1", "0.25", "0.5", "1", "2.5", "5", "10", "30", "60", "300", "1800", "7200", "+Inf")


@pytest.mark.parametrize("seconds", [0, 7, 50, 6000, 9000])
def test_a_message_is_sent_after_a_time(bench: Bench, seconds: float) -> None:
    bench.add("a")
    id = bench.send()
    earlier(bench, id, seconds)
    bench.deliver(id)
    took = counted(bench, times=True)["took_ms|sent|a"]
    bucket = next(each for each in BUCKETS if took <= float(each) * 1000)
    assert durations(bench, "sent") == {f"a|{bucket}": 1}
    assert seconds * 1000 <= took < seconds * 1000 + 100_000


def test_a_scheduled_message_is_late_from_its_due_time_on(bench: Bench) -> None:
    bench.add("a")
    id = bench.send(send_at=datetime.now(UTC) + timedelta(hours=1))
    earlier(bench, id, 3600 + 7)
    bench.ripe(id)
    bench.deliver(id)
    assert durations(bench, "sent") == {"a|10": 1}


def test_a_requeued_message_is_late_from_then_on(bench: Bench) -> None:
    bench.add("a", exc.RequestError(), None)
    id = bench.send()
    bench.deliver(id)
    earlier(bench, id, 9000)
    assert [bench.gateway.requeue(id) for _ in range(2)] == [True, False]
    earlier(bench, id, 7)
    bench.deliver(id)
    assert durations(bench, "sent") == {"a|10": 1}
    assert counted(bench)["requeued"] == 1


def test_a_message_is_delivered_after_a_time(bench: Bench) -> None:
    bench.add("a")
    id = bench.send(status_report=True)
    bench.deliver(id)
    earlier(bench, id, 50)
    for state in ("accepted", "delivered", "delivered"):
        bench.report(state, reference=f"{id}.1")
    assert durations(bench, "delivered") == {"a|60": 1}
    assert counted(bench, times=True)["took_ms|delivered|a"] >= 50_000


@pytest.mark.parametrize("by", ["reference", "msgid"])
def test_a_report_before_the_settle_is_delivered_at_once(bench: Bench, by: str) -> None:
    def meanwhile(message: Any) -> None:
        for _ in range(2):
            known = {"reference": message.reference} if by == "reference" else {"msgid": "early"}
            message.msgid = "early"
            bench.report("delivered", **known)

    bench.add("a", meanwhile)
    id = bench.send(status_report=True)
    bench.deliver(id)
    how = "matched" if by == "reference" else "parked"
    reports = {f"reports|a|delivered|{how}": 1, "reports|a|delivered|repeated": 1}
    assert counted(bench) == ONE | {"ended|delivered|a|": 1} | reports
    assert durations(bench, "delivered") == {"a|0.1": 1}


def test_a_report_of_the_sending_before_a_requeue_has_no_duration(bench: Bench) -> None:
    bench.add("a")
    id = bench.send(status_report=True)
    bench.deliver(id)
    bench.report("undelivered", reference=f"{id}.1")
    bench.gateway.requeue(id)
    bench.report("delivered", reference=f"{id}.1")
    assert bench.state(id) == "delivered"
    assert durations(bench, "delivered") == {}


def test_the_buckets_are_those_of_the_page(bench: Bench) -> None:
    from smsqueue.operation.metrics import BUCKETS

    text = files("smsqueue.ledger").joinpath("shared/base.lua").read_text("utf-8")
    [numbers] = re.findall(r"^local BUCKETS = \{ (.*) \}$", text, re.M)
    assert tuple(map(float, numbers.split(","))) == BUCKETS


# --- reports, incoming messages, hooks ---------------------------------------------------------


def test_unmatched_reports_are_counted(bench: Bench) -> None:
    bench.add("a")
    for msgid in ("x", "x", "y", None):
        bench.report("accepted", msgid=msgid)
    assert counted(bench) == {"reports|a|accepted|parked": 3, "reports|a|accepted|repeated": 1}


def test_incoming_messages(bench: Bench) -> None:
    provider = bench.add("a")
    for msgid in ("1", "1", "2", None, None):
        provider._receive_message(IncomingMessage("1555", "hi", msgid))
    assert counted(bench) == {"incoming|a|recorded": 4, "incoming|a|repeated": 1}


def test_hooks(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(RetryPolicy(attempts=3))
    provider = bench.add("a")
    provider._receive_message(IncomingMessage("1555", "hi", "1"))
    bench.run_hooks()
    bench.run_hooks()
    assert counted(bench)["hooks|received|unheard"] == 1

    def fails(message: object) -> None:
        raise ValueError

    bench.gateway.onReceive.connect(fails, name="fails")
    provider._receive_message(IncomingMessage("1555", "hi", "2"))
    for _ in range(5):
        for event in bench.events():
            bench.ripe_event(event)
        bench.run_hooks()
    found = {k: n for k, n in counted(bench).items() if k.startswith("hooks|received")}
    assert found == {
        "hooks|received|unheard": 1,
        "hooks|received|retry": 2,
        "hooks|received|dead": 1,
    }


def test_a_hook_that_is_settled_again_counts_once(bench: Bench) -> None:
    bench.listen()
    bench.gateway.cancel(bench.send())
    [event] = bench.events()
    assert isinstance(bench.ledger.claim_event(event, "t", "w"), ClaimedEvent)
    for _ in range(3):
        bench.ledger.settle_event(event, "t", "done", delay=0, why="")
    assert counted(bench)["hooks|status|done"] == 1
