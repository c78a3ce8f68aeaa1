"""The ledger: what is true of every message, kept in Redis. Each transition is one Lua script."""

from smsqueue.ledger.answers import Failure, Room, Transition
from smsqueue.ledger.diagnosis import RedisMisconfigured
from smsqueue.ledger.ledger import Ledger
from smsqueue.ledger.records import Damaged, Record
from smsqueue.ledger.watching import Backlog, Pause, Unrouted, Worker

__all__ = [
    "Backlog",
    "Damaged",
    "Failure",
    "Ledger",
    "Pause",
    "Record",
    "RedisMisconfigured",
    "Room",
    "Transition",
    "Unrouted",
    "Worker",
]
