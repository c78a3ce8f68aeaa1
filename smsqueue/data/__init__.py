"""The data objects, under the path that smsframework's manual gives them."""

# From its own module, so that importing that module later does not replace the class by it.
from smsqueue.data.OutgoingMessageOptions import OutgoingMessageOptions
from smsqueue.message.media import Media
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.statuses import (
    MessageAccepted,
    MessageDelivered,
    MessageError,
    MessageExpired,
    MessageStatus,
)

__all__ = [
    "IncomingMessage",
    "Media",
    "MessageAccepted",
    "MessageDelivered",
    "MessageError",
    "MessageExpired",
    "MessageStatus",
    "OutgoingMessage",
    "OutgoingMessageOptions",
]
