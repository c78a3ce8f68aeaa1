"""The ledger beside a small model of it: in whatever order things happen, both say the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from smsqueue import OutgoingMessage, State
from smsqueue.ledger import (
    AttemptBegun,
    AttemptOutcome,
    ClaimAnswer,
    Claimed,
    ClaimLost,
    LookUp,
    NextAttempt,
    NotClaimable,
    ProviderPaused,
    Remedies,
)
from tests.ledger.bench import STATUSES, Bench

RANK = {"": 0, "sent": 1, "accepted": 2, "expired": 3, "undelivered": 4, "delivered": 5}
WAITING = {"queued", "scheduled", "retrying"}
OVER = {"delivered", "undelivered", "expired", "failed", "cancelled"}
REPORTS = ("accepted", "expired", "undelivered", "delivered")
#: Workers that may die of a message before their provider is called; repetitions with one key.
MAX_LAPSES, MOST_PINNED = 4, 3
NUMBER = st.integers(0, 2)


def kind_of(answer: ClaimAnswer) -> str:
    """The model's word for an answer to a claim."""
    match answer:
        case NotClaimable(state):
            return "gone" if state == "gone" else "state"
        case LookUp():
            return "ask"
    return type(answer).__name__.lower()


class Model:
    """One message, by docs/design.md. Every method gives what the ledger answers."""

    def __init__(self, *, report: bool, resend: bool, later: bool) -> None:
        self.report, self.resend, self.early = report, resend, later
        #: It waits for the time that its sender gave.
        self.before_its_time = later
        self.made, self.tries, self.first, self.ref = 0, 0, 1, 0
        self.lapses = 0
        self.token = self.reported = self.pin = self.provider = ""
        self.settled: tuple[object, ...] = ()
        self.refused: set[str] = set()
        self.calling = self.outdated = self.pin_over = False
        self._enter("scheduled" if later else "queued")

    def _enter(self, state: str) -> None:
        self.state = state
        waits = self.report if state in ("sent", "accepted") else state in ("sending", "unknown")
        self.place = "send" if state in WAITING else "watch" if waits else "ends"
        if state in OVER:  # it is forgotten by the time of its state
            self.place = ""
        if state == "unknown":
            self.pin, self.pin_over = "", False

    def _retry(self) -> None:
        self.early = True
        self._enter("retrying")

    def _bind(self) -> bool:
        """The same again, at this provider only."""
        if not self.pin_over:
            self.pin, self.ref = self.provider, self.ref or self.made
        return not self.pin_over

    def _rank(self) -> int:
        given_up = self.state == "expired" and self.reported != "expired"
        return 0 if given_up else RANK.get(self.state, 0)

    def unclaim(self, token: str) -> int | None:
        if self.token != token:
            self.refused.add(token)
        effect = self.token == token and self.state in ("sending", "unknown")
        return self.made if effect else None

    def claim(self, token: str, usual: str) -> tuple[str, int, str]:
        if token in self.refused:
            return "state", 0, ""
        if (self.state, self.token) != ("sending", token):
            if self.state not in WAITING:
                return "state", 0, ""
            if self.pin and (self.outdated or self.pin_over):
                self._enter(self.reported or "unknown")
                self.pin, self.pin_over = "", False
                return "state", 0, ""
            if self.outdated:
                self._enter("expired")
                return "expired", 0, ""
            if self.early:
                return "early", 0, ""
            self._enter("sending")
            self.token, self.calling, self.settled = token, False, ()
        begun = 0
        if usual and not self.pin:
            begun = self.made if self.calling else self._begin(usual)
        return "claimed", begun, self.pin

    def _begin(self, provider: str) -> int:
        self.made, self.provider, self.calling = self.made + 1, provider, True
        return self.made

    def begin(self, token: str, provider: str, attempt: int) -> tuple[str, int]:
        if (self.state, self.token) != ("sending", token):
            return "lost", 0
        if self.calling and (self.made, self.provider) == (attempt, provider):
            return "go", attempt
        if attempt != self.made + 1:
            return "lost", 0
        if self.reported in ("accepted", "delivered"):
            return "paused", 0
        return "go", self._begin(provider)

    def settle(self, token: str, attempt: int, verdict: str, next: str, keyed: bool) -> int | None:
        """The attempt that has begun at the next provider."""
        mark = (token, attempt, verdict, next)
        if self.settled == mark:
            return self.made if next and self.state == "sending" else None
        ours = (self.token, self.made) == (token, attempt)
        if not ours or (self.state not in ("sending", "unknown") and verdict != "sent"):
            return None
        other = not self.calling or 0 < self.ref < attempt
        if self.state == "unknown" and other and verdict != "sent":
            return None  # of a repetition only, or of no call: the attempt before is as unknown
        self.settled, self.calling = mark, False
        late = self.state == "unknown"
        best = max("sent", self.reported, key=RANK.__getitem__)
        waits = verdict in ("retry", "wait") and self.reported in ("expired", "undelivered")
        if verdict == "sent":
            if RANK[best] > self._rank() or self.state not in RANK:
                self._enter(best)
        elif self.reported and not waits:
            self._enter(self.reported)
        elif next:
            self.tries += 1
            self.ref = 0 if late else self.ref
            self._enter("sending")
            return self._begin(next)
        elif verdict == "retry" or (
            verdict == "unknown" and ((keyed and self._bind()) or self.resend)
        ):
            self.tries += 1
            self._retry()
        elif verdict == "wait":
            self._enter("retrying" if self.made else "queued")
        else:
            self._enter("failed" if verdict == "failed" else "unknown")
        if verdict in ("sent", "failed") or (late and verdict == "retry"):
            self.pin, self.pin_over, self.ref = "", False, 0
        return None

    def lapse(self, keyed: bool) -> None:
        """Nobody came back in time."""
        if self.state != "sending":
            self.place = "ends"
            return
        self.tries += 1
        self.lapses += 1
        given_up = bool(self.pin) and self.lapses >= MAX_LAPSES
        if self.reported and (
            self.calling or given_up or self.reported in ("accepted", "delivered")
        ):
            self._enter(self.reported)
        elif self.calling and keyed and self.lapses <= MOST_PINNED and self._bind():
            self._retry()
        elif given_up or (
            self.calling and not (self.resend and self.lapses < MAX_LAPSES and not self.pin)
        ):
            self._enter("unknown")
        elif self.lapses >= MAX_LAPSES:
            self._enter("failed")
        else:
            self._retry()

    def hear(self, attempt: int, state: str) -> bool:
        """A report of an attempt; did it move the message on?"""
        known = 1 <= attempt < self.made or (attempt == self.made > 0 and self.provider == "a")
        old = attempt < self.first and state != "delivered"
        if not known or old or RANK[state] <= RANK[self.reported]:
            return False
        rank, self.reported = self._rank(), state
        waits = self.state in WAITING and state in ("expired", "undelivered")
        if self.state == "sending" or waits or RANK[state] <= rank:
            return False
        self._enter(state)
        return True

    def cancel(self) -> str:
        before = self.state
        if before in WAITING and self.pin:
            return "sending"
        if before in WAITING:
            self._enter("cancelled")
        return before

    def requeue(self) -> str:
        before = self.state
        if before in ("failed", "expired", "undelivered", "cancelled", "unknown"):
            self._enter("scheduled" if self.before_its_time else "queued")
            self.first, self.tries, self.token, self.reported = self.made + 1, 0, "", ""
            self.lapses = 0
            self.calling = self.pin_over = False
            self.early = self.before_its_time
            self.pin, self.ref, self.settled = "", 0, ()
        return before

    def decide(self, state: str) -> str:
        before = self.state
        if before == "unknown":
            self._enter(state)
            self.reported = state
        return before


