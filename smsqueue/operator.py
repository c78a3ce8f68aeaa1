"""The gateway's desk: looking at what was sent, and repairing it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

from smsqueue.exc import DamagedRecord
from smsqueue.logs import get_logger, transition
from smsqueue.message.numbers import searched_address
from smsqueue.message.states import SETTLED_BY_HAND, State
from smsqueue.settings import Settings

if TYPE_CHECKING:
    from smsqueue.broker.queue import Queue
    from smsqueue.ledger import Ledger, Record

__all__ = ["Desk"]

log = get_logger(__name__)

#: What can be sent again.
_AGAIN = (State.FAILED, State.EXPIRED, State.UNDELIVERED, State.UNKNOWN)


class Desk:
    """What can be asked of the ledger and done to its messages."""

    def __init__(self, settings: Settings, *, eager: bool) -> None:
        self.settings = settings
        self.eager = eager

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger; connects at its first command. LookupError: an eager gateway has none."""
        if self.eager:
            raise LookupError("this gateway is eager: it keeps no records of what it sent")
        from smsqueue.ledger import Ledger

        return Ledger(self.settings)

    @cached_property
    def queue(self) -> Queue:
        """The queue of triggers; connects at its first publish."""
        from smsqueue.broker.queue import Queue

        return Queue(self.settings)

    def lookup(self, id: str) -> Record:
        """A message's record; LookupError if there is none (any more), DamagedRecord if it cannot
        be read."""
        record = self.ledger.read(id)
        if record is None:
            days = self.settings.retention / 86400
            raise LookupError(f"no message has the id {id!r} (records are kept for {days:g} days)")
        return record

    def find(self, number: str, *, limit: int | None = None) -> list[Record]:
        """Records of the messages to a number, newest first, without damaged ones.

        Args:
            limit: How many at most; None: all.
        """
        return list(islice(self._found(searched_address(number, self.settings.region)), limit))

    def _found(self, address: str) -> Iterator[Record]:
        for id in self.ledger.find(address):
            try:
                record = self.ledger.read(id)
            except DamagedRecord as error:
                log.warning("%s", error, extra={"id": id})
                continue
            if record is not None:
                yield record

    def cancel(self, id: str) -> bool:
        """Cancel a message that waits; False if it does not wait (any more)."""
        before, event, close = self.ledger.cancel(id)
        self._known(id, before)
        if before not in ("queued", "scheduled", "retrying"):
            return False
        transition(log, id, State.CANCELLED, why="by an operator")
        if close:
            self.queue.deliver([(id, 0)])
        self.queue.hook([event])
        return True

    def requeue(
        self,
        id: str,
        expires: float | None = None,
        *,
        bulk: bool = False,
        states: Collection[str] = _AGAIN,
    ) -> bool:
        """Send a failed, expired, undelivered or unknown message again; False for others.

        Args:
            expires: Validity in minutes from now; if not given, as long as it was, from now.
            bulk: It is one of many: single messages overtake it, as they do in ``send_many``.
            states: Only if it is in one of these: it may have changed since it was looked at.
        """
        before, publish = self.ledger.requeue(id, expires, bulk=bulk, states=states)
        if self._known(id, before) not in states:
            return False
        transition(log, id, State.QUEUED, why="by an operator")
        if publish:
            self.queue.deliver([(id, 0)])
        return True

    def settle(self, id: str, state: State | str) -> bool:
        """Say what became of an unknown message; False if it is not unknown (any more).

        Args:
            state: sent, accepted, delivered, undelivered or expired.
        """
        if state not in SETTLED_BY_HAND:
            allowed = ", ".join(sorted(SETTLED_BY_HAND))
            raise ValueError(f"a message cannot be settled as {state!r}, only as {allowed}")
        before, close = self.ledger.decide(id, State(state))
        if self._known(id, before) != "unknown":
            return False
        transition(log, id, state, why="by an operator")
        if close:
            self.queue.deliver([(id, 0)])
        return True

    def _known(self, id: str, before: str) -> str:
        if before == "gone":
            raise LookupError(f"no message has the id {id!r}")
        return before

    def replay(self, event: str) -> bool:
        """Give an incoming message or report to the hooks again; False if it is not over yet."""
        before, publish = self.ledger.replay(event, everything=True)
        if before == "gone":
            raise LookupError(f"no event has the id {event!r}")
        if before not in ("dead", "unheard", "done"):
            return False
        self.queue.hook([publish])
        return True

    def repair(self, id: str) -> tuple[str, list[str]]:
        """Mend a damaged message or event; what it is now, and what was wrong, in words.

        It goes on in its state. What a provider may have becomes unknown, so nothing is sent
        twice. Nothing is done, and the list is empty, if nothing is wrong.

        Raises:
            LookupError: there is no such message or event.
            DamagedRecord: it cannot be mended, only removed: see :meth:`remove`.
        """
        kind, readable, others = self.ledger.examine(id)
        state, event, causes = self.ledger.repair(id, kind, readable=readable, drop=others)
        if state == "gone":
            raise LookupError(f"no message and no event has the id {id!r}")
        if state == "beyond":
            raise DamagedRecord("; ".join(causes), id, mendable=False)
        if causes:
            transition(log, id, state, why="repaired by an operator")
        self.queue.hook([event or ""])
        return state, causes

    def remove(self, id: str) -> bool:
        """Remove a damaged message or event, or a key that was set aside, for good; False if it is
        not damaged.

        Raises:
            LookupError: there is none.
        """
        if self.ledger.damaged_entry(id) is None and self.ledger.is_sound(id):
            return False
        if not self.ledger.remove(id):
            raise LookupError(f"no message and no event has the id {id!r}")
        log.warning("%s: removed by an operator, as it was damaged", id, extra={"id": id})
        return True

    def ping(self) -> None:
        """Raise QueueUnavailable if Redis does not answer, or cannot be used as it is."""
        if not self.eager:
            self.ledger.verify_server()

    def check(self) -> list[str]:
        """What of Redis's configuration would break a promise, in words; empty: nothing."""
        return [] if self.eager else list(self.ledger.warnings())
