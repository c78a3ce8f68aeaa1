"""The provider that simulates a network in this process, for tests and development."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.numbers import digits
from smsqueue.message.statuses import MessageAccepted, MessageDelivered
from smsqueue.providers.null import NullProvider

__all__ = ["LoopbackProvider"]


class LoopbackProvider(NullProvider):
    """Delivers to subscribers in this process.

    The traffic log and the subscribers are local to the process that sends (in queued mode a
    worker). Messages from :meth:`received` and ``reply``, and status reports, go through the ledger
    to the handlers in any worker. Subscribe in the gateway module, so that every worker does.
    """

    reports = True

    def __init__(self, gateway: Any, name: str) -> None:
        super().__init__(gateway, name)
        self._subscribers: dict[str, Callable[[OutgoingMessage], object]] = {}
        self._traffic: list[IncomingMessage | OutgoingMessage] = []

    def get_traffic(self) -> list[IncomingMessage | OutgoingMessage]:
        """All messages of this process since the last call, oldest first."""
        traffic, self._traffic = self._traffic, []
        return traffic

    def received(self, src: str, body: str) -> IncomingMessage:
        """Simulate an incoming message from the number ``src``."""
        message = IncomingMessage(src, body, next(self._numbers))
        self._traffic.append(message)
        self._receive_message(message)
        return message

    def subscribe(self, number: str, callback: Callable[[OutgoingMessage], object]) -> Self:
        """Call ``callback(message)`` for each message to ``number``.

        The message then has ``reply(body)``, which simulates an answer, unless the message's
        option ``allow_reply`` is off.
        """
        self._subscribers[digits(number)] = callback
        return self

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        message = super().send(message)
        self._traffic.append(message)
        subscriber = self._subscribers.get(message.dst)
        if subscriber is not None:

            def reply(body: str) -> None:
                if message.provider_options.allow_reply:
                    self.received(message.dst, body)

            message.reply = reply  # type: ignore[attr-defined]  # as smsframework augments it
            subscriber(message)
        if message.provider_options.status_report:
            delivered = subscriber is not None
            status = (MessageDelivered if delivered else MessageAccepted)(message.msgid)
            status.status = "OK"
            status.reference = message.reference
            self._receive_status(status)
        return message
