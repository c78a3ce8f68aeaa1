"""Calls the providers of a route in turn: begin, call, settle. The next provider is called only if
the one before certainly did not accept the message."""

from __future__ import annotations

import logging
import time
from copy import copy, deepcopy
from dataclasses import replace
from typing import NamedTuple

from smsqueue import exc
from smsqueue.broker.queue import Queue
from smsqueue.delivery.leases import call_lease, is_too_late_to_call
from smsqueue.delivery.outcomes import (
    Attempt,
    TriggerResult,
    judged,
    of_repetition,
    result_of,
    sent,
    with_remedies,
)
from smsqueue.delivery.provider_calls import ProviderCalls
from smsqueue.delivery.slots import Slots
from smsqueue.gateway import Gateway
from smsqueue.ledger import (
    AttemptBegun,
    AttemptOutcome,
    BeginAnswer,
    ClaimLost,
    Ledger,
    NextAttempt,
    OptedOut,
    Transition,
    retry_until_confirmed,
)
from smsqueue.logs import get_logger, transition
from smsqueue.message.ids import new_id
from smsqueue.message.messages import OutgoingMessage
from smsqueue.message.states import State
from smsqueue.policy.retry import GuardedPolicy, error_label
from smsqueue.providers.base import transport

__all__ = ["ProviderAttempts", "Wait"]

log = get_logger("smsqueue.delivery")


class Wait(NamedTuple):
    """A provider that may be called later."""

    seconds: float
    provider: str
    #: Paused, or else without a free slot.
    is_paused: bool


