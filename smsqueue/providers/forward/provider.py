"""The path under which smsframework keeps the two providers."""

from smsqueue.providers.forward.client import ForwardClientProvider
from smsqueue.providers.forward.server import ForwardServerProvider

__all__ = ["ForwardClientProvider", "ForwardServerProvider"]
