"""What was caught, and what a test answers to it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from smsqueue.gateway import Gateway
from smsqueue.message.ids import new_id
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.numbers import searched_address
from smsqueue.message.states import State
from smsqueue.message.statuses import (
    MessageAccepted,
    MessageDelivered,
    MessageError,
    MessageExpired,
    MessageStatus,
)
from smsqueue.testing.book import Book

__all__ = ["Outbox"]

_REPORTS: dict[str, type[MessageStatus]] = {
    State.ACCEPTED: MessageAccepted,
    State.DELIVERED: MessageDelivered,
    State.EXPIRED: MessageExpired,
    State.UNDELIVERED: MessageError,
}


class Outbox(list[OutgoingMessage]):
    """The messages that were caught, oldest first: a list of snapshots.

    Each is as it would have gone out, with ``id``, ``provider`` (the first of its route), a made-up
    ``msgid``, and all that was given: ``dst``, ``body``, ``src``, ``provider_options``,
    ``provider_params``, ``routing_values``. Emptying the list forgets no id and no key.
    """

    def __init__(self, gateway: Gateway, book: Book) -> None:
        super().__init__()
        book.outbox = self
        self._gateway, self._book = gateway, book
        self._replies = itertools.count(1)

    @property
    def last(self) -> OutgoingMessage:
        """The newest message; LookupError if there is none."""
        if not self:
            raise LookupError("nothing was sent")
        return self[-1]

    def to(self, number: str) -> list[OutgoingMessage]:
        """The messages to a number, oldest first; only its digits count."""
        address = searched_address(number, self._gateway.settings.region)
        return [message for message in self if message.dst == address]

    def fail(self, error: BaseException | type[BaseException], times: int | None = 1) -> None:
        """Let the next calls of ``send`` and ``send_many`` raise an error and catch nothing.

        Args:
            error: As production has it: :class:`smsqueue.exc.QueueUnavailable`.
            times: How many calls; None: all that follow in the block; 0: none any more.
        """
        self._book.failures = (
            itertools.repeat(error) if times is None else itertools.repeat(error, times)
        )

    def reply(
        self,
        to: OutgoingMessage | str,
        text: str,
        *,
        provider: str | None = None,
        media: Iterable[tuple[str, str | None]] = (),
    ) -> IncomingMessage:
        """Play an incoming message: calls onReceive with it, and returns it.

        Args:
            to: The message that is answered, or the number (or any other address) that it comes
                from.
            provider: Who receives it; the message's or the default provider if not given.
            media: Address and type of each picture.

        Raises:
            AssertionError: no handler is connected to onReceive: in production nobody heard it.
            Exception: what a handler raises.
        """
        if not self._gateway.onReceive:
            raise AssertionError(
                "no handler is connected to onReceive: does the module of the gateway import "
                "the one that connects it?"
            )
        if isinstance(to, OutgoingMessage):
            source, own, asked_for = to.dst, to.src, to.provider
        else:
            source, own, asked_for = to, None, None
        msgid = f"reply-{next(self._replies)}"
        message = IncomingMessage(source, text, msgid, own, media=media)
        message.provider = provider or asked_for or self._gateway.default_provider
        self._gateway.receive_message(message)
        return message

    def report(
        self, message: OutgoingMessage | str, state: State | str, code: str | int | None = None
    ) -> MessageStatus:
        """Play what becomes of a message: calls onStatus with it, and returns it.

        Args:
            message: A caught message, the one that was sent, or its id.
            state: accepted, delivered, expired or undelivered, as a provider reports it; or
                failed, as the worker tells of what no provider took.
            code: The provider's status code.

        Raises:
            LookupError: no such message was caught.
            ValueError: nobody reports that state.
            Exception: what a handler raises.
        """
        id = message if isinstance(message, str) else message.id
        sheet = self._book.sheets.get(id or "")
        if sheet is None:
            raise LookupError(f"no message with the id {id!r} was sent through this gateway")
        if state == State.FAILED:
            event = new_id()
            status = self._book.ended(str(id), event, "failed", code)
            sheet.move(State.FAILED, code)
            self._gateway.queue.hook([event])
            return status
        if state not in _REPORTS:
            allowed = ", ".join([*map(str, _REPORTS), State.FAILED])
            raise ValueError(f"nobody reports {str(state)!r}: the states are {allowed}")
        status = _REPORTS[state](sheet.sent.msgid)
        status.reference, status.provider = sheet.sent.reference, sheet.sent.provider
        status.status_code, status.status = code, str(state)
        self._gateway.receive_status(status)
        return status
