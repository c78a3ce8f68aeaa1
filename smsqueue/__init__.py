"""A two-way SMS gateway: queued sending with retries, delivery reports, incoming messages."""

from smsqueue import exc
from smsqueue.data import (
    IncomingMessage,
    MessageAccepted,
    MessageDelivered,
    MessageError,
    MessageExpired,
    MessageStatus,
    OutgoingMessage,
)
from smsqueue.gateway import Gateway
from smsqueue.providers.base import IProvider
from smsqueue.retry import RetryPolicy
from smsqueue.settings import Settings
from smsqueue.states import State

__all__ = [
    "Gateway",
    "IProvider",
    "IncomingMessage",
    "MessageAccepted",
    "MessageDelivered",
    "MessageError",
    "MessageExpired",
    "MessageStatus",
    "OutgoingMessage",
    "RetryPolicy",
    "Settings",
    "State",
    "exc",
]
