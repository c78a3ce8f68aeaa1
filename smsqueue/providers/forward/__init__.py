"""Forwarding: an application without provider accounts (client) sends through another (server).

See docs/forward.md.
"""

from smsqueue.providers.forward.client import ForwardClientProvider
from smsqueue.providers.forward.server import ForwardServerProvider

__all__ = ["ForwardClientProvider", "ForwardServerProvider"]
