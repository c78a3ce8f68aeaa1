"""The bundled providers. Those that are called over HTTP are imported when they are asked for."""

from __future__ import annotations

from smsqueue.providers.base import IProvider
from smsqueue.providers.known import BUNDLED, load
from smsqueue.providers.log import LogProvider
from smsqueue.providers.loopback import LoopbackProvider
from smsqueue.providers.null import NullProvider

__all__ = ["IProvider", "LogProvider", "LoopbackProvider", "NullProvider"]  # and BUNDLED's classes


def __getattr__(name: str) -> type[IProvider]:
    for known, where in BUNDLED.items():
        if where.endswith(f":{name}"):
            found: type[IProvider] = load(known)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
