"""The data objects, under the path that smsframework's manual gives them."""

from smsqueue.messages import IncomingMessage, OutgoingMessage, OutgoingMessageOptions
from smsqueue.statuses import (
    MessageAccepted,
    MessageDelivered,
    MessageError,
    MessageExpired,
    MessageStatus,
)

__all__ = [
    "IncomingMessage",
    "MessageAccepted",
    "MessageDelivered",
    "MessageError",
    "MessageExpired",
    "MessageStatus",
    "OutgoingMessage",
    "OutgoingMessageOptions",
]
