"""The provider that does nothing."""

from __future__ import annotations

import itertools
from typing import Any

from smsqueue.message.messages import OutgoingMessage
from smsqueue.providers.base import IProvider

__all__ = ["NullProvider"]


class NullProvider(IProvider):
    """Sends nothing; ``msgid`` counts '1', '2', ... in each process."""

    unique_msgids = False
    reports = False

    def __init__(self, gateway: Any, name: str) -> None:
        super().__init__(gateway, name)
        self._numbers = itertools.count(1)

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        message.msgid = str(next(self._numbers))
        return message
