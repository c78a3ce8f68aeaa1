"""Messages of several parts, each with an id and reports of its own."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smsqueue import OutgoingMessage, exc
from smsqueue.ledger import AttemptBegun, AttemptOutcome, Claimed, ProviderPaused, Remedies
from tests.ledger.bench import STATUSES, Bench, Told

RANK = {"sent": 1, "accepted": 2, "expired": 3, "undelivered": 4, "delivered": 5}
REPORTS = ("accepted", "expired", "undelivered", "delivered")
#: Texts of so many parts.
TEXTS = {1: "hello", 2: "x" * 200, 3: "x" * 400}

#: A part (from 1), and what is reported of it.
Fact = tuple[int, str]


@pytest.fixture
def provider(bench: Bench) -> Told:
    return bench.add("a")


def with_ids(*ids: object) -> Any:
    def take(message: OutgoingMessage) -> None:
        message.msgid = list(ids)

    return take


def ended(parts: int, facts: Iterable[Fact], unheard: str = "sent") -> str:
    """What a message of so many parts ends as, by docs/design.md."""
    known = set(facts)
    if {part for part, state in known if state == "delivered"} == set(range(1, parts + 1)):
        return "delivered"
    for state in ("undelivered", "expired"):
        if any(state == found for _, found in known):
            return state
    if {part for part, _ in known} == set(range(1, parts + 1)):
        return "accepted"
    return "sent" if known else unheard


def begun(bench: Bench, id: str, number: int, body: str) -> None:
    """A message whose attempt of this number is running."""
    if number == 1:
        bench.ledger.accept(OutgoingMessage("15550001", body).options(status_report=True), id)
    claimed = bench.ledger.claim(id, f"t{number}", lease=60, worker="w", default=("a", 60))
    assert isinstance(claimed, Claimed)
    assert claimed.begun == AttemptBegun(number)


def settled(bench: Bench, id: str, number: int, verdict: Any, msgids: list[str]) -> None:
    outcome = AttemptOutcome(verdict, "a", delay_ms=0, event=f"e{id}")
    if msgids:
        outcome = replace(outcome, msgids=tuple(msgids), msgid=json.dumps(msgids))
    bench.ledger.settle(id, f"t{number}", number, outcome)


def reported(bench: Bench, id: str, number: int, fact: Fact, by: str, of_part: bool = True) -> None:
    pid = f"{id}-{number}-{fact[0]}"
    status = STATUSES[fact[1]](pid)
    status.provider, status.of_part = "a", of_part
    status.reference = f"{id}.{number}" if by == "reference" else None
    bench.ledger.report(status, pids=[pid])


def test_a_message_is_delivered_when_all_its_parts_are(bench: Bench, provider: Told) -> None:
    provider.then(with_ids("p1", "p2"))
    id = bench.send(status_report=True)
    bench.deliver(id)
    bench.report("accepted", msgid="p1")
    assert bench.state(id) == "sent"
    bench.report("delivered", msgid="p1")
    assert bench.state(id) == "sent"
    bench.report("accepted", msgid="p2")
    assert bench.state(id) == "accepted"
    bench.report("delivered", msgid="p2")
    assert bench.state(id) == "delivered"


@pytest.mark.parametrize("failure", ["undelivered", "expired"])
@pytest.mark.parametrize("first", ["delivered", "failure"])
def test_one_failed_part_makes_the_message_fail(
    bench: Bench, provider: Told, failure: str, first: str
) -> None:
    provider.then(with_ids("p1", "p2"))
    id = bench.send(status_report=True)
    bench.deliver(id)
    reports = [("p1", "delivered"), ("p2", failure)]
    for part, state in reports if first == "delivered" else reports[::-1]:
        bench.report(state, msgid=part)
    assert bench.state(id) == failure


#: Up to three reports of two parts, in every order.
FACTS = list(itertools.product((1, 2), REPORTS))
ORDERS = [order for n in range(1, 4) for order in itertools.permutations(FACTS, n)]


@pytest.mark.parametrize("by", ["reference", "msgid"])
@pytest.mark.parametrize("of_part", [True, False], ids=["said to be of a part", "not said"])
def test_every_order_of_the_parts_reports_ends_the_same(
    bench: Bench, by: str, of_part: bool
) -> None:
    for n, order in enumerate(ORDERS):
        id, settles, best = f"o{n}", n % (len(order) + 1), 0
        begun(bench, id, 1, TEXTS[2])
        for i in range(len(order) + 1):
            if i == settles:
                settled(bench, id, 1, "sent", [f"{id}-1-1", f"{id}-1-2"])
            if i < len(order):
                for _ in range(2):
                    reported(bench, id, 1, order[i], by, of_part)
            if i >= settles:
                state = bench.field(id, "state") or ""
                assert state == ended(2, order[: i + 1]), order
                assert RANK[state] >= best
                best = RANK[state]
        bench.redis.delete(bench.key("due", "watch"))


ANY_FACT = st.tuples(st.integers(1, 3), st.sampled_from(REPORTS))
ANY_REPORT = st.tuples(ANY_FACT, st.sampled_from(["reference", "msgid"]), st.integers(1, 2))


@given(
    parts=st.integers(1, 3),
    reports=st.lists(ANY_REPORT, max_size=9),
    settle=st.sampled_from(["sent", "late", "never"]),
    again=st.booleans(),
    places=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
@settings(
    max_examples=300, derandomize=True, database=None, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_whatever_happens_between_the_reports_the_end_is_the_same(
    bench: Bench, parts: int, reports: list[tuple[Fact, str, int]], settle: str, again: bool,
    places: tuple[int, int],
) -> None:  # fmt: skip
    """In time, late (the lease had ended), or never settled; of this sending, or of the one before
    an operator's requeue."""
    id, last = f"h{next(_numbers)}", 1 + again
    reports = [
        ((min(part, parts), state), by, min(number, last)) for (part, state), by, number in reports
    ]
    begun(bench, id, 1, TEXTS[parts])
    if again:
        settled(bench, id, 1, "unknown", [f"{id}-1-{part + 1}" for part in range(parts)])
        assert bench.ledger.requeue(id, None)[0] == "unknown"
        begun(bench, id, 2, TEXTS[parts])
    lapses, settles = sorted(place % (len(reports) + 1) for place in places)
    best = 0
    for i in range(len(reports) + 1):
        if settle != "sent" and i == lapses:
            bench.redis.zadd(bench.key("due", "watch"), {id: 1}, xx=True)
            bench.ledger.sweep(9, 3)
        if settle != "never" and i == settles:
            settled(bench, id, last, "sent", [f"{id}-{last}-{part + 1}" for part in range(parts)])
        if i < len(reports):
            fact, by, number = reports[i]
            reported(bench, id, number, fact, by)
        rank = RANK.get(bench.field(id, "state") or "", 0)
        assert rank >= best, "it went backwards"
        best = rank
    # What only has the id of an answer that nobody read belongs to nobody.
    known = {(fact[0], number) for fact, by, number in reports if by == "reference"}
    facts: dict[int, set[Fact]] = {1: set(), 2: set()}
    for fact, by, number in reports:
        answered = number < last or settle != "never"
        if by == "reference" or answered or (fact[0], number) in known:
            facts[number].add(fact)
    end = ended(parts, facts[last], "unknown" if settle == "never" else "sent")
    if again and ended(parts, facts[1]) == "delivered":
        end = "delivered"
    assert bench.state(id) == end
    bench.redis.delete(bench.key("due", "watch"))


