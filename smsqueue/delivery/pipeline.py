"""Delivers one message: claim, route, then call the providers of its route in turn
(:mod:`smsqueue.delivery.provider_attempts`).

This needs no Celery: a task of any queue may call :meth:`Delivery.deliver` with an id.
"""

from __future__ import annotations

import socket
import time
import traceback
from dataclasses import replace

from smsqueue import exc
from smsqueue.broker.queue import Queue
from smsqueue.concurrency.call_threads import CallThreads, CallTimeout
from smsqueue.delivery.claims import Claims
from smsqueue.delivery.leases import ROUTER_TIMEOUT, routing_lease
from smsqueue.delivery.outcomes import (
    Attempt,
    TriggerResult,
    attempt_of,
    by_router,
    judged,
    of_repetition,
    seconds_until,
)
from smsqueue.delivery.provider_attempts import ProviderAttempts, Wait
from smsqueue.delivery.slots import Slots
from smsqueue.delivery.status_lookup import look_up
from smsqueue.gateway import Gateway
from smsqueue.ledger import (
    AttemptBegun,
    Claimed,
    Early,
    Expired,
    Ledger,
    LookUp,
    NotClaimable,
    OptedOut,
    ProviderPaused,
    UnreadableClaim,
    retry_until_confirmed,
)
from smsqueue.logs import get_logger, transition
from smsqueue.message.ids import new_token
from smsqueue.message.masking import place_of
from smsqueue.message.states import DAMAGED, State
from smsqueue.policy import router
from smsqueue.policy.retry import GuardedPolicy
from smsqueue.policy.router import NotBefore, Refuse, Route, RoutingError, default_router

__all__ = ["Delivery"]

log = get_logger("smsqueue.delivery")


class Delivery:
    """Delivers messages of one gateway in this process.

    Args:
        ledger: With a timeout that suits a worker.
        queue: Publishes the triggers of events.
        worker: This worker's name, for the timeline.
        threads: Threads for routers and lookups.
    """

    def __init__(
        self,
        gateway: Gateway,
        ledger: Ledger,
        queue: Queue,
        slots: Slots,
        worker: str = "",
        threads: CallThreads | None = None,
    ) -> None:
        self.gateway = gateway
        self.ledger = ledger
        self.queue = queue
        self.slots = slots
        self.threads = threads or CallThreads()
        self.worker = worker or socket.gethostname()
        self.claims = Claims(ledger, slots, self.worker, gateway.exempt_categories)
        self.provider_attempts = ProviderAttempts(gateway, ledger, queue, slots)

    def deliver(self, id: str, *, bulk: bool | None = None) -> TriggerResult:
        """Do what is due for a message. Repeating this, or a wrong id, does no harm.

        Args:
            bulk: Whether the message belongs to a campaign; None if that is not known.

        Raises:
            QueueUnavailable: Redis did not confirm the claim; nothing was sent.
        """
        try:
            return self._deliver(id, bulk)
        except exc.DamagedRecord as error:
            return self._damaged(id, error.cause)

    def close(self) -> None:
        """Give lost claims back and close connections; nothing is delivered any more."""
        self.claims.lost.close()
        self.provider_attempts.calls.close()

    def _deliver(self, id: str, bulk: bool | None) -> TriggerResult:
        token, began = new_token(), time.monotonic()
        default = self.gateway.default_provider
        call = (default, self.provider_attempts.lease(default)) if default is not None else None
        answer = self.claims.claim(id, token, lease=routing_lease(), default=call, bulk=bulk)
        match answer:
            case Claimed():
                return self._claimed(answer, id, token, began, default or "")
            case UnreadableClaim():
                return self._set_aside(id, token, answer.error)
            case LookUp():
                return look_up(self.gateway, self.ledger, self.slots, self.threads, id, answer)
            case Early():
                return TriggerResult(State.RETRYING, wait=seconds_until(answer.at_ms))
            case Expired():
                transition(log, id, State.EXPIRED)
                self.queue.hook([answer.event])
                return TriggerResult(State.EXPIRED)
            case OptedOut():
                return self.provider_attempts.opted_out(id, answer)
            case NotClaimable():
                look = answer.next_look_ms if answer.state == State.UNKNOWN else None
                return TriggerResult(answer.state, wait=seconds_until(look) if look else None)

    def _claimed(
        self, claim: Claimed, id: str, token: str, began: float, default: str
    ) -> TriggerResult:
        """Deliver a message that this worker has claimed.

        Args:
            began: Earliest time at which it was claimed (monotonic).
            default: The default provider at that time.
        """
        try:
            attempt = attempt_of(claim, id, token, began)
        except Exception as error:  # the record may contain anything
            if isinstance(claim.begun, AttemptBegun):
                self.slots.give_back(default)
            return self._set_aside(id, token, type(error).__name__)
        if isinstance(claim.begun, AttemptBegun):
            return self.provider_attempts.call_in_turn(attempt, [default])
        if isinstance(claim.begun, ProviderPaused):
            return self.provider_attempts.wait(
                attempt, [Wait(claim.begun.left_ms / 1000, default, is_paused=True)]
            )
        try:
            route = self._route_of(attempt)
        except BaseException as error:  # a router may raise anything, also SystemExit
            label = type(error).__name__
            why = _why_not_routed(error)
            log.error(
                "%s: not routed: %s: %s",
                *(attempt.id, label, why),
                extra={"id": attempt.id, "error": label},
            )
            decision = GuardedPolicy(self.gateway.retry).decide(
                error, tries=attempt.tries, age=attempt.age, wrote=False
            )
            outcome = judged(of_repetition(attempt, decision), error, None)
            return self.provider_attempts.settle(attempt, replace(outcome, why=why))
        match route:
            case Refuse() | NotBefore():
                return self.provider_attempts.settle(attempt, by_router(route))
            case names:
                return self.provider_attempts.begin_at_first(attempt, names)

    def _set_aside(self, id: str, token: str, error: str) -> TriggerResult:
        """Set a message aside whose record this worker cannot read."""
        cause = f"what is to be sent cannot be read: {error}"
        recorded = retry_until_confirmed(
            lambda: self.ledger.set_aside("msg", id, token, cause, called=False)
        )
        return self._damaged(id, recorded or cause)

    def _damaged(self, id: str, cause: str) -> TriggerResult:
        log.error(
            "%s is damaged (%s) and was put aside: smsqueue repair %s",
            *(id, cause, id),
            extra={"id": id, "error": "DamagedRecord"},
        )
        return TriggerResult(DAMAGED, error="DamagedRecord")

    def _route_of(self, attempt: Attempt) -> Route:
        if not attempt.pin:
            return self._ask_router(attempt)
        if not getattr(self.gateway.providers.get(attempt.pin), "dedup_window", 0):
            raise RoutingError(f"Bound to {attempt.pin!r}, which is gone or has no dedup_window")
        return [attempt.pin]

    def _ask_router(self, attempt: Attempt) -> Route:
        gateway, message = self.gateway, attempt.message
        if message.provider is not None or gateway.router is default_router:
            return gateway.route(message)
        try:
            return self.threads.call(
                lambda: gateway.route(message),
                limit=ROUTER_TIMEOUT,
                kind="router",
                key=("router", attempt.id),
            )
        except CallTimeout as error:
            raise RoutingError(f"The router {error}") from None


def _why_not_routed(error: BaseException) -> str:
    """The reason for the log and the timeline. It omits the text of the router's own errors, which
    may contain personal data."""
    raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
    if isinstance(error, RoutingError) and raised_in in (router.__file__, __file__):
        return str(error)[:300]
    return f"raised by the router at {place_of(error)}"
