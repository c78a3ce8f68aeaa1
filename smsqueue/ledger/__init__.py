"""The ledger: what is true of every message, kept in Redis. Each transition is one Lua script."""

from smsqueue.ledger.answers import Room, Transition
from smsqueue.ledger.diagnosis import RedisMisconfigured
from smsqueue.ledger.ledger import Ledger
from smsqueue.ledger.records import Record
from smsqueue.ledger.watching import Backlog, Pause, Worker

__all__ = [
    "Backlog",
    "Ledger",
    "Pause",
    "Record",
    "RedisMisconfigured",
    "Room",
    "Transition",
    "Worker",
]
