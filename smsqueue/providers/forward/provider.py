"""The path under which smsframework keeps the two providers, and its JSON with objects in it."""

from smsqueue.providers.forward.client import ForwardClientProvider
from smsqueue.providers.forward.jsonex import jsonex_dumps, jsonex_loads
from smsqueue.providers.forward.server import ForwardServerProvider

__all__ = ["ForwardClientProvider", "ForwardServerProvider", "jsonex_dumps", "jsonex_loads"]
