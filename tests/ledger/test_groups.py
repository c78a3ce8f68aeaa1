"""Several items in one script call: each stands for itself, and all is as with single calls."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from smsqueue import OutgoingMessage, exc
from smsqueue.ledger import (
    GROUP_LIMIT,
    AttemptBegun,
    AttemptOutcome,
    Beginning,
    Claimed,
    ClaimedEvent,
    Claiming,
    ClaimLost,
    EventSettlement,
    NextAttempt,
    NotClaimable,
    Remedies,
    Settlement,
)
from tests.ledger.bench import Bench

USUAL = ("a", 60.0)


@pytest.fixture
def full(bench: Bench) -> tuple[Bench, list[str]]:
    """A bench and three messages that wait."""
    bench.add("a")
    return bench, [bench.send(str(n)) for n in range(3)]


def sent(n: int, **fields: Any) -> AttemptOutcome:
    """The outcome of a call that the provider accepted."""
    pid = f"p{n}"
    return AttemptOutcome(
        "sent", "a", msgids=(pid,), msgid=f'"{pid}"', provider_works=True, **fields
    )


def all_claimed(answers: list[Any]) -> bool:
    return all(isinstance(answer, Claimed | ClaimedEvent) for answer in answers)


def claim(bench: Bench, ids: list[str], token: str = "t") -> list[Any]:
    items = [Claiming(id, f"{token}{n}", 60, "w", *USUAL) for n, id in enumerate(ids)]
    return bench.ledger.claim_many(items)


def settle(bench: Bench, ids: list[str], token: str = "t") -> list[Any]:
    items = [Settlement(id, f"{token}{n}", 1, sent(n)) for n, id in enumerate(ids)]
    return bench.ledger.settle_many(items)


def counted(bench: Bench) -> dict[str, str]:
    counts: Any = bench.redis.hgetall(bench.key("counts"))
    return {name: n for name, n in counts.items() if not name.startswith("took")}


def counted_sent(bench: Bench) -> int:
    """Messages in the histogram of how long it took until they were sent."""
    counts: Any = bench.redis.hgetall(bench.key("counts"))
    return sum(int(n) for name, n in counts.items() if name.startswith("took|sent|a|"))


def test_a_group_goes_from_claim_to_settle(full: tuple[Bench, list[str]]) -> None:
    bench, ids = full
    assert all_claimed(claim(bench, ids))
    assert [answer.state for answer in settle(bench, ids)] == ["sent"] * 3
    assert [bench.record(id).msgid for id in ids] == ["p0", "p1", "p2"]
    assert counted(bench) == {"accepted": "3", "attempts|a": "3"}


def test_repeating_a_group_gives_the_first_answers_and_counts_nothing_twice(
    full: tuple[Bench, list[str]],
) -> None:
    bench, ids = full

    def told(answers: list[Any]) -> list[Any]:
        """What was claimed, and the number of the attempt that was begun."""
        return [(type(a), a.data, a.begun) for a in answers]

    assert told(claim(bench, ids)) == told(claim(bench, ids))
    first, between = settle(bench, ids), counted(bench)
    assert [answer.state for answer in settle(bench, ids)] == [answer.state for answer in first]
    assert counted(bench) == between
    assert [bench.record(id).attempts for id in ids] == [1, 1, 1]


@pytest.mark.parametrize("since", ["nonsense", "inf"])
def test_a_message_with_a_damaged_time_of_waiting_harms_no_other_of_its_group(
    full: tuple[Bench, list[str]], since: str
) -> None:
    bench, ids = full
    assert all_claimed([bench.ledger.claim(id, f"t{id}", lease=60, worker="w") for id in ids])
    bench.redis.hset(bench.key("msg", ids[1]), "since", since)
    back = AttemptOutcome("wait", "a", delay_ms=1000)
    first, bad, third = bench.ledger.settle_many([Settlement(id, f"t{id}", 0, back) for id in ids])
    assert (first.state, third.state) == ("queued", "queued")
    assert isinstance(bad, exc.DamagedRecord)
    assert bench.ledger.counts()["queued"] == 2
    assert {ids[0], ids[2]} <= bench.due()
    assert [found.id for found in bench.ledger.damaged()] == [ids[1]]
    bench.gateway.repair(ids[1])
    for id in ids:
        bench.ripe(id)
        assert bench.deliver(id).state == "sent"


@pytest.mark.parametrize("since", ["nonsense", "1.5"])
def test_a_sent_message_with_a_damaged_time_of_waiting_harms_no_other_of_its_group(
    full: tuple[Bench, list[str]], since: str
) -> None:
    bench, ids = full
    claim(bench, ids)
    bench.redis.hset(bench.key("msg", ids[1]), "since", since)
    first, _, third = settle(bench, ids)
    assert (first.state, third.state) == ("sent", "sent")
    assert bench.ledger.counts()["sent"] >= 2
    assert counted_sent(bench) >= 2
    # It is at its provider: whatever comes, nobody sends it again.
    bench.gateway.repair(ids[1])
    assert bench.look("send", ids[1]) is None


@pytest.mark.parametrize("since", ["nonsense", "nan"])
def test_an_event_with_a_damaged_time_of_waiting_harms_no_other_of_its_group(
    full: tuple[Bench, list[str]], since: str
) -> None:
    bench, ids = full
    claim(bench, ids)
    outcomes = [sent(n, event=f"e{n}", sent_event="{}") for n in range(3)]
    bench.ledger.settle_many(
        [Settlement(id, f"t{n}", 1, o) for n, (id, o) in enumerate(zip(ids, outcomes, strict=True))]
    )
    bench.redis.hset(bench.key("event", "e1"), "since", since)
    first, bad, third = bench.ledger.claim_events([(f"e{n}", f"k{n}") for n in range(3)], "w")
    assert isinstance(bad, exc.DamagedRecord)
    assert all_claimed([first, third])
    assert bench.redis.zrange(bench.key("state", "running"), 0, -1) == ["e0", "e2"]
    assert [found.id for found in bench.ledger.damaged()] == ["e1"]


def test_a_damaged_record_in_a_group_harms_no_other(full: tuple[Bench, list[str]]) -> None:
    bench, ids = full
    claim(bench, ids)
    bench.redis.hset(bench.key("msg", ids[1]), "timeline", "nonsense")
    good, bad, also_good = settle(bench, ids)
    assert isinstance(bad, exc.DamagedRecord)
    assert ids[1] in str(bad)
    assert "timeline" in bad.cause
    assert (good.state, also_good.state) == ("sent", "sent")
    assert [found.id for found in bench.ledger.damaged()] == [ids[1]]


def test_a_failure_that_is_no_damage_harms_no_other_item_either(
    full: tuple[Bench, list[str]],
) -> None:
    bench, ids = full
    claim(bench, ids)
    items = [Settlement(id, f"t{n}", 1, sent(n)) for n, id in enumerate(ids)]
    items[0] = items[0]._replace(outcome=replace(sent(0), msgids=({"no": "id"},)))
    bad, *others = bench.ledger.settle_many(items)
    assert isinstance(bad, exc.LedgerError)
    assert [answer.state for answer in others] == ["sent", "sent"]
    assert bench.ledger.damaged() == []


def test_a_claim_that_was_lost_or_taken_back_concerns_its_item_only(
    full: tuple[Bench, list[str]],
) -> None:
    bench, ids = full
    assert bench.ledger.unclaim_many([(ids[0], "t0"), (ids[1], "other")]) == [None, None]
    lost, taken, also_taken = claim(bench, ids)
    assert lost == NotClaimable("queued")
    assert all_claimed([taken, also_taken])
    items = [Settlement(id, f"t{n}", 1, sent(n)) for n, id in enumerate(ids)]
    # Its worker called no provider under the claim that was taken back.
    items[0] = items[0]._replace(outcome=AttemptOutcome("retry", "a", delay_ms=0))
    items[1] = items[1]._replace(token="of somebody else")
    assert [answer.state for answer in bench.ledger.settle_many(items)] == [
        "queued",
        "sending",
        "sent",
    ]
    gone, *_ = bench.ledger.settle_many([Settlement("nobody", "t", 1, sent(9))])
    assert gone.state == "gone"


def test_the_same_message_twice_in_a_group_is_claimed_once(full: tuple[Bench, list[str]]) -> None:
    bench, ids = full
    first, second = claim(bench, [ids[0], ids[0]])
    assert isinstance(first, Claimed)
    assert isinstance(second, NotClaimable)
    assert bench.record(ids[0]).attempts == 1


def test_attempts_begin_in_a_group(full: tuple[Bench, list[str]]) -> None:
    bench, ids = full
    items = [(id, f"t{n}") for n, id in enumerate(ids)]
    bench.ledger.claim_many([Claiming(id, token, 60, "w") for id, token in items])
    begun = [Beginning(id, token, "a", 60, 1) for id, token in items]
    begun[2] = begun[2]._replace(token="of somebody else")
    assert bench.ledger.begin_many(begun) == [AttemptBegun(1), AttemptBegun(1), ClaimLost()]
    assert bench.ledger.begin_many(begun) == [AttemptBegun(1), AttemptBegun(1), ClaimLost()]


def test_a_full_group_is_answered_whatever_time_it_takes(bench: Bench) -> None:
    """One script keeps Redis busy for a few milliseconds: the rest comes with the next one."""
    bench.add("a")
    messages = [OutgoingMessage("15550001", str(n)) for n in range(GROUP_LIMIT)]
    ids = [message.id or "" for message in bench.gateway.send_many(messages)]
    assert all_claimed(claim(bench, ids))
    assert [answer.state for answer in settle(bench, ids)] == ["sent"] * GROUP_LIMIT
    assert counted(bench)["attempts|a"] == str(GROUP_LIMIT)
    with pytest.raises(ValueError, match="64 items at most"):
        claim(bench, [*ids, "one more"])
    assert claim(bench, []) == []


def events_of(bench: Bench, ids: list[str]) -> list[str]:
    bench.gateway.onSend += lambda message: None
    for id in ids:
        bench.deliver(id)
    return bench.events("sent")


def test_events_in_groups_carry_the_handlers_that_succeeded(
    full: tuple[Bench, list[str]],
) -> None:
    bench, ids = full
    events = events_of(bench, ids)
    items = [(event, f"t{n}") for n, event in enumerate(events)]
    assert all_claimed(bench.ledger.claim_events(items, "w"))
    settled = [
        EventSettlement(events[0], "t0", "done", succeeded=("one", "two")),
        EventSettlement(events[1], "t1", "retry", 0.0, "two: ValueError", ("one",)),
        EventSettlement(events[2], "of somebody else", "done"),
    ]
    answers = bench.ledger.settle_events(settled)
    assert [answer[0] for answer in answers if isinstance(answer, tuple)] == [
        "done",
        "waiting",
        "running",
    ]
    assert bench.ledger.settle_events(settled)[0] == ("gone", None)
    assert bench.ledger.handlers_done(events[0]) == set()
    assert bench.ledger.handlers_done(events[1]) == {"one"}
    bench.ripe_event(events[1])
    (again,) = bench.ledger.claim_events([(events[1], "later")], "w")
    assert isinstance(again, ClaimedEvent)
    assert again.handlers_done == {"one"}
    assert counted(bench)["hooks|sent|done"] == "1"


def test_a_damaged_event_in_a_group_harms_no_other(full: tuple[Bench, list[str]]) -> None:
    bench, ids = full
    events = events_of(bench, ids)
    bench.redis.hset(bench.key("event", events[1]), "tries", "many")
    items = [(event, "t") for event in events]
    good, bad, also_good = bench.ledger.claim_events(items, "w")
    assert isinstance(bad, exc.DamagedRecord)
    assert all_claimed([good, also_good])


# --- the same as single calls ---------------------------------------------------------------------

PID = "p%d"
OUTCOMES = [
    AttemptOutcome("sent", provider_works=True),
    AttemptOutcome("sent", provider_works=True, sent_event="{}"),
    AttemptOutcome("sent"),
    AttemptOutcome("retry", delay_ms=0, counted=True, error="ServerError"),
    AttemptOutcome("retry", delay_ms=0, error="LimitsError", next=NextAttempt("b", 60_000)),
    AttemptOutcome("failed", error="RequestError", counted=True),
    AttemptOutcome("unknown", delay_ms=0, counted=True, remedies=Remedies(600_000, 1000)),
    AttemptOutcome("unknown", counted=True, error="ConnectionError"),
    AttemptOutcome("wait", delay_ms=0),
    AttemptOutcome("wait", delay_ms=0, why="paused", waiting_for="a", wait_queue="bulk"),
    AttemptOutcome(
        "retry", delay_ms=0, error="LimitsError", pause_ms=600_000, pause_max_ms=600_000
    ),
]


class Twin:
    """One of two ledgers that go through the same history; of ids only the order is the same."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        bench.add("a")
        messages = [OutgoingMessage("15550001", str(n)) for n in range(4)]
        self.ids = [bench.send(str(n), status_report=n % 2 == 0) for n in range(4)]
        self.ids += [message.id or "" for message in bench.gateway.send_many(messages)]
        bench.redis.hset(bench.key("msg", self.ids[3]), "tries", "many")
        self.ids.append("nobody")

    def run(self, step: str, rows: list[tuple[Any, ...]], size: int) -> list[Any]:
        """One step for some items, in groups of a size."""
        found, names = [], self.ids
        if step.startswith("hook"):
            names = sorted(self.bench.events())
            rows = [(n % len(names), *rest) for n, *rest in rows] if names else []
        for start in range(0, len(rows), size):
            found += self._run(step, names, rows[start : start + size])
        return found

    def _run(self, step: str, ids: list[str], rows: list[tuple[Any, ...]]) -> list[Any]:
        ledger = self.bench.ledger
        match step:
            case "claim":
                return ledger.claim_many(
                    [Claiming(ids[n], token, 60, "w", *USUAL) for n, token in rows]
                )
            case "unclaim":
                return ledger.unclaim_many([(ids[n], token) for n, token in rows])
            case "begin":
                return ledger.begin_many(
                    [Beginning(ids[n], token, provider, 60, k) for n, token, provider, k in rows]
                )
            case "settle":
                return ledger.settle_many(
                    [Settlement(ids[n], token, k, outcome) for n, token, k, outcome in rows]
                )
            case "claim_event":
                return ledger.claim_events([(ids[n], token) for n, token in rows], "w")
            case _:
                return ledger.settle_events([EventSettlement(ids[n], *r) for n, *r in rows])

    def contents(self) -> dict[str, Any]:
        """All keys of the ledger, without times and with ids by their order."""
        bench, found = self.bench, dict[str, Any]()
        names = {id: f"m{n}" for n, id in enumerate(self.ids)}

        def plain(text: str) -> str:
            text = text.replace(bench.settings.namespace, "SPACE")
            text = re.sub(r"\b1\d{12}(\.\d+)?\b", "TIME", text)
            text = re.sub(r"[0-9a-hjkmnp-tv-z]{20}", lambda id: names.get(id[0], "EVENT"), text)
            return re.sub(r"\|(\+Inf|[\d.]+)$", "|BUCKET", text)

        for key in sorted(bench.keys() - {"secret", "sweeper", "filled:send"}):
            name: Any = bench.key(*key.split(":", 1))
            value: Any
            match bench.redis.type(name):
                case "hash":
                    value = bench.redis.hgetall(name)
                    value = sorted((plain(f), plain(v)) for f, v in value.items()
                                   if not f.startswith("took"))  # fmt: skip
                case "zset":
                    value = sorted(map(plain, bench.redis.zrange(name, 0, -1)))
                case "set":
                    value = sorted(map(plain, bench.redis.smembers(name)))
                case "list":
                    value = [plain(each) for each in bench.redis.lrange(name, 0, -1)]
                case _:
                    value = plain(str(bench.redis.get(name)))
            found.setdefault(plain(key), []).append(value)
        return {key: sorted(map(str, values)) for key, values in found.items()}


