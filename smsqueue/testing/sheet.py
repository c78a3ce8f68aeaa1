"""One caught message: how it would have gone out, and what became of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from smsqueue.gateway import Gateway
from smsqueue.ledger import Record
from smsqueue.message import serialization
from smsqueue.message.messages import OutgoingMessage
from smsqueue.message.states import State
from smsqueue.policy.router import resolve

__all__ = ["RANKS", "Sheet", "routed"]

#: A state only gives way to one that stands further right.
RANKS = [State.SCHEDULED, State.SENT, State.CANCELLED, State.FAILED, State.ACCEPTED, State.EXPIRED]
RANKS += [State.UNDELIVERED, State.DELIVERED]


class _AnyName(frozenset[str]):
    """The providers of a gateway that was given none: whatever is asked for."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str)


def routed(gateway: Gateway, message: OutgoingMessage, id: str) -> OutgoingMessage:
    """A copy of a message with the first provider of its route; what the router raises."""
    sent = copy.copy(message)
    for name in ("provider_options", "provider_params", "routing_values"):
        setattr(sent, name, copy.deepcopy(getattr(message, name)))
    sent.id, sent.reference, sent.duplicate = id, f"{id}.1", False
    sent.unconfirmed_id = sent.derived_key = sent.msgid = sent.meta = None
    if gateway.providers:
        name = gateway.route(sent)[0]
    else:  # as in a web process that leaves the providers to the workers
        name = resolve(sent, gateway.router, _AnyName(), "")[0]
    if sent.provider != name:
        sent.provider = sent.routed_to = name or None
    return sent


@dataclass
class Sheet:
    """What is known of a caught message."""

    sent: OutgoingMessage
    content: str = field(init=False, repr=False)
    state: State = field(init=False)
    code: str | None = None
    timeline: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.content = serialization.content_of(self.sent)
        at = self.sent.provider_options.send_at
        self.state = State.SCHEDULED if at and at > datetime.now(UTC) else State.SENT
        self.note(self.state)

    def note(self, state: State, code: Any = None, **more: Any) -> None:
        """Add a line to the timeline."""
        found = {"code": code} if code is not None else {}
        self.timeline.append({"at": datetime.now(UTC), "state": str(state), **found, **more})

    def move(self, state: State | None, code: Any = None, **more: Any) -> bool:
        """Take note of a state; has the message moved on?"""
        if state is None:
            return False
        code = None if code is None else str(code)
        self.note(state, code, **more)
        if RANKS.index(state) <= RANKS.index(self.state):
            return False
        self.state, self.code = state, code
        return True

    def copy(self) -> OutgoingMessage:
        """A snapshot that nobody else holds."""
        return copy.deepcopy(self.sent)

    @property
    def record(self) -> Record:
        """As ``lookup`` tells it."""
        waited = self.state in (State.SCHEDULED, State.CANCELLED)
        return Record(
            id=str(self.sent.id),
            state=self.state,
            provider=None if waited else self.sent.provider,
            msgid=None if waited else self.sent.msgid,
            attempts=0 if waited else 1,
            error=None,
            code=self.code,
            timeline=[dict(line) for line in self.timeline],
            message=self.copy(),
        )