class ProviderAttempts:
    """Calls the providers of claimed messages."""

    def __init__(self, gateway: Gateway, ledger: Ledger, queue: Queue, slots: Slots) -> None:
        self.gateway = gateway
        self.ledger = ledger
        self.queue = queue
        self.slots = slots
        self.calls = ProviderCalls(gateway, slots)

    def lease(self, name: str) -> float:
        """Length of the lease, in seconds, of a provider's call."""
        return call_lease(self.gateway.get_provider(name))

    def begin_at_first(
        self, attempt: Attempt, names: list[str], otherwise: AttemptOutcome | None = None
    ) -> TriggerResult:
        """Begin an attempt at the first provider that may be called now.

        Args:
            otherwise: The outcome of the previous attempt, which is settled if none may be called.
        """
        waits: list[Wait] = []
        for i, name in enumerate(names):
            seconds = self.slots.enter(name, bulk=attempt.bulk)
            if seconds:
                # The provider works and will soon have a free slot, so the next one is not called.
                waits.append(Wait(seconds, name, is_paused=False))
                break
            answer: BeginAnswer | None = None
            try:
                answer = self._begin(attempt, name)
            finally:
                if not isinstance(answer, AttemptBegun):
                    self.slots.give_back(name)
            if isinstance(answer, AttemptBegun):
                attempt.number = answer.number
                return self.call_in_turn(attempt, names[i:])
            if isinstance(answer, ClaimLost):
                return TriggerResult(State.SENDING)
            if isinstance(answer, OptedOut):
                return self.opted_out(attempt.id, answer)
            seconds = answer.left_ms / 1000
            waits.append(Wait(seconds, name, is_paused=True))
            attempt.may_go_later(seconds)
        if otherwise is not None:
            return self._settle_instead(attempt, otherwise, min(wait.seconds for wait in waits))
        return self.wait(attempt, waits)

    def wait(self, attempt: Attempt, waits: list[Wait]) -> TriggerResult:
        """Put a message back without having called a provider.

        Args:
            waits: Of all providers that may be called later; not empty.
        """
        first = min(waits, key=lambda wait: wait.seconds)
        label = "ProviderPaused" if first.is_paused else "ProviderBusy"
        outcome = AttemptOutcome(
            "wait",
            provider=first.provider,
            delay_ms=int(first.seconds * 1000),
            why="paused" if first.is_paused else None,
        )
        if first.is_paused:
            outcome = replace(
                outcome,
                waiting_for=" ".join(wait.provider for wait in waits),
                wait_queue="bulk" if attempt.bulk else "single",
            )
        return self.settle(attempt, outcome, error=label)

    def _begin(self, attempt: Attempt, name: str) -> BeginAnswer:
        attempt.since = time.monotonic()
        lease = self.lease(name)
        return retry_until_confirmed(
            lambda: self.ledger.begin(
                attempt.id,
                attempt.token,
                name,
                lease=lease,
                attempt=attempt.number + 1,
                exempt=self.gateway.exempt_categories,
            )
        )

    def opted_out(self, id: str, answer: OptedOut) -> TriggerResult:
        """The end of a message whose recipient has opted out."""
        transition(log, id, State.FAILED, error="OptedOut")
        self.queue.hook([answer.event])
        return TriggerResult(State.FAILED, error="OptedOut")

    def call_in_turn(self, attempt: Attempt, names: list[str]) -> TriggerResult:
        """Call the first provider, whose attempt has begun, and the next one if the first certainly
        did not accept the message."""
        name, *rest = names
        if is_too_late_to_call(attempt.since):
            # This process was suspended.
            self.slots.give_back(name)
            asleep = AttemptOutcome("retry", provider=name, delay_ms=0, why="the worker was asleep")
            return self.settle(attempt, asleep)
        # A provider's changes to the message must not reach the next one.
        original = attempt.message
        if rest:
            attempt.message = _copied(original)
        error = self.calls.call(attempt, name)
        if error is None:
            outcome = sent(self.gateway, attempt.message, name)
            if attempt.pooled_sender:
                outcome = replace(outcome, why=f"from {attempt.pooled_sender}")
            return self.settle(attempt, outcome)
        provider = self.gateway.get_provider(name)
        retry = GuardedPolicy(self.gateway.retry)
        decision = retry.decide(
            error,
            tries=attempt.tries,
            age=attempt.age,
            wrote=transport.written() if provider.through_http_layer else None,
        )
        decision = of_repetition(attempt, decision)
        outcome = judged(decision, error, name)
        if decision.verdict == "unknown":
            outcome = with_remedies(outcome, provider, attempt.message)
            outcome = replace(outcome, max_resends=retry.resends)
        if isinstance(error, exc.OptedOut) and self.gateway.opt_outs is not None:
            outcome = replace(outcome, opted_out=True)
        if attempt.later is not None:
            outcome = _other_provider_after(outcome, attempt.later)
        if decision.verdict == "retry":
            attempt.may_go_later(decision.delay)
        if not decision.elsewhere or not rest:
            if decision.elsewhere and attempt.later is not None:
                # Providers that are paused may accept it once they work again.
                attempt.tries += decision.counted
                later = max(attempt.later, retry.backoff(attempt.tries))
                outcome = self._retry_if_failed(attempt, outcome, later)
            return self.settle(attempt, outcome)
        attempt.tries += decision.counted
        attempt.message = original
        try:
            lease = self.lease(rest[0])
        except Exception as failure:  # it was removed, or its ``deadline`` property failed
            label = type(failure).__name__
            extra = {"id": attempt.id, "provider": rest[0], "error": label}
            log.error("%s: %s cannot be called: %s", attempt.id, rest[0], label, extra=extra)
            later = retry.backoff(attempt.tries)
            return self.settle(attempt, self._retry_if_failed(attempt, outcome, later))
        seconds = self.slots.enter(rest[0], bulk=attempt.bulk)
        if seconds:
            return self._settle_instead(attempt, outcome, seconds)
        attempt.since = time.monotonic()
        following = NextAttempt(rest[0], int(lease * 1000), self.gateway.exempt_categories)
        begun = None
        try:
            moved = self._settled(attempt, replace(outcome, verdict="retry", next=following))
            begun = moved.attempt
        finally:
            if begun is None:
                self.slots.give_back(rest[0])
        if begun is not None:
            attempt.number = begun
            return self.call_in_turn(attempt, rest)
        if moved.state != State.SENDING:
            return result_of(moved, error_label(error), attempt.number)
        # The next one is paused. The effect of this attempt on its provider is recorded already.
        recorded = replace(outcome, counted=False, pause_ms=None, provider_works=False)
        return self.begin_at_first(attempt, rest, otherwise=recorded)

    def _settle_instead(
        self, attempt: Attempt, outcome: AttemptOutcome, seconds: float
    ) -> TriggerResult:
        """Settle an attempt because the next provider of the route is paused or busy.

        Args:
            seconds: Time until it may be called.
        """
        outcome = self._retry_if_failed(attempt, outcome, seconds)
        return self.settle(attempt, _other_provider_after(outcome, seconds))

    def _retry_if_failed(
        self, attempt: Attempt, outcome: AttemptOutcome, seconds: float
    ) -> AttemptOutcome:
        """A refusal is not final while another provider of the route may accept the message after
        these seconds, unless the message has no tries or time left."""
        spent = GuardedPolicy(self.gateway.retry).spent(attempt.tries, attempt.age)
        if outcome.verdict != "failed" or spent:
            return outcome
        return replace(outcome, verdict="retry", delay_ms=int(seconds * 1000), why=None)

    def _settled(self, attempt: Attempt, outcome: AttemptOutcome) -> Transition:
        if outcome.event is None:
            outcome = replace(outcome, event=new_id())
        moved = retry_until_confirmed(
            lambda: self.ledger.settle(attempt.id, attempt.token, attempt.number, outcome)
        )
        transition(
            log,
            attempt.id,
            moved.state,
            provider=outcome.provider,
            attempt=attempt.number or None,
            error=outcome.error,
            code=outcome.code,
            # While it waits for a slot or for the end of a pause, nothing has happened.
            level=logging.DEBUG if outcome.verdict == "wait" else logging.INFO,
        )
        self.queue.hook(moved.events, bulk=attempt.bulk)
        return moved

    def settle(
        self, attempt: Attempt, outcome: AttemptOutcome, *, error: str | None = None
    ) -> TriggerResult:
        """Settle an attempt; returns the outcome of the trigger."""
        moved = self._settled(attempt, outcome)
        return result_of(moved, error or outcome.error, attempt.number)


def _other_provider_after(outcome: AttemptOutcome, seconds: float) -> AttemptOutcome:
    """The outcome if another provider of the route may be called after these seconds."""
    ms = int(seconds * 1000)
    if outcome.other_provider_ms is not None:
        ms = min(ms, outcome.other_provider_ms)
    return replace(outcome, other_provider_ms=ms)


def _copied(message: OutgoingMessage) -> OutgoingMessage:
    try:
        return deepcopy(message)
    except Exception:  # a router may have added anything
        return copy(message)
