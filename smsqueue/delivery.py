"""Delivering one message: claim, route, begin, call, judge, settle.

Needs no Celery: a task of any queue may call :func:`deliver` with an id.
"""

from __future__ import annotations

import json
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from smsqueue import exc, wire
from smsqueue.gateway import Gateway
from smsqueue.ids import time_of
from smsqueue.ledger import Ledger, Transition
from smsqueue.masking import place_of
from smsqueue.messages import OutgoingMessage
from smsqueue.providers import transport
from smsqueue.queue import Queue
from smsqueue.retry import Decision, error_label
from smsqueue.slots import Slots
from smsqueue.states import WAITING, State

__all__ = ["Delivery", "Outcome", "persist"]

log = logging.getLogger("smsqueue.delivery")

T = TypeVar("T")

#: Seconds between the end of a provider's own deadline and the end of the lease.
_MARGIN = 30.0
#: Seconds that a claim may take until its router has answered.
_ROUTING = 60.0


@dataclass(frozen=True)
class Outcome:
    """How a trigger ended: the message's state, and for what waits the seconds and the reason."""

    state: str
    wait: float | None = None
    error: str | None = None
    #: The state is the word of a report (or an operator), not of this gateway.
    reported: bool = False


@dataclass
class _Attempt:
    """What a worker knows of the claim that it holds."""

    id: str
    token: str
    message: OutgoingMessage
    made: int
    tries: int
    age: float


