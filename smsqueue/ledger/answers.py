"""What the ledger answers to its operations."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Accepted", "Lapse", "Reported", "Transition"]


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


class Lapse(NamedTuple):
    """A message whose worker never came back."""

    id: str
    #: What it is now.
    state: str
    #: The event that tells of its end, if it is to be published.
    event: str | None
