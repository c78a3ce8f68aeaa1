"""What the ledger answers to its operations."""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "Accepted",
    "Failure",
    "Lapse",
    "Purged",
    "Repaired",
    "Reported",
    "Room",
    "Swept",
    "Taken",
    "Transition",
    "Webhooks",
]


class Accepted(NamedTuple):
    """How a message was taken in."""

    verdict: str  #: accepted | duplicate | conflict | full
    id: str
    publish: bool


class Transition(NamedTuple):
    """The answer of a settle."""

    state: str
    #: When it will be looked at next, ms; None if it need not be.
    look: int | None
    #: The attempt that has begun at the next provider, None if none has.
    attempt: int | None
    #: Events whose triggers are to be published; "" stands for one that is not.
    events: list[str]


class Reported(NamedTuple):
    """The answer to a delivery report."""

    #: Id of a message whose task saw no such end, to be published once more.
    close: str | None
    #: Id of its message, and whether the report moved that on.
    id: str | None
    moved: bool
    #: As those of :class:`Transition`.
    events: list[str]
    #: The state that it moved to; None if it did not.
    state: str | None = None
    #: Was its message sent as one of many?
    bulk: bool = False


class Lapse(NamedTuple):
    """A message whose worker never came back."""

    id: str
    #: What it is now.
    state: str
    #: The event that tells of its end, if it is to be published.
    event: str | None


class Webhooks(NamedTuple):
    """What the webhooks of a provider hold in Redis, in bytes."""

    provider: str
    #: Those that wait for their handlers: how many, and what they hold.
    waiting: int
    held: int
    #: What is kept of handled ones.
    kept: int
    #: More are refused, though there may be memory for those of other providers.
    refused: bool


class Room(NamedTuple):
    """The memory that Redis has for new messages, in bytes."""

    used: int
    #: Redis's maxmemory; 0: there is no limit, or Redis does not tell it.
    max: int
    #: What accepted messages will still need until they are final, and the broker.
    reserved: int
    #: What is left for new messages.
    left: int
    #: What is left for webhooks: they are refused long before :meth:`send`.
    webhooks_left: int = 0
    #: The same for providers whose webhooks hold much, and from how much on they do.
    heavy_left: int = 0
    heavy: int = 0
    #: What the webhooks of one provider may hold while they wait for their handlers.
    quota: int = 0
    #: What they hold, by provider.
    webhooks: tuple[Webhooks, ...] = ()

    @property
    def refuses_webhooks(self) -> bool:
        """Are webhooks refused now, except reports that change an accepted message?"""
        return bool(self.max) and self.webhooks_left < 0

    @property
    def nearly_refuses(self) -> bool:
        """Will new messages be refused soon: is less than a twentieth left for them?"""
        return bool(self.max) and self.left < 0.05 * self.max

    @property
    def refuses(self) -> bool:
        """Is an ordinary message refused now?"""
        return bool(self.max) and self.left < 0

    @property
    def part(self) -> float:
        """Which part of the memory is taken, from 0.0; from 1.0 on new messages are refused."""
        taken = self.used + self.reserved
        return taken / max(1, taken + self.left) if self.max else 0.0


class Purged(NamedTuple):
    """How many events were deleted, or would be."""

    number: int
    #: Bytes that they held.
    bytes: int
    #: Events that a worker has in its hands: they were left alone.
    running: int


class Failure(NamedTuple):
    """A record that upkeep could not look at."""

    id: str
    cause: str
    #: It was put aside as damaged; else it is looked at again in a minute.
    aside: bool


class Taken(NamedTuple):
    """What was due in a lane."""

    #: Ids, and how many attempts there were: single ones first.
    due: list[tuple[str, int]]
    failures: list[Failure]
    #: Is more due, and is there room for it?
    more: bool
    #: How many of them are single ones; the others were sent as one of many.
    single: int
    #: Ids of messages whose sender named a provider or routing values.
    routed: frozenset[str]
    #: The single ones are few, and there is room for a trigger of each.
    alone: bool


class Swept(NamedTuple):
    """The answer of a sweep."""

    lapses: list[Lapse]
    failures: list[Failure]
    #: Its quota was full: there is more to do.
    more: bool


class Repaired(NamedTuple):
    """The answer of a repair."""

    #: What it is now; "gone": there is none; "beyond": it cannot be mended, only removed.
    state: str
    #: An event to be published.
    event: str | None
    #: What was wrong and is mended, in words; of "beyond": why. Empty: nothing was wrong.
    causes: list[str]
