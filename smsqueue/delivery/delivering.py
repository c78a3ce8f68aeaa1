"""Delivering one message: claim, route, begin, call, judge, settle.

Needs no Celery: a task of any queue may call :func:`deliver` with an id.
"""

from __future__ import annotations

import logging
import secrets
import socket
import time
from typing import Any

from smsqueue.delivery.asking import ask
from smsqueue.delivery.calling import call
from smsqueue.delivery.claiming import Claims
from smsqueue.delivery.outcomes import (
    Attempt,
    Claim,
    Outcome,
    ids_of,
    judged,
    of_repetition,
    outcome_of,
    remedies,
    seconds_until,
    sent,
)
from smsqueue.delivery.persist import persist
from smsqueue.delivery.slots import Slots
from smsqueue.gateway import Gateway
from smsqueue.ids import new_id
from smsqueue.ledger import Ledger, Transition
from smsqueue.logs import transition
from smsqueue.masking import place_of
from smsqueue.providers import transport
from smsqueue.queue import Queue
from smsqueue.retry import error_label
from smsqueue.router import RoutingError
from smsqueue.states import State

__all__ = ["Delivery"]

log = logging.getLogger("smsqueue.delivery")

#: Seconds between the end of a provider's own deadline and the end of the lease.
_MARGIN = 30.0
#: Seconds that a claim may take until its router has answered.
_ROUTING = 60.0


