"""Compatibility with smsframework: its published plugins, and applications that import it.

``gateway.add_provider`` adapts plugins itself. Nothing in this package imports smsframework.
"""

from smsqueue.compat.alias import install_as_smsframework
from smsqueue.compat.plugin import adapted

__all__ = ["adapted", "install_as_smsframework"]
