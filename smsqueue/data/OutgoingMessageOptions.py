"""The path under which smsframework keeps ``OutgoingMessageOptions``."""

from smsqueue.messages import OutgoingMessageOptions

__all__ = ["OutgoingMessageOptions"]