_numbers = itertools.count(1)


@pytest.mark.parametrize("state", REPORTS)
def test_a_report_with_our_reference_and_no_part_is_of_the_whole_message(
    bench: Bench, provider: Told, state: str
) -> None:
    provider.then(with_ids("p1", "p2"))
    id = bench.send(status_report=True)
    bench.deliver(id)
    bench.report(state, reference=f"{id}.1")
    assert bench.state(id) == state


def test_a_part_that_arrived_ends_a_retry(bench: Bench, provider: Told) -> None:
    """The provider has the message, whatever its answer was: it is not sent a second time."""
    provider.then(exc.ServerError(ambiguous=True))
    id = bench.send(TEXTS[2], status_report=True, on_unknown="resend")
    bench.deliver(id)
    assert bench.state(id) == "retrying"
    bench.report("delivered", reference=f"{id}.1", msgid="p1", of_part=True)
    assert bench.state(id) == "sent"
    bench.ripe(id)
    bench.deliver(id)
    assert len(provider.calls) == 1
    bench.report("delivered", reference=f"{id}.1", msgid="p2", of_part=True)
    assert bench.state(id) == "delivered"


def test_a_part_that_arrived_spares_a_call_that_has_not_begun(bench: Bench, provider: Told) -> None:
    provider.then(exc.ServerError(ambiguous=True))
    id = bench.send(TEXTS[2], status_report=True, on_unknown="resend")
    bench.deliver(id)
    bench.ripe(id)
    assert isinstance(bench.ledger.claim(id, "t2", lease=60, worker="w"), Claimed)
    bench.report("accepted", reference=f"{id}.1", msgid="p1", of_part=True)
    answer = bench.ledger.begin(id, "t2", "a", lease=60, attempt=2)
    assert answer == ProviderPaused(left_ms=0)


def test_a_short_message_whose_answer_was_lost_is_delivered_by_its_only_report(
    bench: Bench, provider: Told
) -> None:
    provider.then(exc.ServerError(ambiguous=True))
    id = bench.send("Your code is 1234", status_report=True)
    bench.deliver(id)
    bench.report("delivered", reference=f"{id}.1", msgid="p1", of_part=True)
    assert bench.state(id) == "delivered"


