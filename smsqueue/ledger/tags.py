"""What the ledger can say of the messages of a tag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from smsqueue.message.states import State

__all__ = ["Progress", "WaitingTags"]


@dataclass(frozen=True)
class Progress:
    """How far the messages of a tag are."""

    tag: str
    #: Messages by state, without empty states.
    states: Mapping[State, int]
    #: Messages per second that were sent or failed, over the last minute, or since the first of
    #: them if that was later.
    per_second: float
    #: When the first and the last of the messages were accepted; None: there is none.
    first_accepted_at: datetime | None
    last_accepted_at: datetime | None
    #: Records that cannot be read, in addition to those in ``states``.
    damaged: int = 0

    @property
    def total(self) -> int:
        """All messages that can be read."""
        return sum(self.states.values())

    @property
    def waiting(self) -> int:
        """Messages that are to be sent as soon as possible, or are being sent."""
        states = (State.QUEUED, State.RETRYING, State.SENDING)
        return sum(self.states.get(state, 0) for state in states)

    @property
    def seconds_left(self) -> float | None:
        """Until none of them waits, if they are sent as fast as in the last minute.

        Without scheduled messages. None: none was sent in the last minute.
        """
        if not self.waiting:
            return 0.0
        return self.waiting / self.per_second if self.per_second else None


class WaitingTags(NamedTuple):
    """The tags with the most messages that wait to be sent."""

    #: Messages by tag, the largest number first.
    tags: dict[str, int]
    #: All waiting messages were read. If not, the numbers are estimated from 400 of them.
    exact: bool
