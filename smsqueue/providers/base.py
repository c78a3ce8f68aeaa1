"""What every provider is: the interface of smsframework, unchanged for plugins."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.statuses import MessageStatus

if TYPE_CHECKING:
    from flask import Blueprint

__all__ = ["IProvider"]

_Event = TypeVar("_Event", IncomingMessage, MessageStatus)


class _Gateway(Protocol):
    """The part of the gateway that a provider reports to."""

    def receive_message(self, message: IncomingMessage) -> None: ...
    def receive_status(self, status: MessageStatus) -> None: ...


class IProvider:
    """Base class of providers.

    A subclass overrides :meth:`send`, and :meth:`make_receiver_blueprint` if it can receive.
    Instances are shared by the threads of a worker.
    """

    #: Seconds within which ``send`` is sure to have returned; a worker's lease is longer.
    deadline: ClassVar[float] = 60.0
    #: True if ``send`` makes its calls through :mod:`smsqueue.providers.http`, which knows
    #: whether anything was written when an error came.
    through_http_layer: ClassVar[bool] = False
    #: False if the provider counts its message ids anew in each process: they then identify
    #: nothing, and reports are found by reference only.
    unique_msgids: ClassVar[bool] = True

    #: Calls at once that the provider bears, if it says so; see ``add_provider(max_in_flight=)``.
    most_at_once: ClassVar[int | None] = None

    #: Seconds for which the provider sends once, however often it is called with the same
    #: ``message.dedup_key``; 0: it does not know such keys.
    dedup_window: float = 0.0

    def __init__(self, gateway: Any, name: str, **config: Any) -> None:
        self.gateway: _Gateway = gateway
        self.name = name

    @property
    def reports(self) -> bool:
        """Does it ever tell what became of a message? If not, nobody waits for that."""
        return True

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        """Hand a message to the provider, and set its ``msgid`` and ``meta``.

        Who makes the id itself sets it before the call: a report then finds its message even if
        the answer was lost.

        Raises:
            ProviderError: see :mod:`smsqueue.exc`; the class decides what happens next.
        """
        raise NotImplementedError("Provider.send not implemented")

    def look_up(self, message: OutgoingMessage, since: datetime) -> MessageStatus | None:
        """Ask the provider what became of a message whose answer was lost.

        Args:
            message: As it was sent, with the ``reference`` (and ``dedup_key``) of that attempt.
            since: When the attempt began, by our clock.

        Returns:
            A report, with the provider's msgid if it tells one; None: it does not know the
            message (yet). It is asked again then, and nothing is sent.

        Raises:
            NotImplementedError: the provider cannot be asked.
            ProviderError: it did not answer.
        """
        raise NotImplementedError("Provider cannot be asked about a message")

    def make_receiver_blueprint(self) -> Blueprint:
        """A Flask blueprint that takes the provider's webhooks.

        Raises:
            NotImplementedError: the provider cannot receive.
        """
        raise NotImplementedError("Provider does not support message reception")

    def _receive_message(self, message: IncomingMessage) -> IncomingMessage:
        """Report an incoming message: to the ledger, or in eager mode to the hooks.

        Raises:
            QueueUnavailable: it was not recorded; answer the provider with an error.
        """
        message.provider = self.name
        self.gateway.receive_message(message)
        return message

    def _receive_status(self, status: MessageStatus) -> MessageStatus:
        """Report a delivery report; as :meth:`_receive_message`."""
        status.provider = self.name
        self.gateway.receive_status(status)
        return status
