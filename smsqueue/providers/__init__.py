"""The bundled providers."""

from smsqueue.providers.base import IProvider
from smsqueue.providers.log import LogProvider
from smsqueue.providers.loopback import LoopbackProvider
from smsqueue.providers.null import NullProvider

__all__ = ["IProvider", "LogProvider", "LoopbackProvider", "NullProvider"]
