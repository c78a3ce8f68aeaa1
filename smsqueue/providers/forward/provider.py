"""The module in which smsframework has both providers and its two JSON functions."""

from smsqueue.providers.forward.client import ForwardClientProvider
from smsqueue.providers.forward.jsonex import jsonex_dumps, jsonex_loads
from smsqueue.providers.forward.server import ForwardServerProvider

__all__ = ["ForwardClientProvider", "ForwardServerProvider", "jsonex_dumps", "jsonex_loads"]
