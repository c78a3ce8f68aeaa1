"""The states of messages and events.

    queued | scheduled | retrying -> sending -> sent -> accepted
    sent | accepted -> delivered | undelivered | expired     (report)
    sending -> retrying | failed | unknown
    queued | scheduled | retrying -> expired | cancelled
    unknown -> sent | accepted | delivered | undelivered | expired      (report, operator)
    failed | expired | undelivered | cancelled | unknown -> queued | scheduled
                                                             (operator: a new generation)

*delivered* replaces any state. Any report replaces a state that smsqueue itself decided: failed,
cancelled, expired before sending. The Lua scripts of :mod:`smsqueue.ledger` make the transitions.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "DAMAGED",
    "ENDED_BADLY",
    "ENDED_EVENTS",
    "ENDED_WELL",
    "REQUEUED_FROM",
    "SETTLED_BY_HAND",
    "WAITING",
    "EventState",
    "State",
]


class State(StrEnum):
    """The state of a message."""

    QUEUED = "queued"
    SCHEDULED = "scheduled"
    RETRYING = "retrying"
    SENDING = "sending"
    SENT = "sent"
    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    EXPIRED = "expired"
    UNKNOWN = "unknown"
    FAILED = "failed"
    CANCELLED = "cancelled"


class EventState(StrEnum):
    """The state of an event, for which handlers are called."""

    WAITING = "waiting"
    PARKED = "parked"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"
    UNHEARD = "unheard"


#: Shown as the state of a record that cannot be read; not stored.
DAMAGED = "damaged"

#: States in which a worker may claim a message.
WAITING = frozenset({State.QUEUED, State.SCHEDULED, State.RETRYING})

#: A provider accepted the message, and no failure was reported.
ENDED_WELL = frozenset({State.SENT, State.ACCEPTED, State.DELIVERED})

#: The message was not delivered.
ENDED_BADLY = frozenset({State.FAILED, State.UNDELIVERED, State.EXPIRED, State.CANCELLED})

#: States of an event whose handlers do not run any more.
ENDED_EVENTS = frozenset({EventState.DEAD, EventState.UNHEARD, EventState.DONE})

#: States from which a message can be sent again.
REQUEUED_FROM = frozenset(ENDED_BADLY | {State.UNKNOWN})

#: States that an operator may give an unknown message.
SETTLED_BY_HAND = frozenset(
    {State.SENT, State.ACCEPTED, State.DELIVERED, State.UNDELIVERED, State.EXPIRED}
)
