"""A gateway without a Redis server, whose providers must not be called."""

from __future__ import annotations

import pytest

from smsqueue import Gateway, IProvider, OutgoingMessage, Settings


class Forbidden(IProvider):
    """A provider that must not be called."""

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        raise ZeroDivisionError("a real SMS went out")


@pytest.fixture
def away() -> Gateway:
    gateway = Gateway(Settings(redis_url="redis://127.0.0.1:1/0"))
    for name in ("primary", "backup", "cheap"):
        gateway.add_provider(name, Forbidden)
    gateway.router = lambda message, kind: {"otp": ["backup", "primary"], "ad": "cheap"}.get(kind)
    return gateway
