"""Pools of senders: each recipient gets messages from one sender of the pool."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from smsqueue.message.masking import mask
from smsqueue.message.numbers import sender_kind

__all__ = ["SenderPool"]


class SenderPool:
    """The senders among which a provider's messages are divided.

    A recipient always has the same sender, in all processes, without anything being stored. If a
    sender is added or removed, only its own share of the recipients changes (rendezvous hashing,
    Thaler and Ravishankar 1998).

    Args:
        provider: For error texts.

    Raises:
        TypeError: ``senders`` is not a text or a list of texts.
        ValueError: there is no sender, one twice, or one that no network accepts.
    """

    def __init__(self, provider: str, senders: str | Iterable[str]) -> None:
        where = f"sender_pool of the provider {provider!r}"
        if not isinstance(senders, Iterable):
            raise TypeError(f"{where} must be a list, not {type(senders).__name__}")
        self.senders = (senders,) if isinstance(senders, str) else tuple(map(str, senders))
        if not self.senders:
            raise ValueError(f"{where} is empty: list numbers or sender ids, or leave it out")
        for sender in self.senders:
            if sender_kind(sender) is None:
                raise ValueError(f"{where}: {mask(sender)!r} is no number and no sender id")
        if len({*self.senders}) < len(self.senders):
            raise ValueError(f"{where} has a sender twice")

    def sender_for(self, recipient: str) -> str:
        """The sender of messages to a number."""

        def weight(sender: str) -> bytes:
            return hashlib.blake2b(f"{sender} {recipient}".encode(), digest_size=8).digest()

        return max(self.senders, key=weight)
