"""What the simulator does with a message: the magic numbers at work."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from smsqueue.message.masking import mask
from smsqueue.simulator.numbers import RICH_ACCOUNT, number_for
from smsqueue.simulator.outbox import Outbox

__all__ = ["Carrier", "Verdict"]

#: How many messages, and messages' refusals, are remembered.
REMEMBERED = 100_000
#: Seconds in which a phone replies only once: two that answer each other must not run away.
REPLY_PAUSE = 10.0
#: Seconds from one throttling of an account to the next.
CALM = 20.0
REPLY_TEXT = "Thank you!"

_ERRORS = {
    400: ("bad_number", "There is no such number."),
    402: ("no_credit", "The account has too little credit."),
    429: ("throttled", "Too many messages."),
    500: ("broken", "Something failed on our side."),
}


@dataclass(frozen=True)
class Verdict:
    """How a message is answered; ``lost``: not at all."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    lost: bool = False


def error(status: int, code: str, text: str) -> Verdict:
    """An error in the simulator's own words."""
    headers = {"Retry-After": "1"} if status == 429 else {}
    return Verdict(status, {"error": {"code": code, "text": text}}, headers)


class Carrier:
    """Takes messages and keeps a book of what it accepted."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._lock = threading.Lock()
        self._refusals: OrderedDict[str, int] = OrderedDict()
        self._replied: OrderedDict[str, float] = OrderedDict()
        self._throttled: dict[str, float] = {}
        self._accepted: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)

    def accepted(self) -> list[dict[str, Any]]:
        """All that was accepted, oldest first: reference, account, masked number, time, id, and
        in which dialect it came."""
        with self._lock:
            return list(self._accepted)

    def take(self, account: str, message: Mapping[str, Any]) -> Verdict:
        """Answer a message, and see to what follows from it."""
        to, text = message.get("to"), message.get("text")
        if not isinstance(to, str) or not to.isdecimal() or not isinstance(text, str):
            return error(422, "malformed", "A message has digits in 'to' and a 'text'.")
        number = number_for(to)
        if number.poor and account != RICH_ACCOUNT:
            return error(402, *_ERRORS[402])
        if number.throttled and self._throttles(account):
            return error(429, *_ERRORS[429])
        refusal = self._refuse(message, number.refusals)
        if refusal:
            return error(refusal, *_ERRORS[refusal])
        msgid = self._accept(account, message)
        self._report(account, message, msgid)
        if number.replies:
            self._reply(account, message)
        return Verdict(202, {"id": msgid, "state": "accepted"}, lost=number.lost)

    def _throttles(self, account: str) -> bool:
        """As a carrier that was sent too much at once: it has enough for a while, then is calm."""
        with self._lock:
            now = time.monotonic()
            if now - self._throttled.get(account, -CALM) >= CALM:
                self._throttled[account] = now
            return now - self._throttled[account] < 1.0

    def _refuse(self, message: Mapping[str, Any], refusals: tuple[int, ...]) -> int | None:
        """The status that this call for the message is to be refused with."""
        if not refusals:
            return None
        reference = message.get("reference")
        # All attempts of a message are one: the reference is "id.attempt".
        key = (
            str(reference).partition(".")[0] if reference else f"{message['to']}/{message['text']}"
        )
        with self._lock:
            count = self._refusals.pop(key, 0)
            if count >= len(refusals):
                return None  # forgotten: the same message again is refused again
            self._refusals[key] = count + 1
            if len(self._refusals) > REMEMBERED:
                self._refusals.popitem(last=False)
        return refusals[count]

    def _accept(self, account: str, message: Mapping[str, Any]) -> str:
        msgid = secrets.token_hex(8)
        entry = {
            "id": msgid,
            "reference": message.get("reference"),
            "account": account,
            "to": mask(message["to"]),
            "dialect": message.get("dialect", "simulator"),
            "at": time.time(),
        }
        with self._lock:
            self._accepted.append(entry)
        return msgid

    def _report(self, account: str, message: Mapping[str, Any], msgid: str) -> None:
        if not message.get("report"):
            return
        number = number_for(message["to"])
        base = {"id": msgid, "reference": message.get("reference")} | _dialect(message)
        for state in number.early:
            self._outbox.post(account, "status", {**base, "state": state, "at": _now()})
        for delay, state in number.reports:
            self._outbox.schedule(delay, account, "status", {**base, "state": state, "at": _now()})

    def _reply(self, account: str, message: Mapping[str, Any]) -> None:
        if not message.get("allow_reply", True):
            return
        to, now = message["to"], time.monotonic()
        with self._lock:
            if now - self._replied.pop(to, -REPLY_PAUSE) < REPLY_PAUSE:
                return
            self._replied[to] = now
            if len(self._replied) > REMEMBERED:
                self._replied.popitem(last=False)
        reply = {
            "id": secrets.token_hex(8),
            "from": to,
            "to": message.get("from"),
            "text": REPLY_TEXT,
            "at": _now(),
        } | _dialect(message)
        self._outbox.schedule(0.3, account, "im", reply)


def _dialect(message: Mapping[str, Any]) -> dict[str, Any]:
    """How what follows from a message is to be told, if not in the simulator's own words."""
    return {name: message[name] for name in ("dialect", "callback", "account") if name in message}


def _now() -> str:
    return datetime.now(UTC).isoformat()
