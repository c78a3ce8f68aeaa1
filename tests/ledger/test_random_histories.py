"""Random histories of a message, with invariants that are checked after each step."""

from __future__ import annotations

import random
import secrets
from dataclasses import replace
from typing import Any

import pytest

from smsqueue import OutgoingMessage, State, exc
from smsqueue.ledger import AttemptBegun, AttemptOutcome, Claimed
from tests.ledger.bench import Bench, Told

FINAL = {"delivered", "undelivered", "expired", "failed", "cancelled"}
WAITING = {"queued", "scheduled", "retrying"}
ERRORS: list[type[Exception]] = [
    exc.ServerError, exc.ConnectionError, exc.LimitsError, exc.AuthError, exc.RequestError,
    exc.UnsupportedError, RuntimeError,
]  # fmt: skip


class ProviderAttempts:
    """One message on its way."""

    def __init__(self, bench: Bench, dice: random.Random) -> None:
        self.bench, self.dice = bench, dice
        self.providers = [bench.gateway.get_provider(name) for name in ("a", "b")]
        self.id = bench.send_by("a", "b", status_report=dice.random() < 0.5)
        #: The provider may have it: nobody may send it again before an operator says so.
        self.uncertain = False
        self.twice = False
        #: Claims that were not settled yet: token, attempt.
        self.claims: list[tuple[str, int]] = []

    def deliver(self) -> None:
        for provider in self.providers:
            assert isinstance(provider, Told)
            provider.plan[:] = [self.one_call(self.dice.choice([None, *ERRORS]))]
        self.bench.deliver(self.id)

    def one_call(self, kind: type[Exception] | None) -> Any:
        def call(message: OutgoingMessage) -> None:
            # Not an assert: Delivery takes whatever a provider raises.
            self.twice = self.twice or self.uncertain
            self.uncertain = kind in (None, RuntimeError)
            if kind is not None:
                raise kind()

        return call

    def die(self) -> None:
        """A worker claims it, calls its provider perhaps, and is not heard of any more."""
        token = secrets.token_hex(4)
        claim = self.bench.ledger.claim(self.id, token, lease=60, worker="w")
        if not isinstance(claim, Claimed):
            return
        attempt = self.bench.record(self.id).attempts
        if self.dice.random() < 0.7:
            begun = self.bench.ledger.begin(self.id, token, "a", lease=60, attempt=attempt + 1)
            if isinstance(begun, AttemptBegun):
                attempt = begun.number
                assert not self.uncertain
                self.uncertain = True
        self.claims.append((token, attempt))

    def lapse(self) -> None:
        if self.bench.look("watch", self.id) is not None:
            self.bench.lapse(self.id)

    def late(self) -> None:
        if not self.claims:
            return
        token, attempt = self.dice.choice(self.claims)
        verdict: Any = self.dice.choice(["sent", "unknown"])
        outcome = AttemptOutcome(verdict, "a", event=secrets.token_hex(10))
        if verdict == "sent":
            outcome = replace(outcome, msgids=(f"late-{token}",), msgid='"late"')
        self.bench.ledger.settle(self.id, token, attempt, outcome)

    def report(self) -> None:
        made = self.bench.record(self.id).attempts
        state = self.dice.choice(["accepted", "expired", "undelivered", "delivered"])
        number = self.dice.randint(0, made + 1)
        self.bench.report(state, reference=f"{self.id}.{number}", code=self.dice.randint(0, 9))

    def requeue(self) -> None:
        if self.bench.gateway.requeue(self.id):
            self.uncertain = False

    def cancel(self) -> None:
        self.bench.gateway.cancel(self.id)

    def decide(self) -> None:
        self.bench.gateway.settle(self.id, self.dice.choice(["sent", "delivered", "undelivered"]))

    def ripe(self) -> None:
        self.bench.ripe(self.id)
        for name in ("a", "b"):
            self.bench.redis.delete(self.bench.key("pause", name))

    def outdated(self) -> None:
        if self.dice.random() < 0.1 and self.bench.state(self.id) in WAITING:
            self.bench.outdated(self.id)

    def turn(self) -> None:
        self.bench.upkeep.turn()
        self.bench.run_hooks()

    STEPS = (deliver, deliver, deliver, die, lapse, late, report, requeue, cancel, decide,
             ripe, ripe, outdated, turn)  # fmt: skip

    def check(self, before: str) -> str:
        bench, id = self.bench, self.id
        state = bench.state(id)
        assert not self.twice
        found = [s for s in State if bench.redis.zscore(bench.key("state", s), id) is not None]
        assert found == [state]
        send, watch = bench.look("send", id), bench.look("watch", id)
        ends = bench.redis.zscore(bench.key("ends"), id)
        assert (send is not None) == (state in WAITING)
        # It is looked at in one place; what is over is forgotten by the time of its state.
        assert [send, watch, ends].count(None) == (3 if state in FINAL else 2)
        if state == "sending":
            assert watch is not None
        if before == "delivered":
            assert state == "delivered"
        return state


@pytest.mark.parametrize("seed", range(25))
def test_whatever_happens_a_message_is_where_it_belongs(bench: Bench, seed: int) -> None:
    dice = random.Random(seed)
    bench.add("a")
    bench.add("b")
    bench.listen()
    for _ in range(3):
        walk, state, steps = ProviderAttempts(bench, dice), "queued", []
        for _ in range(40):
            step = dice.choice(ProviderAttempts.STEPS)
            steps.append(step.__name__)
            step(walk)
            try:
                state = walk.check(state)
            except AssertionError as error:
                raise AssertionError(f"after {steps}") from error
