"""``capture()``: captures what a gateway would send, and simulates reports and replies."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from smsqueue.broker.queue import Queue
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
from smsqueue.policy.router import refusal
from smsqueue.testing.in_memory_ledger import InMemoryLedger

__all__ = ["ImmediateQueue", "Outbox", "capture"]

#: Attributes of the gateway that are replaced: its ledger and queue, as in a worker, and
#: ``deliver``, which would call a provider.
_REPLACED = ("eager", "ledger", "queue", "deliver")

_REPORTS: dict[str, type[MessageStatus]] = {
    State.ACCEPTED: MessageAccepted,
    State.DELIVERED: MessageDelivered,
    State.EXPIRED: MessageExpired,
    State.UNDELIVERED: MessageError,
}


@contextmanager
def capture(gateway: Gateway) -> Iterator[Outbox]:
    """Capture what a gateway sends while the block runs.

    Works with any gateway object: created at import, already connected, eager, or without a
    provider. All threads of this process are captured. Sending validates, routes and recognizes
    repeated idempotency keys as in production, then calls onSend at once. Providers are not called;
    Redis and Celery are not used. When the block ends, also by an error, the gateway is as before.
    Blocks may be nested: the innermost captures.

    Raises:
        TypeError: the argument is not a Gateway.
    """
    if not isinstance(gateway, Gateway):
        raise TypeError(f"capture() takes a Gateway, not {type(gateway).__name__}")
    ledger = InMemoryLedger(gateway)
    outbox = Outbox(gateway, ledger)

    def deliver(message: OutgoingMessage) -> OutgoingMessage:
        gateway.send(message)
        decision = ledger.captured[message.id or ""].decision
        if decision is not None:
            raise refusal(decision)
        ledger.copy_delivery(message, message.id or "")
        return message

    attributes = vars(gateway)
    before = {name: attributes[name] for name in _REPLACED if name in attributes}
    queue = ImmediateQueue(gateway, ledger)
    attributes |= {"eager": False, "ledger": ledger, "queue": queue, "deliver": deliver}
    try:
        yield outbox
    finally:
        for name in _REPLACED:
            attributes.pop(name, None)
        attributes |= before


class ImmediateQueue(Queue):
    """Calls the event handlers at once, in the thread that publishes the trigger."""

    def __init__(self, gateway: Gateway, ledger: InMemoryLedger) -> None:
        super().__init__(gateway.settings)
        self._gateway, self._ledger = gateway, ledger

    def deliver(self, triggers: Iterable[tuple[str, int]]) -> None:
        self.hook(id for id, _ in triggers)

    def hook(self, events: Iterable[str], *, bulk: bool = False) -> None:
        for id in events:
            name, argument = self._ledger.pending_events.pop(id, ("", None))
            if name:
                getattr(self._gateway, name)(argument)

    def close(self) -> None:
        # gateway.close() drops its queue and would connect to the broker at the next use.
        vars(self._gateway)["queue"] = self


class Outbox(list[OutgoingMessage]):
    """The captured messages, oldest first: a list of snapshots.

    Each message has its ``id``, ``provider`` (the first of its route), a generated ``msgid``, and
    what the sender set: ``dst``, ``body``, ``src``, ``provider_options``, ``provider_params``,
    ``routing_values``. Clearing the list forgets neither ids nor idempotency keys.
    """

    def __init__(self, gateway: Gateway, ledger: InMemoryLedger) -> None:
        super().__init__()
        ledger.outbox = self
        self._gateway, self._ledger = gateway, ledger
        self._reply_numbers = itertools.count(1)

    @property
    def last(self) -> OutgoingMessage:
        """The newest message; LookupError if there is none."""
        if not self:
            raise LookupError("nothing was sent")
        return self[-1]

    def to(self, number: str) -> list[OutgoingMessage]:
        """Return the messages to a number, oldest first; only its digits are compared."""
        address = searched_address(number, self._gateway.settings.region)
        return [message for message in self if message.dst == address]

    def fail(self, error: BaseException | type[BaseException], times: int | None = 1) -> None:
        """Make the next calls of ``send`` and ``send_many`` raise an error and capture nothing.

        Args:
            error: For example :class:`smsqueue.exc.QueueUnavailable`, as in production.
            times: How many calls fail; None: all further calls in the block; 0: none.
        """
        self._ledger.failures = (
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
        """Simulate an incoming message: call onReceive with it, and return it.

        Args:
            to: The message that is answered, or the number (or another address) of the sender.
            provider: The provider that receives it; by default the provider of the answered
                message, else the default provider.
            media: URL and content type of each file.

        Raises:
            AssertionError: no handler is connected to onReceive; in production the message would
                be ignored.
            Exception: what a handler raises.
        """
        if not self._gateway.onReceive:
            raise AssertionError(
                "no handler is connected to onReceive: does the module of the gateway import "
                "the module that connects the handler?"
            )
        if isinstance(to, OutgoingMessage):
            src, dst, sent_by = to.dst, to.src, to.provider
        else:
            src, dst, sent_by = to, None, None
        msgid = f"reply-{next(self._reply_numbers)}"
        message = IncomingMessage(src, text, msgid, dst, media=media)
        message.provider = provider or sent_by or self._gateway.default_provider
        self._gateway.receive_message(message)
        return message

    def report(
        self, message: OutgoingMessage | str, state: State | str, code: str | int | None = None
    ) -> MessageStatus:
        """Simulate a delivery report: call onStatus with it, and return it.

        Args:
            message: A captured message, the message object that was sent, or its id.
            state: ``accepted``, ``delivered``, ``expired`` or ``undelivered``, as a provider
                reports it; or ``failed``, as a worker reports a message that no provider accepted.
            code: The provider's status code.

        Raises:
            LookupError: no such message was captured.
            ValueError: not one of these states.
            Exception: what a handler raises.
        """
        id = message if isinstance(message, str) else message.id
        captured = self._ledger.captured.get(id or "")
        if captured is None:
            raise LookupError(f"no message with the id {id!r} was sent through this gateway")
        if state == State.FAILED:
            event = new_id()
            status = self._ledger.add_end_event(str(id), event, "failed", code)
            captured.move(State.FAILED, code)
            self._gateway.queue.hook([event])
            return status
        if state not in _REPORTS:
            allowed = ", ".join([*map(str, _REPORTS), State.FAILED])
            raise ValueError(f"{str(state)!r} is never reported; use one of {allowed}")
        status = _REPORTS[state](captured.sent.msgid)
        status.reference, status.provider = captured.sent.reference, captured.sent.provider
        status.status_code, status.status = code, str(state)
        self._gateway.receive_status(status)
        return status