class Delivery:
    """Delivers messages of one gateway in this process.

    Args:
        ledger: With a timeout that suits a worker.
        queue: Where the triggers of events go.
        worker: This worker's name, for the timeline.
    """

    def __init__(
        self, gateway: Gateway, ledger: Ledger, queue: Queue, slots: Slots, worker: str = ""
    ) -> None:
        self.gateway = gateway
        self.ledger = ledger
        self.queue = queue
        self.slots = slots
        self.worker = worker or socket.gethostname()
        self.claims = Claims(ledger, slots, self.worker)

    def deliver(self, id: str) -> Outcome:
        """Do what is due for a message; harmless for any id, at any time, any number of times.

        Raises:
            QueueUnavailable: Redis did not confirm the claim; nothing was sent.
        """
        token, began = secrets.token_hex(8), time.monotonic()
        usual = self.gateway.default_provider
        at = (usual, self._lease(usual)) if usual is not None else None
        answer = self.claims.claim(id, token, lease=_ROUTING + _MARGIN, usual=at)
        match answer[0]:
            case "claimed":
                return self._claimed(Claim(id, token, began, *answer[1:]))
            case "ask":
                return ask(self.gateway, self.ledger, self.slots, id, answer[1:])
            case "early":
                return Outcome(State.RETRYING, wait=seconds_until(int(answer[1])))
            case "expired":
                transition(log, id, State.EXPIRED)
                self.queue.hook([answer[1]])
                return Outcome(State.EXPIRED)
            case "state":
                state, look, reported = answer[1:]
                wait = seconds_until(int(float(look))) if state == State.UNKNOWN and look else None
                return Outcome(state, wait=wait, reported=bool(reported))
            case _:
                return Outcome("gone")

    def _claimed(self, claim: Claim) -> Outcome:
        usual = self.gateway.default_provider or ""
        try:
            attempt = claim.attempt()
        except BaseException:
            if claim.begun == "go":
                self.slots.give_back(usual)
            raise
        if claim.begun == "go":
            return self._call_in_turn(attempt, [usual])
        if claim.begun == "paused":
            return self._wait(attempt, usual, int(claim.number) / 1000, "paused")
        try:
            names = self._names(attempt)
        except Exception as error:  # the router is the application's: whatever it raises
            ours = isinstance(error, RoutingError)
            log.error(
                "%s: not routed: %s: %s",
                attempt.id,
                type(error).__name__,
                error if ours else f"raised by the router at {place_of(error)}",
                extra={"id": attempt.id, "error_class": type(error).__name__},
            )
            decision = self.gateway.retry.decide(
                error, tries=attempt.tries, age=attempt.age, wrote=False
            )
            return self._settle(
                attempt, None, judged(of_repetition(attempt, decision), error, "the router")
            )
        return self._walk(attempt, names)

    def _names(self, attempt: Attempt) -> list[str]:
        if not attempt.pin:
            return self.gateway.route(attempt.message)
        if attempt.pin not in self.gateway.providers:
            raise RoutingError(f"The message is bound to {attempt.pin!r}, which is not there")
        return [attempt.pin]

    def _walk(
        self, attempt: Attempt, names: list[str], otherwise: dict[str, Any] | None = None
    ) -> Outcome:
        """Begin at the first of some providers that may be called now.

        Args:
            otherwise: The outcome of the attempt before, if none of them may.
        """
        waits: list[tuple[float, str | None]] = []
        for i, name in enumerate(names):
            busy = self.slots.enter(name)
            if busy:
                # The provider is well and will soon have room: no reason to go elsewhere.
                waits.append((busy, None))
                break
            verdict = ""
            try:
                verdict, number = self._begin(attempt, name)
            finally:
                if verdict != "go":
                    self.slots.give_back(name)
            if verdict == "go":
                attempt.made = number
                return self._call_in_turn(attempt, names[i:])
            if verdict == "lost":
                return Outcome(State.SENDING)
            waits.append((number / 1000, "paused"))
        wait, why = min(waits, key=lambda each: each[0])
        if otherwise is not None:
            outcome = self._not_yet(attempt, otherwise, wait)
            return self._settle(attempt, otherwise["provider"], outcome)
        return self._wait(attempt, names[0], wait, why)

    def _wait(self, attempt: Attempt, name: str, wait: float, why: str | None) -> Outcome:
        """Put a message back that nobody was called for."""
        label = "ProviderPaused" if why else "ProviderBusy"
        outcome = {"verdict": "wait", "delay": int(wait * 1000), "why": why}
        return self._settle(attempt, name, outcome, error=label)

    def _begin(self, attempt: Attempt, name: str) -> tuple[str, int]:
        attempt.since = time.monotonic()
        lease = self._lease(name)
        return persist(
            lambda: self.ledger.begin(
                attempt.id, attempt.token, name, lease=lease, attempt=attempt.made + 1
            )
        )

    def _lease(self, name: str) -> float:
        return self.gateway.get_provider(name).deadline + _MARGIN

    def _call_in_turn(self, attempt: Attempt, names: list[str]) -> Outcome:
        """Call the first provider, whose attempt has begun; if it surely did not take the
        message, the next one."""
        name, *rest = names
        if time.monotonic() - attempt.since > _MARGIN / 2:
            # This process was asleep: the lease may end during the call, so it is not made.
            self.slots.give_back(name)
            asleep = {"verdict": "retry", "delay": 0, "why": "the worker was asleep"}
            return self._settle(attempt, name, asleep)
        error = call(self.gateway, self.slots, attempt, name)
        if error is None:
            return self._settle(attempt, name, sent(self.gateway, attempt.message))
        provider = self.gateway.get_provider(name)
        decision = self.gateway.retry.decide(
            error,
            tries=attempt.tries,
            age=attempt.age,
            wrote=transport.written() if provider.through_http_layer else None,
        )
        decision = of_repetition(attempt, decision)
        outcome = judged(decision, error, name)
        if decision.verdict == "unknown":
            outcome |= remedies(provider) | {"msgids": ids_of(provider, attempt.message)}
        if not decision.elsewhere or not rest:
            return self._settle(attempt, name, outcome)
        attempt.tries += decision.counted
        busy = self.slots.enter(rest[0])
        if busy:
            return self._settle(attempt, name, self._not_yet(attempt, outcome, busy))
        attempt.since = time.monotonic()
        following = {"provider": rest[0], "lease": int(self._lease(rest[0]) * 1000)}
        begun = None
        try:
            moved = self._settled(attempt, name, outcome | {"verdict": "retry", "next": following})
            begun = moved.attempt
        finally:
            if begun is None:
                self.slots.give_back(rest[0])
        if begun is not None:
            attempt.made = begun
            return self._call_in_turn(attempt, rest)
        if moved.state != State.SENDING:
            return outcome_of(moved, error_label(error))
        # The next one is paused. What this attempt told has been noted already.
        told = {"provider": name, "counted": None, "pause": None, "well": None}
        return self._walk(attempt, rest, otherwise=outcome | told)

    def _not_yet(self, attempt: Attempt, outcome: dict[str, Any], wait: float) -> dict[str, Any]:
        """An outcome while the next provider is paused or busy: that does not make the refusal
        of the one before final, unless the message's tries or time are over."""
        retry = self.gateway.retry
        spent = attempt.tries >= retry.attempts or attempt.age > retry.give_up
        if outcome["verdict"] != "failed" or spent:
            return outcome
        return outcome | {"verdict": "retry", "delay": int(wait * 1000), "why": None}

    def _settled(self, attempt: Attempt, name: str | None, outcome: dict[str, Any]) -> Transition:
        given = outcome | {"provider": name, "event": new_id()}
        moved = persist(lambda: self.ledger.settle(attempt.id, attempt.token, attempt.made, given))
        error = outcome.get("error")
        transition(log, attempt.id, moved.state, provider=name, error=error)
        self.queue.hook(moved.events)
        return moved

    def _settle(
        self,
        attempt: Attempt,
        name: str | None,
        outcome: dict[str, Any],
        *,
        error: str | None = None,
    ) -> Outcome:
        return outcome_of(self._settled(attempt, name, outcome), error or outcome.get("error"))