@dataclass
class Worker:
    """What a worker that claimed the message knows; it may be slow, or dead."""

    token: str
    made: int
    called: bool
    pin: str
    #: Its last call of the ledger, which it may repeat: the answer may have been lost.
    last: Callable[[], object]
    over: bool = False
    #: Those before it, without the claim.
    earlier: list[Callable[[], object]] = field(default_factory=list)

    def did(self, call: Callable[[], object]) -> None:
        self.last = call
        self.earlier.append(call)


class Machine(RuleBasedStateMachine):
    """Does the same to the ledger and to the model."""

    bench: Bench
    numbers = itertools.count(1)

    def key(self, *parts: str) -> str:
        return self.bench.key(*parts)

    @initialize(
        report=st.booleans(), resend=st.booleans(), later=st.booleans(), keyed=st.booleans()
    )
    def accept(self, report: bool, resend: bool, later: bool, keyed: bool) -> None:
        self.ledger, self.id = self.bench.ledger, f"m{next(self.numbers)}"
        self.model = Model(report=report, resend=resend, later=later)
        #: The providers de-duplicate; they can be asked, too.
        self.remedy = Remedies(3_600_000, 20_000) if keyed else None
        self.workers: list[Worker] = []
        #: Claims whose answers nobody hears.
        self.unheard: list[tuple[str, str]] = []
        self.seen: set[tuple[object, ...]] = set()
        #: Attempts that a provider may have taken, by what its worker was told.
        self.uncertain: set[int] = set()
        message = OutgoingMessage("15550001", "hi").options(status_report=report)
        if resend:
            message.options(on_unknown="resend")
        if later:
            message.options(send_at=datetime.now(UTC) + timedelta(hours=1))
        for _ in range(2):
            answer = self.ledger.accept(message, self.id)
            assert answer == ("accepted", self.id, not later)

    def goes(self, attempt: int, provider: str) -> None:
        """A provider is about to be called."""
        alone = self.model.pin and self.model.pin == provider
        assert not self.uncertain or self.model.resend or alone, "sent twice"
        self.uncertain.add(attempt)

    @rule(usual=st.sampled_from(["", "a"]))
    def claim(self, usual: str) -> None:
        token = f"t{next(self.numbers)}"
        worker = Worker(token, 0, False, "", lambda: None)

        def call() -> object:
            answer = self.ledger.claim(
                self.id, token, lease=3600, worker="w", default=(usual, 3600) if usual else None
            )
            if isinstance(answer, LookUp):
                assert self.model.state == "unknown"
                return self.model.claim(token, usual)
            seen = (kind_of(answer), 0, "")
            if isinstance(answer, Claimed):
                begun = answer.begun
                worker.called, worker.pin = isinstance(begun, AttemptBegun), answer.pinned_to
                worker.made = begun.number if isinstance(begun, AttemptBegun) else answer.attempts
                seen = ("claimed", worker.made * worker.called, worker.pin)
            assert seen == self.model.claim(token, usual)
            return seen[0]

        worker.last = call
        if call() == "claimed":
            self.workers.append(worker)
            if worker.called:
                self.goes(worker.made, usual)

    @rule(usual=st.sampled_from(["", "a"]), read=st.booleans())
    def claims_in_vain(self, usual: str, read: bool) -> None:
        """A claim whose answer is lost; Redis reads it now, or perhaps later."""
        self.unheard.append((f"t{next(self.numbers)}", usual))
        if read:
            self.reads(0)

    @rule(number=NUMBER)
    def reads(self, number: int) -> None:
        if not self.unheard:
            return
        token, usual = self.unheard[-1 - number % len(self.unheard)]
        at = (usual, 3600.0) if usual else None
        answer = self.ledger.claim(self.id, token, lease=3600, worker="w", default=at)
        if not isinstance(answer, LookUp):
            assert kind_of(answer) == self.model.claim(token, usual)[0]

    @rule(number=NUMBER)
    def gives_back(self, number: int) -> None:
        """Its worker has Redis again: whatever it was, nobody was called for it."""
        if not self.unheard:
            return
        token, _ = self.unheard[-1 - number % len(self.unheard)]
        effect = self.ledger.unclaim(self.id, token)
        assert (effect and effect[0]) == self.model.unclaim(token)
        if effect is not None:
            made = effect[0]
            outcome = AttemptOutcome("retry", delay_ms=60_000, counted=True)
            self.ledger.settle(self.id, token, made, outcome)
            self.model.settle(token, made, "retry", "", False)

    def worker(self, number: int, *, called: bool | None = None) -> Worker | None:
        """Mostly the newest one."""
        able = [w for w in self.workers if not w.over and called in (None, w.called)]
        return able[-1 - number % len(able)] if able else None

    @rule(number=NUMBER, provider=st.sampled_from("ab"))
    def begin(self, number: int, provider: str) -> None:
        worker = self.worker(number, called=False)
        if worker is None:
            return
        attempt, provider = worker.made + 1, worker.pin or provider

        def call() -> tuple[str, int]:
            match self.ledger.begin(self.id, worker.token, provider, lease=3600, attempt=attempt):
                case AttemptBegun(number):
                    answer = ("go", number)
                case ProviderPaused(left_ms):
                    answer = ("paused", left_ms)
                case ClaimLost():
                    answer = ("lost", 0)
            assert answer == self.model.begin(worker.token, provider, attempt)
            return answer

        verdict, _ = call()
        worker.called, worker.over = verdict == "go", verdict == "lost"
        worker.did(call)
        if worker.called:
            worker.made = attempt
            self.goes(attempt, provider)

    def settle(self, worker: Worker | None, verdict: Any, next: str = "") -> None:
        if worker is None:
            return
        outcome = AttemptOutcome(
            verdict, worker.pin or "a", delay_ms=60_000, event=f"e{self.id}", counted=True
        )
        keyed, attempt = verdict == "unknown" and bool(self.remedy), worker.made
        if verdict == "sent":
            outcome = replace(outcome, msgids=(f"{self.id}-{attempt}",), msgid="1")
        if keyed and self.remedy:
            outcome = replace(outcome, remedies=self.remedy)
        if next:
            outcome = replace(outcome, next=NextAttempt(next, 3_600_000))
        if verdict in ("retry", "failed") and worker.called:
            self.uncertain.discard(attempt)

        def call() -> int | None:
            answer = self.ledger.settle(self.id, worker.token, attempt, outcome)
            begun = self.model.settle(worker.token, attempt, verdict, next, keyed)
            assert (answer.state, answer.attempt) == (self.model.state, begun)
            return begun

        begun = call()
        worker.did(call)
        worker.over = begun is None
        if begun is not None:
            worker.made = begun
            self.goes(begun, next)

    @rule(number=NUMBER, verdict=st.sampled_from(["sent", "retry", "failed", "unknown"]))
    def told(self, number: int, verdict: str) -> None:
        self.settle(self.worker(number, called=True), verdict)

    @rule(number=NUMBER)
    def told_to_go_elsewhere(self, number: int) -> None:
        worker = self.worker(number, called=True)
        if worker is not None and not worker.pin:
            self.settle(worker, "retry", next="b")

    @rule(number=NUMBER, verdict=st.sampled_from(["wait", "retry"]))
    def calls_nobody(self, number: int, verdict: str) -> None:
        self.settle(self.worker(number, called=False), verdict)

    @rule(number=NUMBER)
    def again(self, number: int) -> None:
        """The answer of a worker's last call was lost."""
        if self.workers:
            self.workers[-1 - number % len(self.workers)].last()

    @rule(number=NUMBER, before=NUMBER)
    def late(self, number: int, before: int) -> None:
        """A call that a worker has repeated is read from the connection that it gave up."""
        able = [w for w in self.workers if w.earlier]
        if able:
            calls = able[-1 - number % len(able)].earlier
            calls[-1 - before % len(calls)]()

    @rule(attempt=st.integers(0, 3), state=st.sampled_from(REPORTS), code=st.integers(0, 1))
    def report(self, attempt: int, state: str, code: int) -> None:
        status = STATUSES[state]("")
        status.provider, status.status_code = "a", code
        status.reference = f"{self.id}.{max(0, self.model.made + 1 - attempt)}"
        key = (status.reference, state, code)
        moved = key not in self.seen and self.model.hear(self.model.made + 1 - attempt, state)
        self.seen.add(key)
        assert self.ledger.report(status, pids=[]).moved == moved

    @rule()
    def lapse(self) -> None:
        """What somebody waits for (the end of a lease, a report) has not come in time."""
        if self.bench.redis.zadd(self.key("due", "watch"), {self.id: 1}, xx=True, ch=True):
            remedies = dict.fromkeys("ab", self.remedy) if self.remedy else {}
            lapsed = self.ledger.sweep(9, MAX_LAPSES, remedies).lapses
            self.model.lapse(bool(self.remedy))
            assert [(each.id, each.state) for each in lapsed] in (
                [], [(self.id, self.model.state)]
            )  # fmt: skip

    @rule()
    def ask(self) -> None:
        """Its provider is asked about it."""
        self.bench.redis.zadd(self.key("due", "ask"), {self.id: 1}, xx=True)
        for id, _ in self.ledger.take_due("ask", 9).due:
            assert (id, self.model.state) == (self.id, "unknown")
        self.ledger.asked(self.id, 60)

    @rule()
    def requeue(self) -> None:
        before = self.model.requeue()
        assert self.ledger.requeue(self.id, None)[0] == before
        if self.model.state != before:
            self.uncertain.clear()

    @rule()
    def cancel(self) -> None:
        assert self.ledger.cancel(self.id)[0] == self.model.cancel()

    @rule(state=st.sampled_from([State.SENT, State.DELIVERED, State.UNDELIVERED]))
    def decide(self, state: State) -> None:
        assert self.ledger.decide(self.id, state)[0] == self.model.decide(state)

    @rule(field=st.sampled_from(["not_before"] * 6 + ["expires", "pin_until"]))
    def passes(self, field: str) -> None:
        """A time has come."""
        record = self.key("msg", self.id)
        if field == "not_before":
            self.bench.redis.hset(record, field, 1)
            self.model.early = self.model.before_its_time = False
        elif field == "expires":
            # As if its validity had been none: it has no more after a requeue.
            self.bench.redis.hset(record, field, 1)
            self.model.outdated = True
        elif self.model.pin:
            self.bench.redis.hset(record, field, 1)
            self.model.pin_over = True

    def teardown(self) -> None:
        """What was left lying is not looked at while another message walks."""
        self.bench.redis.delete(*(self.key("due", lane) for lane in ("send", "watch", "ask")))

    @invariant()
    def both_say_the_same(self) -> None:
        pipe = self.bench.redis.pipeline(transaction=False)
        pipe.hmget(self.key("msg", self.id), "state", "attempt", "tries", "pin")
        places = [*(("state", str(s)) for s in State), *(("due", n) for n in ("send", "watch")),
                  ("ends",), ("due", "ask")]  # fmt: skip
        for place in places:
            pipe.zscore(self.key(*place), self.id)
        (state, made, tries, pin), *scores = pipe.execute()
        here = [p[-1] for p, score in zip(places, scores, strict=True) if score is not None]
        model = self.model
        assert (state, int(made or 0), int(tries or 0)) == (model.state, model.made, model.tries)
        if state in WAITING:
            assert (pin or "") == model.pin
        known = [model.state, model.place] if model.place else [model.state]
        assert here[: len(known)] == known
        assert here[len(known) :] in ([], ["ask"] if state == "unknown" else [])


