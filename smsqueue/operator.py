"""What an operator does with messages and events: look up, cancel, send again, settle, repair."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeVar

from smsqueue.exc import DamagedRecord
from smsqueue.logs import get_logger, transition
from smsqueue.message.messages import check_tag
from smsqueue.message.numbers import searched_address
from smsqueue.message.states import SETTLED_BY_HAND, WAITING, State
from smsqueue.settings import Settings

if TYPE_CHECKING:
    from smsqueue.broker.queue import Queue
    from smsqueue.ledger import Ledger, Progress, Record
    from smsqueue.ledger.script_values import Cancelled, Requeued

__all__ = ["Connected", "Operator"]

log = get_logger(__name__)

Answer = TypeVar("Answer", "Cancelled", "Requeued")


class Connected(Protocol):
    """What an operator needs of a gateway."""

    settings: Settings

    @property
    def ledger(self) -> Ledger: ...

    @property
    def queue(self) -> Queue: ...


class Operator:
    """The methods of ``Gateway`` that read or change what the ledger holds; see there."""

    def __init__(self, gateway: Connected) -> None:
        self._gateway = gateway

    def lookup(self, id: str) -> Record:
        record = self._gateway.ledger.read(id)
        if record is None:
            days = self._gateway.settings.retention / 86400
            raise LookupError(f"no message has the id {id!r} (records are kept for {days:g} days)")
        return record

    def find(self, number: str, *, limit: int | None = None) -> list[Record]:
        address = searched_address(number, self._gateway.settings.region)
        return list(islice(self._records_of(address), limit))

    def _records_of(self, address: str) -> Iterator[Record]:
        ledger = self._gateway.ledger
        for id in ledger.find(address):
            try:
                record = ledger.read(id)
            except DamagedRecord as error:
                log.warning("%s", error, extra={"id": id})
                continue
            if record is not None:
                yield record

    def progress(self, tag: str) -> Progress:
        return self._gateway.ledger.progress(check_tag(tag))

    def cancel(self, id: str) -> bool:
        answer = _known(id, self._gateway.ledger.cancel(id))
        if answer.before not in WAITING:
            return False
        transition(log, id, State.CANCELLED, why="by an operator")
        if answer.publish:
            self._gateway.queue.deliver([(id, 0)])
        self._gateway.queue.hook([answer.event])
        return True

    def requeue(
        self, id: str, expires: float | None, *, bulk: bool, states: Collection[str]
    ) -> bool:
        answer = _known(id, self._gateway.ledger.requeue(id, expires, bulk=bulk, states=states))
        if answer.before not in states:
            return False
        transition(log, id, answer.state, why="by an operator")
        if answer.publish:
            self._gateway.queue.deliver([(id, 0)])
        return True

    def settle(self, id: str, state: State | str) -> bool:
        if state not in SETTLED_BY_HAND:
            allowed = ", ".join(sorted(SETTLED_BY_HAND))
            raise ValueError(f"a message cannot be settled as {state!r}, only as {allowed}")
        answer = _known(id, self._gateway.ledger.decide(id, State(state)))
        if answer.before != State.UNKNOWN:
            return False
        transition(log, id, state, why="by an operator")
        if answer.publish:
            self._gateway.queue.deliver([(id, 0)])
        return True

    def replay(self, event: str) -> bool:
        answer = self._gateway.ledger.replay(event, everything=True)
        if answer.before == "gone":
            raise LookupError(f"no event has the id {event!r}")
        if answer.before not in ("dead", "unheard", "done"):
            return False
        self._gateway.queue.hook([answer.event])
        return True

    def repair(self, id: str) -> tuple[str, list[str]]:
        ledger = self._gateway.ledger
        record = ledger.examine(id)
        state, event, causes = ledger.repair(
            id, record.kind, readable=record.readable, drop=record.unreadable_fields
        )
        if state == "gone":
            raise LookupError(f"no message and no event has the id {id!r}")
        if state == "beyond":
            raise DamagedRecord("; ".join(causes), id, mendable=False)
        if causes:
            transition(log, id, state, why="repaired by an operator")
        self._gateway.queue.hook([event or ""])
        return state, causes

    def remove(self, id: str) -> bool:
        ledger = self._gateway.ledger
        if ledger.damaged_entry(id) is None and ledger.is_sound(id):
            return False
        if not ledger.remove(id):
            raise LookupError(f"no message and no event has the id {id!r}")
        log.warning("%s: removed by an operator, as it was damaged", id, extra={"id": id})
        return True


def _known(id: str, answer: Answer) -> Answer:
    """The ledger's answer about a message that is there."""
    if answer.before == "gone":
        raise LookupError(f"no message has the id {id!r}")
    return answer
