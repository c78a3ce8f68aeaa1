"""The bundled providers: one module per service.

Base classes for new providers are in :mod:`smsqueue.providers.account` and
:mod:`smsqueue.providers.http`, internals in :mod:`smsqueue.providers.base`. The classes of services
are imported on first access.
"""

from __future__ import annotations

from smsqueue.providers.base.installed_providers import BUNDLED, load
from smsqueue.providers.base.provider import IProvider
from smsqueue.providers.log import LogProvider
from smsqueue.providers.loopback import LoopbackProvider
from smsqueue.providers.null import NullProvider

__all__ = [
    "IProvider",
    "LogProvider",
    "LoopbackProvider",
    "NullProvider",
]  # and the classes in BUNDLED


def __getattr__(name: str) -> type[IProvider]:
    for provider_name, target in BUNDLED.items():
        if target.endswith(f":{name}"):
            provider_class: type[IProvider] = load(provider_name)
            return provider_class
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
