"""What the ledger tells of a message."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from smsqueue import exc
from smsqueue.message import serialization
from smsqueue.message.messages import OutgoingMessage
from smsqueue.message.states import State

__all__ = ["Damaged", "Record", "load_message", "parse_damaged", "parse_record", "read_event_data"]

T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """A message's record at one moment."""

    id: str
    state: State
    #: The provider of the last attempt, None before the first.
    provider: str | None
    #: The provider's message id, as the provider typed it.
    msgid: Any
    #: How many times a provider was called.
    attempts: int
    #: Error class and provider's code of the last thing that went wrong. If a delivery report made
    #: the state: no class, and the report's code. What was overcome is in the timeline only.
    error: str | None
    code: str | None
    #: Oldest first: ``at`` (aware datetime), ``state``, and what is known of: attempt, provider,
    #: error, code, why, next, and ``times`` and ``last`` of a line that repeated itself.
    timeline: list[dict[str, Any]]
    #: The message as it was sent, with id, msgid and meta. Personal data.
    message: OutgoingMessage = field(repr=False)

    @property
    def accepted_at(self) -> datetime:
        """When the ledger took it."""
        at: datetime = self.timeline[0]["at"]
        return at

    @property
    def changed_at(self) -> datetime:
        """When its timeline last grew."""
        at: datetime = self.timeline[-1].get("last", self.timeline[-1]["at"])
        return at


@dataclass(frozen=True)
class Damaged:
    """A record that is not as the ledger writes it, or an index that was not."""

    #: Id of the message or event, or the name of a key that was set aside.
    id: str
    #: "message", "event" or "index".
    kind: str
    #: What is wrong, without any of its values.
    cause: str
    #: When it was put aside; None: it was not, it was only found to be damaged.
    at: datetime | None = None


_KINDS = {"msg": "message", "event": "event", "key": "index"}


def parse_damaged(id: str, text: str) -> Damaged:
    """What the ledger noted of a damaged record."""
    try:
        entry = json.loads(text)
        kind, at = _KINDS[entry["kind"]], datetime.fromtimestamp(entry["at"] / 1000, UTC)
        return Damaged(id, kind, str(entry["cause"])[:200], at)
    except (ValueError, TypeError, KeyError, OverflowError, OSError):
        return Damaged(id, "index", "its entry among the damaged cannot be read")


def parse_record(id: str, fields: dict[str, str]) -> Record:
    """A record out of its hash.

    Raises:
        DamagedRecord: it is not as the ledger writes it. The text holds none of its values.
    """
    timeline = _read(id, "timeline", _timeline, fields.get("timeline", ""))
    state = _read(id, "state", State, fields.get("state", ""))
    trouble = _trouble(state, timeline)
    message = load_message(id, fields.get("data", ""))
    message.msgid = _read(id, "msgid", json.loads, fields.get("msgid", "null"))
    message.meta = _read(id, "meta", json.loads, fields.get("meta", "null"))
    return Record(
        id=id,
        state=state,
        provider=fields.get("provider"),
        msgid=message.msgid,
        attempts=_read(id, "attempt", int, fields.get("attempt", "0")),
        error=trouble.get("error"),
        code=trouble.get("code"),
        timeline=timeline,
        message=message,
    )


#: States in which nothing is wrong (any more).
_WELL = (State.SENT, State.ACCEPTED, State.DELIVERED)
#: Why a line is there that a report of this sending made.
_REPORTS = ("report", "report of a part")
_REQUEUED = "requeued by an operator"


def _trouble(state: State, timeline: list[dict[str, Any]]) -> dict[str, Any]:
    """The line of the timeline that a record's error and code are taken from; empty: none."""
    requeued = max(
        (i for i, line in enumerate(timeline) if line.get("why") == _REQUEUED), default=0
    )
    # What made the state counts, whatever came after it.
    made = [line for line in timeline[requeued:] if _reported(line, state)]
    if made or state in _WELL:
        return made[-1] if made else {}
    failed = (State.UNDELIVERED, State.EXPIRED)
    wrong = [line for line in timeline if "error" in line or _reported(line, *failed)]
    return wrong[-1] if wrong else {}


def _reported(line: dict[str, Any], *states: State) -> bool:
    return line.get("why") in _REPORTS and line["state"] in states


def load_message(id: str, data: str) -> OutgoingMessage:
    """The message out of its record's ``data``; DamagedRecord if that is not readable."""
    return _read(id, "data", lambda text: serialization.load_outgoing(id, json.loads(text)), data)


def read_event_data(id: str, fields: dict[str, str]) -> dict[str, Any]:
    """What an event tells; DamagedRecord if that is not readable."""

    def parse(text: str) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(text)
        match fields.get("kind"):
            case "received":
                serialization.load_incoming(id, data)
            case "status":
                serialization.load_status(data)
            case "sent":
                data["provider"], data["msgid"], data["meta"]
        return data

    return _read(id, "data", parse, fields.get("data", ""))


def _read(id: str, field: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except Exception as error:  # whatever is there instead
        # Without the error's own text, which may quote.
        raise exc.DamagedRecord(_cause(field, text, error), id) from None


#: As shared/damage.lua says it.
_CAUSES = {
    "timeline": "timeline is not a JSON list of lines",
    "state": "state is not a known one",
    "attempt": "attempt is not a whole number",
}


def _cause(field: str, text: str, error: Exception) -> str:
    if not text and field in ("timeline", "state"):
        return f"{field} is missing"
    if field == "timeline" and text == "[]":
        return "timeline is empty"
    return _CAUSES.get(field, f"{field} cannot be read: {type(error).__name__}")


def _timeline(text: str) -> list[dict[str, Any]]:
    timeline = json.loads(text)
    if not isinstance(timeline, list) or not timeline:
        raise TypeError("a timeline has lines")
    for line in timeline:
        line["at"], line["state"]
        for name in ("at", "next", "last"):
            if name in line:
                line[name] = datetime.fromtimestamp(line[name] / 1000, UTC)
    return timeline
