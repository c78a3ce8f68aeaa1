"""What a caught gateway has in place of its queue."""

from __future__ import annotations

from collections.abc import Iterable

from smsqueue.broker.queue import Queue
from smsqueue.gateway import Gateway
from smsqueue.testing.book import Book

__all__ = ["Handed"]


class Handed(Queue):
    """A queue whose triggers are worked on at once, in the thread that publishes them."""

    def __init__(self, gateway: Gateway, book: Book) -> None:
        super().__init__(gateway.settings)
        self._gateway, self._book = gateway, book

    def deliver(self, triggers: Iterable[tuple[str, int]]) -> None:
        self.hook(id for id, _ in triggers)

    def hook(self, events: Iterable[str], *, bulk: bool = False) -> None:
        for id in events:
            name, subject = self._book.due.pop(id, ("", None))
            if name:
                getattr(self._gateway, name)(subject)

    def close(self) -> None:
        vars(self._gateway)["queue"] = self
