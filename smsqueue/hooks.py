"""Running the handlers of one event: what succeeded is remembered, what failed is repeated."""

from __future__ import annotations

import json
import logging
import secrets
import socket
from typing import Any

from smsqueue import wire
from smsqueue.delivery import Outcome
from smsqueue.delivery.persist import persist
from smsqueue.events import EventHook, hook_scope
from smsqueue.exc import QueueUnavailable
from smsqueue.gateway import Gateway
from smsqueue.ledger import Ledger
from smsqueue.logs import transition
from smsqueue.masking import place_of
from smsqueue.retry import RetryPolicy
from smsqueue.states import EventState

__all__ = ["Hooks"]

log = logging.getLogger("smsqueue.hooks")

#: Kinds of events, by the attribute of the gateway that holds their handlers.
_KINDS = {"received": "onReceive", "status": "onStatus", "sent": "onSend"}


class Hooks:
    """Runs the hooks of one gateway in this process.

    Args:
        retry: Backoff of failing handlers, and after how many tries the event is dead.
    """

    def __init__(
        self,
        gateway: Gateway,
        ledger: Ledger,
        worker: str = "",
        retry: RetryPolicy | None = None,
    ) -> None:
        self.gateway = gateway
        self.ledger = ledger
        self.worker = worker or socket.gethostname()
        self.retry = retry or RetryPolicy()

    def run(self, event: str) -> Outcome:
        """Do what is due for an event; harmless for any id, any number of times.

        Raises:
            QueueUnavailable: Redis did not confirm the claim; no handler ran.
        """
        token = secrets.token_hex(8)
        answer = self.ledger.hook_claim(event, token, self.worker)
        match answer[0]:
            case "claimed":
                kind, data, tries, message_id, message_data, done = answer[1:]
                if int(tries) >= self.retry.attempts:
                    log.error("%s: given up, its workers died: smsqueue list --state dead", event)
                    return self._settle(event, token, "dead", why="its workers died of it")
                if kind not in _KINDS:
                    why = f"this worker's version knows no events of the kind {kind!r}"
                    log.error("%s: %s", event, why)
                    return self._again(event, token, int(tries), why, "UnknownEvent")
                subject = self._subject(kind, event, json.loads(data), message_id, message_data)
                return self._call_all(
                    event, token, kind, subject, set(json.loads(done)), int(tries)
                )
            case "early" | "busy":
                return Outcome(EventState.WAITING, wait=0.0)
            case _:
                return Outcome(answer[1])

    def later(self, event: str, seconds: float) -> None:
        """Have an event looked at again; without this, after the grace for lost triggers."""
        try:
            self.ledger.hook_later(event, seconds)
        except QueueUnavailable as error:
            log.warning("%s: %s", event, error)

    def _subject(
        self, kind: str, event: str, data: dict[str, Any], id: str, message_data: str
    ) -> Any:
        """What the handlers are called with."""
        message = json.loads(message_data) if message_data else None
        if kind == "received":
            return wire.load_incoming(event, data)
        if kind == "status":
            status = wire.load_status(data)
            status.id = id or None
            status.context = (message or {}).get("options", {}).get("context", {})
            return status
        sent = wire.load_outgoing(id, message or {"dst": "", "body": ""})
        sent.provider, sent.msgid, sent.meta = data["provider"], data["msgid"], data["meta"]
        return sent

    def _call_all(
        self, event: str, token: str, kind: str, subject: Any, done: set[str], tries: int
    ) -> Outcome:
        hook: EventHook = getattr(self.gateway, _KINDS[kind])
        if kind == "received" and not hook:
            log.warning("%s: nobody heard it: no handler is connected to onReceive", event)
            return self._settle(
                event,
                token,
                "unheard",
                why="no handler is connected to onReceive: is the module that connects it "
                "imported by the one that SMSQUEUE_GATEWAY names?",
            )
        errors: list[tuple[str, Exception]] = []
        for handler in hook:
            if handler.name in done:
                continue
            try:
                with hook_scope(event, handler.name):
                    handler.call(subject)
            except Exception as error:  # the handlers are the application's
                errors.append((handler.name, error))
                log.error(
                    "%s: the handler %s failed: %s at %s",
                    event,
                    handler.name,
                    type(error).__name__,
                    place_of(error),
                    extra={"id": event, "error_class": type(error).__name__},
                )
            else:
                name = handler.name
                persist(lambda n=name: self.ledger.handler_done(event, n))  # type: ignore[misc]
        if not errors:
            return self._settle(event, token, "done")
        name, first = errors[0]
        why = f"{name}: {type(first).__name__}: {first}"[:500]
        return self._again(event, token, tries, why, type(first).__name__)

    def _again(self, event: str, token: str, tries: int, why: str, error: str) -> Outcome:
        """Repeat an event later, unless its tries are used up."""
        dead = tries + 1 >= self.retry.attempts
        if dead:
            log.error("%s: given up after %d tries: smsqueue list --state dead", event, tries + 1)
        return self._settle(
            event,
            token,
            "dead" if dead else "retry",
            delay=self.retry.backoff(tries),
            why=why,
            error=error,
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
    ) -> Outcome:
        state, look = persist(
            lambda: self.ledger.hook_settle(event, token, verdict, delay=delay, why=why, done=())
        )
        transition(log, event, state, error=error)
        return Outcome(state, wait=delay if look else None, error=error)