def test_a_long_text_that_the_provider_sent_as_one_is_delivered_by_its_only_report(
    bench: Bench, provider: Told
) -> None:
    def meanwhile(message: OutgoingMessage) -> None:
        bench.report("accepted", reference=provider.calls[-1], msgid="one", of_part=True)
        message.msgid = "one"

    provider.then(meanwhile)
    id = bench.send(TEXTS[3], status_report=True)
    bench.deliver(id)
    bench.report("delivered", reference=f"{id}.1", msgid="one", of_part=True)
    assert bench.state(id) == "delivered"


def test_a_repetition_with_the_same_key_has_the_reports_of_the_attempt_that_it_repeats(
    bench: Bench,
) -> None:
    """Both have one reference; the answer to the second one names the parts."""
    for n, order in enumerate(itertools.permutations([(1, "delivered"), (2, "undelivered")])):
        for place in range(3):
            id = f"r{n}{place}"
            begun(bench, id, 1, TEXTS[2])
            outcome = AttemptOutcome(
                *("unknown", "a"),
                delay_ms=0,
                counted=True,
                remedies=Remedies(repeat_for_ms=3_600_000),
                event=f"e{id}",
            )
            bench.ledger.settle(id, "t1", 1, outcome)
            bench.ripe(id)
            assert isinstance(bench.ledger.claim(id, "t2", lease=60, worker="w"), Claimed)
            assert bench.ledger.begin(id, "t2", "a", lease=60, attempt=2) == AttemptBegun(2)
            for i in range(3):
                if i == place:
                    settled(bench, id, 2, "sent", [f"{id}-1-1", f"{id}-1-2"])
                if i < 2:
                    reported(bench, id, 1, order[i], "reference")
            assert bench.state(id) == "undelivered", (order, place)
            reported(bench, id, 1, (2, "delivered"), "msgid")
            assert bench.state(id) == "delivered"


def test_records_of_an_earlier_version_know_their_parts(bench: Bench, provider: Told) -> None:
    for ids, types in ((["p1", "p2"], str), ([71, 72], int)):
        provider.then(with_ids(*ids))
        id = bench.send(status_report=True)
        bench.deliver(id)
        record = bench.key("msg", id)
        fields = [name for name in bench.redis.hkeys(record) if "parts" in name]
        assert fields
        bench.redis.hdel(record, *fields)
        bench.report("delivered", msgid=types(ids[0]))
        assert bench.state(id) == "sent"
        bench.report("delivered", msgid=types(ids[1]))
        assert bench.state(id) == "delivered"


def test_an_attempt_that_an_earlier_version_began_is_settled_as_it_settles(
    bench: Bench, provider: Told
) -> None:
    """Its settle does not count parts: a report during the call has effect at once."""

    def meanwhile(message: OutgoingMessage) -> None:
        bench.redis.hdel(bench.key("msg", str(message.id)), "gathers")
        bench.report("delivered", msgid="one", reference=f"{message.id}.1")
        assert bench.field(str(message.id), "reported") == "delivered"

    provider.then(meanwhile)
    id = bench.send(status_report=True)
    bench.deliver(id)
    assert bench.state(id) == "delivered"


def test_handlers_hear_of_each_part_and_the_time_is_counted_once(
    bench: Bench, provider: Told
) -> None:
    heard = bench.listen()
    provider.then(with_ids("p1", "p2", "p3"))
    id = bench.send(status_report=True)
    bench.deliver(id)
    for part in ("p3", "p1", "p2"):
        bench.report("delivered", msgid=part, of_part=True)
        bench.run_hooks()
    told = [(status.msgid, status.state, status.id, status.of_part) for status in heard]
    assert sorted(told) == [(part, "delivered", id, True) for part in ("p1", "p2", "p3")]
    took = {k: v for k, v in bench.ledger.counters().items() if k[:2] == ("took", "delivered")}
    assert sum(took.values()) == 1
    ends = {k: v for k, v in bench.ledger.counters().items() if k[:2] == ("ended", "delivered")}
    assert sum(ends.values()) == 1


def test_what_is_kept_of_parts_is_bounded_and_goes_when_all_is_known(
    bench: Bench, provider: Told
) -> None:
    provider.then(exc.ServerError(ambiguous=True))
    id = bench.send(TEXTS[3], status_report=True)
    bench.deliver(id)
    for n in range(600):
        bench.report("undelivered", reference=f"{id}.1", msgid=f"{n:036}", code=n, of_part=True)
    record: Any = bench.redis.hgetall(bench.key("msg", id))
    (kept,) = [value for name, value in record.items() if "parts" in name]
    assert len(kept) < 255 * 50
    assert bench.redis.scard(bench.key("refs", id)) < 600
    assert bench.state(id) == "undelivered"
    for n in range(3):
        bench.report("delivered", reference=f"{id}.1", msgid=f"{n:036}", of_part=True)
    assert bench.state(id) == "delivered"
    record = bench.redis.hgetall(bench.key("msg", id))
    assert [name for name in record if "parts" in name] == []
