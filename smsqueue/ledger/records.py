"""Records of messages, and of damaged ones, as the ledger returns them."""

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
    #: Class and provider's code of the last error. If a delivery report made the state: None, and
    #: the report's code. Errors before a success are in the timeline only.
    error: str | None
    code: str | None
    #: Oldest first: ``at`` (aware datetime), ``state``, and where they apply: attempt, provider,
    #: error, code, why, next, and ``times`` and ``last`` of a repeated line.
    timeline: list[dict[str, Any]]
    #: The message as it was sent, with id, msgid and meta. Personal data.
    message: OutgoingMessage = field(repr=False)

    @property
    def accepted_at(self) -> datetime:
        """When the ledger accepted it."""
        at: datetime = self.timeline[0]["at"]
        return at

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags that its sender gave it."""
        return self.message.provider_options.tag

    @property
    def changed_at(self) -> datetime:
        """When its timeline last changed."""
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
    #: When it was set aside; None: it was found damaged and not set aside.
    at: datetime | None = None


_KINDS = {"msg": "message", "event": "event", "key": "index"}


def parse_damaged(id: str, text: str) -> Damaged:
    """An entry of the ledger's list of damaged records."""
    try:
        entry = json.loads(text)
        kind, at = _KINDS[entry["kind"]], datetime.fromtimestamp(entry["at"] / 1000, UTC)
        return Damaged(id, kind, str(entry["cause"])[:200], at)
    except (ValueError, TypeError, KeyError, OverflowError, OSError):
        return Damaged(id, "index", "its entry among the damaged cannot be read")


def parse_record(id: str, fields: dict[str, str]) -> Record:
    """The record in a hash.

    Raises:
        DamagedRecord: it is not as the ledger writes it. The text shows none of its values.
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


#: States in which no error is shown.
_WELL = (State.SENT, State.ACCEPTED, State.DELIVERED)
#: ``why`` of lines that reports of the current sending made.
_REPORTS = ("report", "report of a part")
_REQUEUED = "requeued by an operator"


def _trouble(state: State, timeline: list[dict[str, Any]]) -> dict[str, Any]:
    """The line of the timeline with a record's error and code; empty: there is none."""
    requeued = max(
        (i for i, line in enumerate(timeline) if line.get("why") == _REQUEUED), default=0
    )
    # The report that made the state counts, whatever came later.
    reports = [line for line in timeline[requeued:] if _reported(line, state)]
    if reports or state in _WELL:
        return reports[-1] if reports else {}
    failed = (State.UNDELIVERED, State.EXPIRED)
    errors = [line for line in timeline if "error" in line or _reported(line, *failed)]
    return errors[-1] if errors else {}


def _reported(line: dict[str, Any], *states: State) -> bool:
    return line.get("why") in _REPORTS and line["state"] in states


def load_message(id: str, data: str) -> OutgoingMessage:
    """The message in its record's ``data``; DamagedRecord if that cannot be read."""
    return _read(id, "data", lambda text: serialization.load_outgoing(id, json.loads(text)), data)


def read_event_data(id: str, fields: dict[str, str]) -> dict[str, Any]:
    """The data of an event; DamagedRecord if it cannot be read."""

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
    except Exception as error:  # a damaged field may hold anything
        # Without the text of the error, which may quote the field.
        raise exc.DamagedRecord(_cause(field, text, error), id) from None


#: Worded as in shared/damage.lua.
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
