"""The simulated carrier: accepts or refuses messages, and schedules their reports and replies."""

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
from smsqueue.simulator.magic_numbers import RICH_ACCOUNT, number_for
from smsqueue.simulator.webhook_delivery import WebhookDelivery

__all__ = ["Answer", "Carrier"]

#: Limit of each list of messages that is kept.
_MAX_KEPT = 100_000
#: A number replies at most once in this time. Otherwise it and an auto-reply would answer each
#: other for ever.
_REPLY_INTERVAL_S = 10.0
#: Time from the start of one throttling of an account to the next, and its length.
_THROTTLE_INTERVAL_S, _THROTTLE_S = 20.0, 1.0
_REPLY_DELAY_S = 0.3
_REPLY_TEXT = "Thank you!"

#: Error code and text by HTTP status.
_ERRORS = {
    400: ("bad_number", "There is no such number."),
    402: ("no_credit", "The account has too little credit."),
    429: ("throttled", "Too many messages."),
    500: ("broken", "Something failed on our side."),
}


@dataclass(frozen=True)
class Answer:
    """The HTTP answer to a message; ``lost``: the connection is closed instead."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    lost: bool = False


def error(status: int, code: str, text: str) -> Answer:
    """Return an error in the simulator's own dialect."""
    headers = {"Retry-After": "1"} if status == 429 else {}
    return Answer(status, {"error": {"code": code, "text": text}}, headers)


class Carrier:
    """Accepts or refuses messages, and keeps a list of those that it accepted."""

    def __init__(self, webhooks: WebhookDelivery) -> None:
        self._webhooks = webhooks
        self._lock = threading.Lock()
        #: By message: how many of its calls were refused.
        self._refusals: OrderedDict[str, int] = OrderedDict()
        #: By number: monotonic time of its last reply.
        self._replied_at: OrderedDict[str, float] = OrderedDict()
        #: By account: monotonic time at which its last throttling began.
        self._throttled_at: dict[str, float] = {}
        self._accepted: deque[dict[str, Any]] = deque(maxlen=_MAX_KEPT)

    def accepted(self) -> list[dict[str, Any]]:
        """Return the accepted messages, oldest first: reference, account, masked number, time, id
        and dialect."""
        with self._lock:
            return list(self._accepted)

    def submit(self, account: str, message: Mapping[str, Any]) -> Answer:
        """Answer a message, and schedule its reports and its reply."""
        to, text = message.get("to"), message.get("text")
        if not isinstance(to, str) or not to.isdecimal() or not isinstance(text, str):
            return error(422, "malformed", "A message has digits in 'to' and a 'text'.")
        number = number_for(to)
        if number.needs_credit and account != RICH_ACCOUNT:
            return error(402, *_ERRORS[402])
        if number.throttled and self._is_throttled(account):
            return error(429, *_ERRORS[429])
        status = self._refusal_of(message, number.refusals)
        if status:
            return error(status, *_ERRORS[status])
        msgid = self._accept(account, message)
        self._report(account, message, msgid)
        if number.replies:
            self._reply(account, message)
        return Answer(202, {"id": msgid, "state": "accepted"}, lost=number.answer_lost)

    def _is_throttled(self, account: str) -> bool:
        """Start a throttling if the last one began long enough ago; return whether one is on."""
        with self._lock:
            now = time.monotonic()
            began = self._throttled_at.get(account, -_THROTTLE_INTERVAL_S)
            if now - began >= _THROTTLE_INTERVAL_S:
                began = self._throttled_at[account] = now
            return now - began < _THROTTLE_S

    def _refusal_of(self, message: Mapping[str, Any], refusals: tuple[int, ...]) -> int | None:
        """Return the HTTP status with which this call is refused; None if it is accepted."""
        if not refusals:
            return None
        reference = message.get("reference")
        # The reference is "id.attempt": all attempts of a message are counted together.
        key = (
            str(reference).partition(".")[0] if reference else f"{message['to']}/{message['text']}"
        )
        with self._lock:
            count = self._refusals.pop(key, 0)
            if count >= len(refusals):
                return None  # no longer counted: the same message sent anew is refused anew
            self._refusals[key] = count + 1
            if len(self._refusals) > _MAX_KEPT:
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
        for state in number.early_reports:
            self._webhooks.post(account, "status", {**base, "state": state, "at": _now()})
        for delay, state in number.reports:
            self._webhooks.schedule(
                delay, account, "status", {**base, "state": state, "at": _now()}
            )

    def _reply(self, account: str, message: Mapping[str, Any]) -> None:
        if not message.get("allow_reply", True):
            return
        to, now = message["to"], time.monotonic()
        with self._lock:
            if now - self._replied_at.pop(to, -_REPLY_INTERVAL_S) < _REPLY_INTERVAL_S:
                return
            self._replied_at[to] = now
            if len(self._replied_at) > _MAX_KEPT:
                self._replied_at.popitem(last=False)
        reply = {
            "id": secrets.token_hex(8),
            "from": to,
            "to": message.get("from"),
            "text": _REPLY_TEXT,
            "at": _now(),
        } | _dialect(message)
        self._webhooks.schedule(_REPLY_DELAY_S, account, "im", reply)


def _dialect(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that select the dialect of a message's webhooks."""
    return {name: message[name] for name in ("dialect", "callback", "account") if name in message}


def _now() -> str:
    return datetime.now(UTC).isoformat()