class Delivery:
    """Delivers messages of one gateway in this process.

    Args:
        ledger: With a timeout that suits a worker.
        queue: Where the triggers of events go.
        slots: The process's slots.
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

    def deliver(self, id: str) -> Outcome:
        """Do what is due for a message; harmless for any id, at any time, any number of times.

        Raises:
            QueueUnavailable: Redis did not confirm the claim; nothing was sent.
        """
        token = secrets.token_hex(8)
        answer = self.ledger.claim(id, token, lease=_ROUTING + _MARGIN, worker=self.worker)
        match answer[0]:
            case "claimed":
                return self._claimed(id, token, *answer[1:])
            case "early":
                return Outcome(State.RETRYING, wait=_seconds_until(int(answer[1])))
            case "expired":
                self._transition(id, State.EXPIRED, None, None)
                self.queue.hook([answer[1]])
                return Outcome(State.EXPIRED)
            case "state":
                state, look, reported = answer[1:]
                wait = _seconds_until(int(float(look))) if state == State.UNKNOWN and look else None
                return Outcome(state, wait=wait, reported=bool(reported))
            case _:
                return Outcome("gone")

    def _claimed(
        self, id: str, token: str, data: str, made: Any, tries: Any, now: Any, since: Any
    ) -> Outcome:
        message = wire.load_outgoing(id, json.loads(data))
        age = int(now) / 1000 - (int(since) / 1000 if since else time_of(id))
        attempt = _Attempt(id, token, message, int(made), int(tries), age)
        try:
            names = self.gateway.route(message)
        except Exception as error:  # the router is the application's: whatever it raises
            log.error(
                "%s: the router failed: %s at %s",
                id,
                type(error).__name__,
                place_of(error),
                extra={"id": id, "error_class": type(error).__name__},
            )
            decision = self.gateway.retry.decide(
                error, tries=attempt.tries, age=attempt.age, wrote=False
            )
            return self._settle(attempt, None, self._verdict(decision, error, "router"))
        return self._walk(attempt, names)

    def _walk(self, attempt: _Attempt, names: list[str]) -> Outcome:
        """Call the route's providers in order until one has, or may have, the message."""
        waits: list[tuple[float, str, str]] = []
        begun: int | None = None
        for i, name in enumerate(names):
            provider = self.gateway.get_provider(name)
            if begun is None:
                busy = self.slots.enter(name)
                if busy:
                    # The provider is well and will soon have room: no reason to go elsewhere.
                    waits.append((busy, "", name))
                    break
                started = time.monotonic()
                lease = provider.deadline + _MARGIN
                go, number = persist(
                    lambda n=name, s=lease: self.ledger.begin(  # type: ignore[misc]
                        attempt.id, attempt.token, n, lease=s, attempt=attempt.made + 1
                    )
                )
                if go != "go":
                    self.slots.leave(name, 0.0, well=True)
                    if go == "lost":
                        return Outcome(State.SENDING)
                    waits.append((_seconds_until(number), "paused", name))
                    continue
                begun = number
            attempt.made = begun
            began = time.monotonic()
            if began - started > _MARGIN / 2:
                # This process was asleep: the lease may end during the call, so do not begin it.
                self.slots.leave(name, 0.0, well=True)
                return self._settle(
                    attempt, name, {"verdict": "retry", "delay": 0, "why": "the worker was asleep"}
                )
            error = self._call(attempt, name)
            well = error is None or not _unhealthy(error)
            self.slots.leave(name, time.monotonic() - began, well=well)
            if error is None:
                return self._settle(attempt, name, self._sent(attempt.message))
            decision = self.gateway.retry.decide(
                error,
                tries=attempt.tries,
                age=attempt.age,
                wrote=transport.written() if provider.through_http_layer else None,
            )
            outcome = self._verdict(decision, error, name)
            following = names[i + 1] if decision.elsewhere and i + 1 < len(names) else None
            if following is None or self.slots.enter(following):
                return self._settle(attempt, name, outcome)
            started = time.monotonic()
            lease = self.gateway.get_provider(following).deadline + _MARGIN
            outcome |= {
                "verdict": "retry",
                "next": {"provider": following, "lease": int(lease * 1000)},
            }
            moved = self._settled(attempt, name, outcome)
            attempt.tries += decision.counted
            begun = moved.attempt
            if begun is None:
                self.slots.leave(following, 0.0, well=True)
                if moved.state != State.SENDING:
                    return _outcome(moved, error_label(error))
                return self._settle(
                    attempt,
                    name,
                    outcome | {"verdict": decision.verdict, "next": None, "counted": None},
                )
        wait, why, name = min(waits)
        paused = {"verdict": "wait", "delay": int(wait * 1000), "why": why or None}
        return self._settle(
            attempt, name, paused, error="ProviderPaused" if why else "ProviderBusy"
        )

    def _call(self, attempt: _Attempt, name: str) -> BaseException | None:
        """One call of one provider; its error, or None."""
        message = attempt.message
        message.provider = message.routed_to = name
        message.reference = f"{attempt.id}.{attempt.made}"
        transport.begin_attempt()
        try:
            self.gateway.get_provider(name).send(message)
        except Exception as error:  # a plugin may raise anything
            extra = {"id": attempt.id, "provider": name, "error_class": error_label(error)}
            log.log(
                logging.WARNING if isinstance(error, exc.ProviderError) else logging.ERROR,
                "%s: %s failed at %s%s",
                attempt.id,
                error_label(error),
                name,
                "" if isinstance(error, exc.ProviderError) else f" ({place_of(error)})",
                extra=extra,
            )
            return error
        return None

    def _sent(self, message: OutgoingMessage) -> dict[str, Any]:
        provider = self.gateway.get_provider(message.provider or "")
        msgid = message.msgid
        ids = msgid if isinstance(msgid, list | tuple) else [msgid]
        known = provider.unique_msgids
        told = {"provider": message.provider, "msgid": msgid, "meta": message.meta}
        return {
            "verdict": "sent",
            "msgids": [str(each) for each in ids if each not in (None, "")] if known else [],
            "msgid": wire.to_json(msgid),
            "meta": wire.to_json(message.meta) if message.meta is not None else None,
            "sent": wire.to_json(told) if self.gateway.onSend else None,
            "well": True,
        }

    def _verdict(self, decision: Decision, error: BaseException, name: str) -> dict[str, Any]:
        code = getattr(error, "code", None)
        label = error_label(error)
        outcome: dict[str, Any] = {
            "verdict": decision.verdict,
            "error": label,
            "code": None if code is None else str(code)[:64],
            "delay": int(decision.delay * 1000),
            "counted": decision.counted or None,
            "well": decision.well or None,
        }
        if decision.verdict == "failed":
            outcome["why"] = f"failed: {label}" + (f" {code}" if code is not None else "")
        if decision.pause is not None:
            outcome["pause"] = int(decision.pause * 1000)
            outcome["pause_max"] = int(decision.pause_max * 1000)
            if isinstance(error, exc.CreditError | exc.AuthError):
                log.error(
                    "%s is paused: %s. No message is lost; they go out when it works again",
                    name,
                    label,
                    extra={"provider": name, "error_class": label},
                )
        return outcome

    def _settled(self, attempt: _Attempt, name: str | None, outcome: dict[str, Any]) -> Transition:
        given = outcome | {"provider": name, "event": secrets.token_hex(10)}
        moved = persist(lambda: self.ledger.settle(attempt.id, attempt.token, attempt.made, given))
        self._transition(attempt.id, moved.state, name, outcome.get("error"))
        self.queue.hook(moved.events)
        return moved

    def _settle(
        self,
        attempt: _Attempt,
        name: str | None,
        outcome: dict[str, Any],
        *,
        error: str | None = None,
    ) -> Outcome:
        return _outcome(self._settled(attempt, name, outcome), error or outcome.get("error"))

    def _transition(self, id: str, state: str, provider: str | None, error: str | None) -> None:
        extra = {"id": id, "state": str(state), "provider": provider, "error_class": error}
        log.info("%s: %s", id, state, extra=extra)


def persist(command: Callable[[], T]) -> T:
    """Repeat a command of the ledger until Redis confirms it: the message is in our hands, and
    its outcome must not be lost."""
    pause, idle = 0.2, threading.Event()
    while True:
        try:
            return command()
        except exc.QueueUnavailable as error:
            log.error("waiting for Redis: %s", error)
            idle.wait(pause)
            pause = min(pause * 2, 5.0)


def _outcome(moved: Transition, error: str | None) -> Outcome:
    waits = moved.state in WAITING or moved.state == State.UNKNOWN
    wait = _seconds_until(moved.look) if moved.look and waits else 0.0 if waits else None
    return Outcome(moved.state, wait=wait, error=error)


def _unhealthy(error: BaseException) -> bool:
    return not isinstance(error, exc.MessageSendError) or isinstance(error, exc.ServerError)


def _seconds_until(ms: int) -> float:
    """For a rough wait only: by this machine's clock."""
    return max(0.0, ms / 1000 - time.time())