def outcome(chance: random.Random, n: int) -> AttemptOutcome:
    picked = replace(chance.choice(OUTCOMES), provider="a", event=f"{n:020}")
    if picked.verdict == "sent":
        picked = replace(picked, msgids=(PID % n,), msgid=f'"{PID % n}"')
    return picked


def a_step(chance: random.Random, number: int) -> tuple[str, list[tuple[Any, ...]]]:
    step = chance.choice(["claim", "claim", "unclaim", "begin", "settle", "settle", "settle",
                          "claim_event", "settle_event"])  # fmt: skip
    rows: list[tuple[Any, ...]] = []
    for i in range(chance.randint(2, 12)):
        which, token = chance.randrange(9), chance.choice(["t", "t", "u"])
        match step:
            case "begin":
                rows.append((which, token, chance.choice("ab"), chance.randint(1, 3)))
            case "settle":
                made = chance.choice([1, 1, 2, 3])
                rows.append((which, token, made, outcome(chance, number * 100 + i)))
            case "settle_event":
                verdict = chance.choice(["done", "retry", "dead", "back"])
                rows.append((which, token, verdict, 0.0, "why", ("one",)[: chance.randint(0, 1)]))
            case _:
                rows.append((which, token))
    return step, rows


@pytest.mark.parametrize("seed", range(8))
def test_a_history_in_groups_leaves_the_same_ledger_as_one_of_single_calls(
    make_bench: Callable[..., Bench], seed: int
) -> None:
    space = f"twin{seed}"
    single, grouped = (Twin(make_bench(namespace=f"{space}{side}")) for side in "ab")
    chance = random.Random(seed)
    for number in range(30):
        step, rows = a_step(chance, number)
        one, many = single.run(step, rows, 1), grouped.run(step, rows, 64)
        assert [str(type(a)) for a in one] == [str(type(a)) for a in many], (step, rows)
        assert [a[0] for a in one if isinstance(a, tuple)] == [
            a[0] for a in many if isinstance(a, tuple)
        ], (step, rows)
    assert single.contents() == grouped.contents()
    assert any(key.startswith("state:") for key in single.contents())


