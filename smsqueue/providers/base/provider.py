"""The interface of every provider: smsframework's, unchanged for its plugins."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.statuses import MessageStatus
from smsqueue.providers.base.webhook_errors import recording

if TYPE_CHECKING:
    from flask import Blueprint

__all__ = ["IProvider"]


class _Gateway(Protocol):
    """The part of the gateway that providers report to."""

    def receive_message(self, message: IncomingMessage) -> None: ...
    def receive_status(self, status: MessageStatus) -> None: ...


class IProvider:
    """Base class of providers.

    A subclass overrides :meth:`send`, and :meth:`make_receiver_blueprint` if it can receive.
    Instances are shared by the threads of a worker.
    """

    #: Longest time that ``send`` takes, in seconds; a worker's lease is longer.
    deadline: ClassVar[float] = 60.0
    #: True if ``send`` makes its calls through :mod:`smsqueue.providers.http`, which knows for
    #: each error whether anything was written before.
    through_http_layer: ClassVar[bool] = False
    #: False if the provider counts its message ids anew in each process. Such ids identify
    #: nothing, and reports are matched by reference only.
    unique_msgids: ClassVar[bool] = True

    #: Codes of delivery reports that say that the recipient has opted out there.
    opt_out_codes: ClassVar[Collection[str]] = ()

    #: Most concurrent calls that the provider accepts, if documented; see
    #: ``add_provider(max_in_flight=)``.
    most_at_once: ClassVar[int | None] = None

    #: Seconds for which the provider sends once per ``message.dedup_key``; 0: it has no such keys.
    dedup_window: float = 0.0

    def __init__(self, gateway: Any, name: str, **config: Any) -> None:
        self.gateway: _Gateway = gateway
        self.name = name

    @property
    def reports(self) -> bool:
        """Does the provider send delivery reports? If not, messages do not wait for them."""
        return True

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        """Send a message, and set its ``msgid`` and ``meta``.

        A provider that chooses the id itself sets it before the call: a report is then matched
        even if the response was lost.

        Raises:
            ProviderError: see :mod:`smsqueue.exc`; the class decides what happens next.
        """
        raise NotImplementedError("Provider.send not implemented")

    def look_up(self, message: OutgoingMessage, since: datetime) -> MessageStatus | None:
        """Ask the provider for the state of a message whose response was lost.

        Args:
            message: As it was sent, with the ``reference`` (and ``dedup_key``) of that attempt.
            since: Start of the attempt, by our clock.

        Returns:
            A report, with the provider's msgid if known; None if the provider does not know the
            message (yet). It is then asked again later, and nothing is sent.

        Raises:
            NotImplementedError: the provider has no such query.
            ProviderError: it did not answer.
        """
        raise NotImplementedError("Provider cannot be asked about a message")

    def make_receiver_blueprint(self) -> Blueprint:
        """A Flask blueprint with the views of the provider's webhooks.

        Raises:
            NotImplementedError: the provider cannot receive.
        """
        raise NotImplementedError("Provider does not support message reception")

    def _receive_message(self, message: IncomingMessage) -> IncomingMessage:
        """Record an incoming message in the ledger; in eager mode, call the handlers.

        Raises:
            QueueUnavailable: it was not recorded; answer the provider with an error.
        """
        message.provider = self.name
        with recording(self):
            self.gateway.receive_message(message)
        return message

    def _receive_status(self, status: MessageStatus) -> MessageStatus:
        """Record a delivery report; as :meth:`_receive_message`."""
        status.provider = self.name
        with recording(self):
            self.gateway.receive_status(status)
        return status
