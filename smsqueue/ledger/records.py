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
    #: Error class and provider's code of the last thing that went wrong.
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
    timeline = json.loads(fields.get("timeline", "[]"))
    for line in timeline:
        for name in ("at", "next", "last"):
            if name in line:
                line[name] = datetime.fromtimestamp(line[name] / 1000, UTC)
    troubles = [line for line in timeline if "error" in line]
    message = wire.load_outgoing(id, json.loads(fields["data"]))
    message.msgid = json.loads(fields["msgid"]) if "msgid" in fields else None
    message.meta = json.loads(fields["meta"]) if "meta" in fields else None
    return Record(
        id=id,
        state=State(fields["state"]),
        provider=fields.get("provider"),
        msgid=message.msgid,
        attempts=int(fields.get("attempt", 0)),
        error=troubles[-1]["error"] if troubles else None,
        code=troubles[-1].get("code") if troubles else None,
        timeline=timeline,
        message=message,
    )
