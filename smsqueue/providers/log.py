"""The provider that writes a log line."""

from __future__ import annotations

import logging
from typing import Any

from smsqueue.message.masking import mask
from smsqueue.message.messages import OutgoingMessage
from smsqueue.providers.null import NullProvider

__all__ = ["LogProvider"]


class LogProvider(NullProvider):
    """Logs each message at INFO.

    Args:
        logger: The target; by default this module's logger.
        show_body: Log number and text in full. Off by default, because logs must not contain
            one-time passwords and customers' numbers.
    """

    def __init__(
        self,
        gateway: Any,
        name: str,
        logger: logging.Logger | None = None,
        show_body: bool = False,
    ) -> None:
        super().__init__(gateway, name)
        self.logger = logger or logging.getLogger(__name__)
        self.show_body = show_body

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        if self.show_body:
            self.logger.info("Sent SMS to %s: %s", message.dst, message.body)
        else:
            size = len(message.body)
            self.logger.info("Sent SMS to %s: (%d characters)", mask(message.dst), size)
        return super().send(message)
