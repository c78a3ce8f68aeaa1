"""A gateway whose Redis nobody serves and whose providers nobody may call."""

from __future__ import annotations

import pytest

from smsqueue import Gateway, IProvider, OutgoingMessage, Settings


class Forbidden(IProvider):
    """A provider that a test must never reach."""

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        raise ZeroDivisionError("a real SMS went out")


@pytest.fixture
def away() -> Gateway:
    made = Gateway(Settings(redis_url="redis://127.0.0.1:1/0"))
    for name in ("primary", "backup", "cheap"):
        made.add_provider(name, Forbidden)
    made.router = lambda message, kind: {"otp": ["backup", "primary"], "ad": "cheap"}.get(kind)
    return made
