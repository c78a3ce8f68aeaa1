"""What all providers are built from: their interface, HTTP transports and webhook handling.

The base classes for new providers are one level up: :mod:`smsqueue.providers.http` and
:mod:`smsqueue.providers.account`.
"""

from __future__ import annotations

from smsqueue.providers.base.provider import IProvider

__all__ = ["IProvider"]
