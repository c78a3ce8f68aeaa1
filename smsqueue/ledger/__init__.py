"""The ledger: what is true of every message, kept in Redis. Each transition is one Lua script."""

from smsqueue.ledger.answers import Failure, Purged, Room, Taken, Transition, Webhooks
from smsqueue.ledger.connection import GROUP_LIMIT
from smsqueue.ledger.diagnosis import RedisMisconfigured, diagnosed
from smsqueue.ledger.items import Beginning, Claiming, HookSettlement, Settlement
from smsqueue.ledger.ledger import Ledger
from smsqueue.ledger.records import Damaged, Record
from smsqueue.ledger.watching import Backlog, Pause, Unrouted, Worker

__all__ = [
    "GROUP_LIMIT",
    "Backlog",
    "Beginning",
    "Claiming",
    "Damaged",
    "Failure",
    "HookSettlement",
    "Ledger",
    "Pause",
    "Purged",
    "Record",
    "RedisMisconfigured",
    "Room",
    "Settlement",
    "Taken",
    "Transition",
    "Unrouted",
    "Webhooks",
    "Worker",
    "diagnosed",
]
