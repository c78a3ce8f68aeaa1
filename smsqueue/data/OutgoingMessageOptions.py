"""The path under which smsframework keeps ``OutgoingMessageOptions``."""

from smsqueue.message.messages import OutgoingMessageOptions

__all__ = ["OutgoingMessageOptions"]
