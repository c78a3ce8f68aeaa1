"""What the ledger tells of a message."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from smsqueue import wire
from smsqueue.messages import OutgoingMessage
from smsqueue.states import State

__all__ = ["Record"]


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


def parse_record(id: str, fields: dict[str, str]) -> Record:
    """A record out of its hash."""
    timeline: list[dict[str, Any]] = json.loads(fields.get("timeline", "[]"))
    for line in timeline:
        for name in ("at", "next", "last"):
            if name in line:
                line[name] = datetime.fromtimestamp(line[name] / 1000, UTC)
    state = State(fields["state"])
    trouble = _trouble(state, timeline)
    message = wire.load_outgoing(id, json.loads(fields["data"]))
    message.msgid = json.loads(fields["msgid"]) if "msgid" in fields else None
    message.meta = json.loads(fields["meta"]) if "meta" in fields else None
    return Record(
        id=id,
        state=state,
        provider=fields.get("provider"),
        msgid=message.msgid,
        attempts=int(fields.get("attempt", 0)),
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