@pytest.mark.parametrize(
    "index", [("due", "send"), ("due", "watch"), ("state", "sending"), ("counts",), ("pause", "a")]
)
def test_what_a_group_writes_at_its_end_is_what_single_calls_write(
    make_bench: Callable[..., Bench], index: tuple[str, ...]
) -> None:
    """A damaged record, an index of the wrong type and a message that is there twice do not keep
    the writes of the other items back, nor are they done twice."""
    twins = [Twin(make_bench(namespace=f"end{side}")) for side in "ab"]
    for twin in twins:  # it fails after it has been moved to another state
        twin.bench.redis.hset(twin.bench.key("msg", twin.ids[6]), "attempt", "many")
    order = [0, 1, 6, 3, 0, 5, 4, 8, 2]
    ended = [(n, "t", 1, outcome_of(n)) for n in order]
    for step, rows in (("claim", [(n, "t") for n in order]), ("settle", ended)):
        for twin in twins:
            name = twin.bench.key(*index)
            twin.bench.redis.delete(name)
            twin.bench.redis.set(name, "of another program")
        one, many = (
            [a[0] if isinstance(a, tuple) else type(a) for a in twin.run(step, rows, size)]
            for twin, size in zip(twins, (1, 64), strict=True)
        )
        assert one == many
        for twin in twins:
            twin.bench.redis.hset(twin.bench.key("msg", twin.ids[5]), "timeline", "[{}]")
        assert many[order.index(6 if step == "claim" else 5)] is exc.DamagedRecord
    single, grouped = (twin.contents() for twin in twins)
    assert single == grouped
    for key, members in single.items():  # what was put aside stays away
        assert not (key.startswith(("due:", "state:")) and re.search("m[56]", str(members))), key
    assert single["state:sent"] == ["['m0', 'm1', 'm2', 'm3', 'm4']"]
    assert ("attempts|a', '6'" in single["counts"][0]) == (index != ("counts",))


def outcome_of(n: int) -> AttemptOutcome:
    pid = PID % n
    return AttemptOutcome("sent", "a", msgids=(pid,), msgid=f'"{pid}"', provider_works=True)
