"""Runs the handlers of an event. Successes are recorded, failed handlers are repeated."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from typing import Any

from smsqueue.concurrency.call_threads import CallThreads, CallTimeout
from smsqueue.delivery import TriggerResult
from smsqueue.delivery.claims import LostClaims
from smsqueue.events import EventHook, Handler, hook_scope
from smsqueue.exc import DamagedRecord, LedgerError, QueueUnavailable
from smsqueue.gateway import Gateway
from smsqueue.ledger import (
    ClaimedEvent,
    Early,
    EventOver,
    HeldElsewhere,
    Ledger,
    retry_until_confirmed,
)
from smsqueue.logs import get_logger, transition
from smsqueue.message import serialization
from smsqueue.message.ids import new_token
from smsqueue.message.masking import place_of, text_of
from smsqueue.message.states import DAMAGED, EventState
from smsqueue.policy.retry import GuardedPolicy, RetryPolicy
from smsqueue.settings import LEASE_FACTOR

__all__ = ["EventRunner", "HandlerTimeout"]

log = get_logger("smsqueue.hooks")

#: Kinds of events, by the attribute of the gateway that holds their handlers.
_KINDS = {"received": "onReceive", "status": "onStatus", "sent": "onSend"}
#: Seconds after which a claim whose answer was lost will not reach Redis any more.
_MAX_IN_TRANSIT = 60.0


class HandlerTimeout(Exception):
    """A handler did not end within SMSQUEUE_HANDLER_TIMEOUT."""


class EventRunner:
    """Runs the event handlers of one gateway in this process.

    Each handler has ``settings.handler_timeout`` seconds. One that takes longer keeps its thread,
    but neither its slot nor the event, which is repeated later. If it succeeds after all, its
    success is recorded and the repetition skips it. While it runs, this process does not call it
    again for the same event.

    Args:
        retry: Backoff of failing handlers, and the number of tries after which an event is dead.
        threads: Threads for the handlers.
    """

    def __init__(
        self,
        gateway: Gateway,
        ledger: Ledger,
        worker: str = "",
        retry: RetryPolicy | None = None,
        threads: CallThreads | None = None,
    ) -> None:
        self.gateway = gateway
        self.ledger = ledger
        self.worker = worker or socket.gethostname()
        self.retry = GuardedPolicy(retry or RetryPolicy())
        self.threads = threads or CallThreads()
        self._stopping = threading.Event()
        #: Claims whose answer was lost.
        self.lost = LostClaims(self._give_back)
        #: By token: when Redis first answered that a lost claim has had no effect (monotonic).
        self._without_effect: dict[str, float] = {}

    def stop(self) -> None:
        """Call no more handlers; events that wait for one go back to the ledger."""
        self._stopping.set()

    def close(self) -> None:
        """Give claims back whose answer was lost; no event runs any more."""
        self.lost.close()

    def run(self, event: str) -> TriggerResult:
        """Do what is due for an event. Repeating this, or a wrong id, does no harm.

        Raises:
            QueueUnavailable: Redis did not confirm the claim; no handler ran.
        """
        if self._stopping.is_set():
            return TriggerResult(EventState.WAITING, wait=0.0)
        self.lost.before_claim()
        token, claimed = new_token(), time.monotonic()
        try:
            answer = self.ledger.claim_event(event, token, self.worker)
        except DamagedRecord as error:
            return self._damaged(event, error.cause)
        except LedgerError:
            raise
        except Exception:  # the claim may have been made, or may still be made
            self.lost.add(event, token)
            raise
        match answer:
            case ClaimedEvent():
                return self._claimed(answer, event, token, claimed)
            case Early() | HeldElsewhere():
                return TriggerResult(EventState.WAITING, wait=0.0)
            case EventOver():
                return TriggerResult(answer.state)

    def _claimed(
        self, claim: ClaimedEvent, event: str, token: str, claimed: float
    ) -> TriggerResult:
        """Run the handlers of an event that is this worker's."""
        kind, tries = claim.kind, claim.tries
        if tries >= self.retry.event_attempts:
            log.error(
                *("%s: given up, its workers died: smsqueue list --state dead", event),
                extra={"id": event, "error": "WorkerLost"},
            )
            return self._settle(event, token, "dead", why="its workers died of it")
        if kind not in _KINDS:
            why = f"this worker's version knows no events of the kind {kind!r}"
            log.error("%s: %s", event, why, extra={"id": event, "error": "UnknownEvent"})
            return self._again(event, token, tries, why, "UnknownEvent")
        try:
            data = json.loads(claim.data)
            subject = self._subject(kind, event, data, claim.message_id, claim.message_data)
        except Exception as error:  # whatever is in the record instead of an event
            cause = f"its data cannot be read: {type(error).__name__}"
            recorded = retry_until_confirmed(
                lambda: self.ledger.set_aside("event", event, token, cause, called=False)
            )
            return self._damaged(event, recorded or cause)
        lease = _Lease(self.ledger, event, token, claimed)
        return self._call_all(lease, kind, subject, claim.handlers_done, tries)

    def _give_back(self, event: str, token: str) -> bool:
        """Give a claim back whose answer was lost; False if it may not have reached Redis yet."""
        state, look = self.ledger.settle_event(event, token, "back", delay=0.0, why="")
        now = time.monotonic()
        first = self._without_effect.setdefault(token, now)
        over = state not in (EventState.WAITING, EventState.PARKED, EventState.RUNNING)
        if look is None and not over and now - first < _MAX_IN_TRANSIT:
            return False
        del self._without_effect[token]
        return True

    def _damaged(self, event: str, cause: str) -> TriggerResult:
        log.error(
            "%s is damaged (%s) and was put aside: smsqueue repair %s",
            *(event, cause, event),
            extra={"id": event, "error": "DamagedRecord"},
        )
        return TriggerResult(DAMAGED, error="DamagedRecord")

    def later(self, event: str, seconds: float) -> None:
        """Let upkeep publish an event again after some seconds, instead of after the grace."""
        try:
            self.ledger.postpone_event(event, seconds)
        except QueueUnavailable as error:
            extra = {"id": event, "error": type(error).__name__}
            log.warning("%s: %s", event, error, extra=extra)

    def _subject(
        self, kind: str, event: str, data: dict[str, Any], id: str, message_data: str
    ) -> Any:
        """The object that the handlers are called with."""
        message = _read(id, message_data) if message_data else None
        if kind == "received":
            message_in = serialization.load_incoming(event, data)
            message_in.region = self.gateway.settings.region
            message_in.send_answer = self.gateway.send
            return message_in
        if kind == "status":
            status = serialization.load_status(data)
            status.id = id or None
            status.context = (message or {}).get("options", {}).get("context", {})
            return status
        sent = serialization.load_outgoing(id, message or {"dst": "", "body": ""})
        sent.provider, sent.msgid, sent.meta = data["provider"], data["msgid"], data["meta"]
        return sent

    def _call_all(
        self, lease: _Lease, kind: str, subject: Any, done: frozenset[str], tries: int
    ) -> TriggerResult:
        hook: EventHook = getattr(self.gateway, _KINDS[kind])
        event, token = lease.event, lease.token
        handlers = [*hook]
        if kind == "received" and subject.keyword is not None:
            handlers.insert(0, Handler("smsqueue:answer_keyword", self.gateway.answer_keyword))
        if kind == "received" and not handlers:
            log.warning(
                *("%s: nobody heard it: no handler is connected to onReceive", event),
                extra={"id": event},
            )
            return self._settle(
                event,
                token,
                "unheard",
                why="no handler is connected to onReceive: is the module that connects it "
                "imported by the one that SMSQUEUE_GATEWAY names?",
            )
        errors: list[tuple[str, BaseException]] = []
        #: The handler that ran last, if it succeeded. This is recorded with the event's end.
        succeeded = ""
        for handler in handlers:
            if handler.name in done:
                continue
            if succeeded:
                self._record(event, succeeded)
                succeeded = ""
            if self._stopping.is_set() and not errors:
                return self._settle(event, token, "back", level=logging.DEBUG)
            if self._stopping.is_set():
                break
            if not lease.renewed():
                log.warning(
                    *("%s: another worker has it: its lease was over", event), extra={"id": event}
                )
                return TriggerResult(EventState.WAITING, wait=0.0)
            error = self._call(event, handler, subject)
            if error is None:
                succeeded = handler.name
            else:
                errors.append((handler.name, error))
        if not errors:
            # A message has two lines at INFO; its events have none.
            level = logging.INFO if kind == "received" else logging.DEBUG
            return self._settle(event, token, "done", succeeded=succeeded, tries=tries, level=level)
        name, first = errors[0]
        why = f"{name}: {type(first).__name__}: {text_of(first)}"[:500]
        return self._again(event, token, tries, why, type(first).__name__, succeeded)

    def _record(self, event: str, handler: str) -> None:
        retry_until_confirmed(lambda: self.ledger.handler_done(event, handler))

    def _call(self, event: str, handler: Handler, subject: Any) -> BaseException | None:
        """Call one handler; returns its error, or None if it succeeded."""
        name, limit = handler.name, self.ledger.settings.handler_timeout

        def run() -> None:
            with hook_scope(event, name):
                handler.call(subject)

        def late() -> None:
            log.warning(
                *("%s: the handler %s succeeded after its time limit", event, name),
                extra={"id": event, "handler": name},
            )
            self._record(event, name)

        try:
            self.threads.call(run, limit=limit, kind="handler", key=(event, name), late=late)
        except CallTimeout as error:
            log.error(
                "%s: the handler %s %s (SMSQUEUE_HANDLER_TIMEOUT): its thread is lost until it "
                "ends, the event is repeated",
                event,
                name,
                error,
                extra={"id": event, "handler": name, "error": "HandlerTimeout"},
            )
            return HandlerTimeout(str(error))
        except BaseException as error:  # handlers may raise anything, also SystemExit
            log.error(
                "%s: the handler %s failed: %s at %s",
                event,
                name,
                type(error).__name__,
                place_of(error),
                extra={"id": event, "handler": name, "error": type(error).__name__},
            )
            return error
        return None

    def _again(
        self, event: str, token: str, tries: int, why: str, error: str, succeeded: str = ""
    ) -> TriggerResult:
        """Repeat an event later, unless it has no tries left."""
        dead = tries + 1 >= self.retry.event_attempts
        if dead:
            log.error(
                *("%s: given up after %d tries: smsqueue list --state dead", event, tries + 1),
                extra={"id": event, "error": error},
            )
        return self._settle(
            event,
            token,
            "dead" if dead else "retry",
            delay=self.retry.backoff(tries),
            why=why,
            error=error,
            succeeded=succeeded,
            tries=tries,
        )

    def _settle(
        self,
        event: str,
        token: str,
        verdict: str,
        *,
        delay: float = 0.0,
        why: str = "",
        error: str | None = None,
        succeeded: str = "",
        tries: int = 0,
        level: int = logging.INFO,
    ) -> TriggerResult:
        names = (succeeded,) if succeeded else ()
        state, look = retry_until_confirmed(
            lambda: self.ledger.settle_event(
                event, token, verdict, delay=delay, why=why, succeeded=names
            )
        )
        transition(log, event, state, error=error, level=level)
        return TriggerResult(state, wait=delay if look else None, error=error, earlier=tries)


def _read(id: str, data: str) -> dict[str, Any] | None:
    """The data of an event's message; None if it is damaged: handlers run all the same."""
    try:
        message: dict[str, Any] = json.loads(data)
        serialization.load_outgoing(id, message)
        dict(message.get("options", {}).get("context", {}))
    except Exception as error:  # the record may contain anything
        name = type(error).__name__
        extra = {"id": id, "error": name}
        log.warning("%s: its text and context cannot be read: %s", id, name, extra=extra)
        return None
    return message


class _Lease:
    """The time during which only this worker may run an event."""

    def __init__(self, ledger: Ledger, event: str, token: str, began: float) -> None:
        self.ledger = ledger
        self.event = event
        self.token = token
        #: Latest time at which it began (monotonic).
        self._began = began

    def renewed(self) -> bool:
        """Extend the lease for another handler; False if another worker has the event."""
        settings, now = self.ledger.settings, time.monotonic()
        if now - self._began + settings.handler_timeout * LEASE_FACTOR <= settings.hook_lease:
            return True
        self._began = now
        return retry_until_confirmed(lambda: self.ledger.renew_event(self.event, self.token))
