"""The path under which smsframework keeps ``EventHook``."""

from smsqueue.events import EventHook

__all__ = ["EventHook"]
