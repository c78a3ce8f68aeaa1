"""The states of a message and of an event, and what they mean.

    queued | scheduled | retrying -> sending -> sent -> accepted
    sent | accepted -> delivered | undelivered | expired     (report)
    sending -> retrying | failed | unknown
    queued | scheduled | retrying -> expired | cancelled
    unknown -> sent | accepted | delivered | undelivered | expired      (report, operator)
    failed | expired | undelivered | unknown -> queued       (operator: a new generation)

A report is a fact: any state gives way to *delivered*, and a message that we had given up on
(failed, cancelled, expired here) gives way to any report. The transitions themselves are the
Lua scripts of :mod:`smsqueue.ledger`.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "DAMAGED",
    "ENDED_BADLY",
    "ENDED_WELL",
    "SETTLED_BY_HAND",
    "WAITING",
    "EventState",
    "State",
]


class State(StrEnum):
    """Where a message is."""

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
    """Where an event (something that hooks are told of) is."""

    WAITING = "waiting"
    PARKED = "parked"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"
    UNHEARD = "unheard"


#: What is told in place of the state of a record that cannot be read; no record has it.
DAMAGED = "damaged"

#: A worker may claim these.
WAITING = frozenset({State.QUEUED, State.SCHEDULED, State.RETRYING})

#: A provider took the message, and nothing is known to have gone wrong with it since.
ENDED_WELL = frozenset({State.SENT, State.ACCEPTED, State.DELIVERED})

#: Its recipient does not have it, whoever said so: a provider, a report or an operator.
ENDED_BADLY = frozenset({State.FAILED, State.UNDELIVERED, State.EXPIRED, State.CANCELLED})

#: What an operator may settle an unknown message as.
SETTLED_BY_HAND = frozenset(
    {State.SENT, State.ACCEPTED, State.DELIVERED, State.UNDELIVERED, State.EXPIRED}
)