def test_the_ledger_does_as_the_model(bench: Bench) -> None:
    machine = type("ProviderAttempts", (Machine,), {"bench": bench})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60, stateful_step_count=40, derandomize=True, database=None,
            deadline=None, suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


A, B = {"number": 0, "provider": "a"}, {"number": 0, "provider": "b"}
BEGUN: list[tuple[str, dict[str, Any]]] = [("claim", {"usual": ""}), ("begin", A)]
AGAIN: tuple[str, dict[str, Any]] = ("again", {"number": 0})
RIPE = ("passes", {"field": "not_before"})
PLAIN = {"report": False, "resend": False, "later": False, "keyed": False}

#: Short walks that hold what a long one meets by chance: how the message is sent, and the steps.
WALKS: dict[str, tuple[dict[str, bool], list[tuple[str, dict[str, Any]]]]] = {
    "a worker that slept before it called": (
        PLAIN, [("claim", {"usual": ""}), ("lapse", {}), ("begin", A)],
    ),
    "a worker that slept, and another one has its message": (
        PLAIN, [("claim", {"usual": ""}), ("lapse", {}), RIPE, ("claim", {"usual": ""}),
                ("begin", A | {"number": 1}), ("begin", A)],
    ),
    "a claim that nobody heard is given back": (
        PLAIN, [("claims_in_vain", {"usual": "", "read": True}), ("gives_back", {"number": 0}),
                RIPE, *BEGUN, ("told", {"number": 0, "verdict": "sent"})],
    ),
    "an attempt that nobody heard of is given back": (
        PLAIN, [("claims_in_vain", {"usual": "a", "read": True}), ("gives_back", {"number": 0}),
                ("gives_back", {"number": 0}), RIPE, *BEGUN],
    ),
    "a claim that was given back is read": (
        PLAIN, [("claims_in_vain", {"usual": "a", "read": False}), ("gives_back", {"number": 0}),
                ("reads", {"number": 0}), *BEGUN],
    ),
    "the answers of all calls are lost": (
        PLAIN, [("claim", {"usual": ""}), AGAIN, ("begin", A), AGAIN,
                ("told_to_go_elsewhere", {"number": 0}), AGAIN,
                ("told", {"number": 0, "verdict": "retry"}), AGAIN],
    ),
    "a bound message is not cancelled": (
        PLAIN | {"keyed": True},
        [*BEGUN, ("told", {"number": 0, "verdict": "unknown"}), ("cancel", {})],
    ),
    "a late refusal that names another provider": (
        PLAIN,
        [*BEGUN, ("lapse", {}), ("told_to_go_elsewhere", {"number": 0})],
    ),
    "a late refusal of a repetition": (
        PLAIN | {"keyed": True},
        [
            *BEGUN, ("told", {"number": 0, "verdict": "unknown"}), RIPE,
            *BEGUN, ("passes", {"field": "pin_until"}), ("lapse", {}),
            ("told", {"number": 0, "verdict": "retry"}), RIPE, ("claim", {"usual": ""}),
            ("begin", B),
        ],
    ),
    "a begin that Redis reads when the next provider is called": (
        PLAIN, [*BEGUN, ("told_to_go_elsewhere", {"number": 0}),
                ("late", {"number": 0, "before": 1}), ("told", {"number": 0, "verdict": "sent"})],
    ),
    "a claim that calls nobody, and outlives the key": (
        PLAIN | {"keyed": True},
        [
            *BEGUN, ("told", {"number": 0, "verdict": "unknown"}), RIPE,
            ("claim", {"usual": ""}), ("lapse", {}), RIPE, ("passes", {"field": "pin_until"}),
            ("claim", {"usual": ""}), ("calls_nobody", {"number": 0, "verdict": "retry"}),
            RIPE, ("claim", {"usual": ""}), ("begin", B),
        ],
    ),
    "delivered before another attempt begins": (
        PLAIN,
        [
            *BEGUN, ("told", {"number": 0, "verdict": "retry"}), RIPE, ("claim", {"usual": ""}),
            ("report", {"attempt": 1, "state": "delivered", "code": 0}), ("begin", A),
            ("calls_nobody", {"number": 0, "verdict": "wait"}),
        ],
    ),
    "delivered, while a worker that calls nobody has it": (
        PLAIN | {"resend": True},
        [
            *BEGUN, ("told", {"number": 0, "verdict": "unknown"}), RIPE,
            ("claim", {"usual": ""}), ("report", {"attempt": 1, "state": "delivered", "code": 0}),
            ("calls_nobody", {"number": 0, "verdict": "wait"}),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WALKS)
def test_a_short_walk(bench: Bench, name: str) -> None:
    machine = type("ProviderAttempts", (Machine,), {"bench": bench})()
    kind, steps = WALKS[name]
    machine.accept(**kind)
    for step, arguments in steps:
        getattr(machine, step)(**arguments)
        machine.both_say_the_same()


ORDERS = [order for n in range(1, 5) for order in itertools.permutations(REPORTS, n)]


def attempt(bench: Bench, id: str, number: int, verdict: Any = "") -> None:
    """Make an attempt, or settle it."""
    ledger, token = bench.ledger, f"t{number}"
    if not verdict:
        bench.ripe(id)
        claimed = ledger.claim(id, token, lease=60, worker="w", default=("a", 60))
        assert isinstance(claimed, Claimed)
        assert claimed.begun == AttemptBegun(number)
        return
    outcome = AttemptOutcome(
        verdict, "a", delay_ms=0, event=f"e{id}", msgids=(f"{id}-{number}",), msgid="1"
    )
    ledger.settle(id, token, number, outcome)


@pytest.mark.parametrize("verdict", ["sent", "unknown"])
@pytest.mark.parametrize("about", ["reference", "msgid", "earlier attempt", "earlier sending"])
def test_reports_in_any_order_give_one_end(bench: Bench, about: str, verdict: str) -> None:
    for n, (order, late) in enumerate(itertools.product(ORDERS, (0.0, 0.5, 1.0))):
        id, last = f"p{n}", 1 + about.startswith("earlier")
        assert bench.ledger.accept(OutgoingMessage("15550001", "hi"), id).publish
        attempt(bench, id, 1)
        if last == 2:
            attempt(bench, id, 1, "retry" if about == "earlier attempt" else "unknown")
            if about == "earlier sending":
                assert bench.ledger.requeue(id, None)[0] == "unknown"
            attempt(bench, id, 2)
        settled = round(late * len(order))
        for i, state in enumerate((*order, "")):
            if i == settled:
                attempt(bench, id, last, verdict)
            if state:
                status = STATUSES[state](f"{id}-1")
                status.provider = "a"
                status.reference = None if about == "msgid" else f"{id}.1"
                bench.ledger.report(status, pids=[f"{id}-1"])
        known = [s for s in order if s == "delivered" or about != "earlier sending"]
        assert bench.state(id) == max([verdict, *known], key=lambda s: RANK.get(s, 0)), order
