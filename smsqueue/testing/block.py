"""The block in which a gateway is caught."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from smsqueue.gateway import Gateway
from smsqueue.message.messages import OutgoingMessage
from smsqueue.testing.book import Book
from smsqueue.testing.handed import Handed
from smsqueue.testing.outbox import Outbox

__all__ = ["capture"]

#: What of a gateway is replaced, by name. Its ledger and queue are what a worker replaces too;
#: ``deliver`` would call a provider.
_REPLACED = ("eager", "ledger", "queue", "deliver")


@contextmanager
def capture(gateway: Gateway) -> Iterator[Outbox]:
    """Catch what a gateway sends, as long as the block lasts.

    The same object as everywhere: one that was made at import, is connected already, is eager, or
    has no provider. It is caught in all threads of this process. Sending checks, routes and finds
    repeated idempotency keys as in production, then calls onSend at once. Its providers are not
    called, Redis and Celery are not used. Afterwards the gateway is as before, also if the block
    raises. Blocks may be nested: the innermost catches.

    Raises:
        TypeError: that is no Gateway.
    """
    if not isinstance(gateway, Gateway):
        raise TypeError(f"capture() takes a Gateway, not {type(gateway).__name__}")
    book = Book(gateway)
    outbox = Outbox(gateway, book)

    def deliver(message: OutgoingMessage) -> OutgoingMessage:
        gateway.send(message)
        book.tell(message, message.id or "")
        return message

    own = vars(gateway)
    before = {name: own[name] for name in _REPLACED if name in own}
    own |= {"eager": False, "ledger": book, "queue": Handed(gateway, book), "deliver": deliver}
    try:
        yield outbox
    finally:
        for name in _REPLACED:
            own.pop(name, None)
        own |= before
