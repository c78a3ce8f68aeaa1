"""What an operator does with messages and events: look up, cancel, send again, settle, repair."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from smsqueue.exc import DamagedRecord, QueueUnavailable
from smsqueue.logs import get_logger, transition
from smsqueue.message.masking import mask
from smsqueue.message.messages import check_category, check_tag
from smsqueue.message.numbers import destination_digits, searched_address
from smsqueue.message.opt_outs import OptOutChange, scope_of
from smsqueue.message.states import SETTLED_BY_HAND, WAITING, State
from smsqueue.settings import Settings

if TYPE_CHECKING:
    from smsqueue.broker.queue import Queue
    from smsqueue.ledger import Action, AuditEntry, Damaged, Ledger, Progress, Record
    from smsqueue.ledger.script_values import Cancelled, Requeued

__all__ = ["Connected", "Operator"]

log = get_logger(__name__)

_NO_DETAILS: Mapping[str, object] = {}

Answer = TypeVar("Answer", "Cancelled", "Requeued")


class Connected(Protocol):
    """What an operator needs of a gateway."""

    settings: Settings

    @property
    def operator_name(self) -> str: ...

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

    def find(
        self,
        number: str | None,
        *,
        idempotency_key: str | None,
        msgid: object,
        provider: str | None,
        tag: str | None,
        context: Mapping[str, Any] | None,
        limit: int | None,
    ) -> list[Record]:
        ledger = self._gateway.ledger
        from smsqueue.ledger import ContextValue, Search  # an eager gateway works without Redis

        values = [ContextValue.of(name, value) for name, value in (context or {}).items()]
        region = self._gateway.settings.region
        search = Search(
            address=None if number is None else searched_address(number, region),
            idempotency_key=idempotency_key,
            msgid=None if msgid is None else str(msgid),
            provider=provider,
            tag=tag,
            context=tuple(values),
        )
        if not search:
            raise ValueError(
                "find() needs a number, or one of idempotency_key=, msgid=, tag= and context="
            )
        pages = ledger.search(search, on_damaged=_log_damaged)
        return list(islice((record for page in pages for record in page.records), limit))

    def progress(self, tag: str) -> Progress:
        return self._gateway.ledger.progress(check_tag(tag))

    # --- opt-outs ------------------------------------------------------------------------------

    def opt_out(
        self,
        number: str,
        sender: str | None,
        category: str | None,
        reason: str,
        by: str | Action | None,
    ) -> bool:
        change = OptOutChange(_checked_scope(sender, category), reason, "operator")
        return self._change_opt_out("opt out", number, sender, category, change, by)

    def opt_in(
        self, number: str, sender: str | None, category: str | None, by: str | Action | None
    ) -> bool:
        change = OptOutChange(_checked_scope(sender, category), "", "operator", ends=True)
        return self._change_opt_out("opt in", number, sender, category, change, by)

    def _change_opt_out(
        self,
        name: str,
        number: str,
        sender: str | None,
        category: str | None,
        change: OptOutChange,
        by: str | Action | None,
    ) -> bool:
        digits = destination_digits(number, self._gateway.settings.region)
        details = {"number": digits, "src": sender, "category": category}
        action = self._action(name, by, details)
        return self._gateway.ledger.change_opt_out(digits, change, action=action)

    # --- the audit -----------------------------------------------------------------------------

    def _action(
        self, name: str, by: str | Action | None, details: Mapping[str, object] = _NO_DETAILS
    ) -> Action:
        """The action that an operation is a part of.

        Args:
            by: That action, or who does this; None: the gateway's ``operator_name``.
            details: Filters and arguments; those that are None are left out.
        """
        # An eager gateway works without Redis.
        from smsqueue.ledger.audit import Action, checked_name, host_name

        if isinstance(by, Action):
            return by
        return Action(
            name,
            checked_name(self._gateway.operator_name if by is None else by),
            host_name(),
            {k: _shown(k, v) for k, v in details.items() if v not in (None, (), "", False)},
        )

    @contextmanager
    def acting(
        self, name: str, details: Mapping[str, object], *, by: str | None, matched: int | None
    ) -> Iterator[Action]:
        ledger = self._gateway.ledger
        action = replace(self._action(name, by, details), single=False)
        ledger.begin_action(action, matched)
        try:
            yield action
        except BaseException:
            with suppress(QueueUnavailable):  # its entry shows that it did not end
                ledger.end_action(action, interrupted=True)
            raise
        ledger.end_action(action)

    def audit(
        self, since: datetime | None, by: str | None, action: str | None
    ) -> Iterator[AuditEntry]:
        return self._gateway.ledger.audit(since=since, by=by, action=action)

    # --- messages and events -------------------------------------------------------------------

    def cancel(self, id: str, by: str | Action | None) -> bool:
        action = self._action("cancel", by)
        answer = _known(id, self._gateway.ledger.cancel(id, action=action))
        if answer.before not in WAITING:
            return False
        transition(log, id, State.CANCELLED, why="by an operator")
        if answer.publish:
            self._gateway.queue.deliver([(id, 0)])
        self._gateway.queue.hook([answer.event])
        return True

    def requeue(
        self,
        id: str,
        expires: float | None,
        *,
        bulk: bool,
        states: Collection[str],
        by: str | Action | None,
    ) -> bool:
        action = self._action("requeue", by, {"expires": expires})
        answer = _known(
            id,
            self._gateway.ledger.requeue(id, expires, bulk=bulk, states=states, action=action),
        )
        if answer.before not in states:
            return False
        transition(log, id, answer.state, why="by an operator")
        if answer.publish:
            self._gateway.queue.deliver([(id, 0)])
        return True

    def settle(self, id: str, state: State | str, by: str | Action | None) -> bool:
        if state not in SETTLED_BY_HAND:
            allowed = ", ".join(sorted(SETTLED_BY_HAND))
            raise ValueError(f"a message cannot be settled as {state!r}, only as {allowed}")
        action = self._action("settle", by, {"state": state})
        answer = _known(id, self._gateway.ledger.decide(id, State(state), action=action))
        if answer.before != State.UNKNOWN:
            return False
        transition(log, id, state, why="by an operator")
        if answer.publish:
            self._gateway.queue.deliver([(id, 0)])
        return True

    def replay(self, event: str, by: str | Action | None) -> bool:
        action = self._action("replay", by)
        answer = self._gateway.ledger.replay(event, everything=True, action=action)
        if answer.before == "gone":
            raise LookupError(f"no event has the id {event!r}")
        if answer.before not in ("dead", "unheard", "done"):
            return False
        self._gateway.queue.hook([answer.event])
        return True

    def repair(self, id: str, by: str | Action | None) -> tuple[str, list[str]]:
        ledger = self._gateway.ledger
        record = ledger.examine(id)
        state, event, causes = ledger.repair(
            *(id, record.kind),
            readable=record.readable,
            drop=record.unreadable_fields,
            action=self._action("repair", by),
        )
        if state == "gone":
            raise LookupError(f"no message and no event has the id {id!r}")
        if state == "beyond":
            raise DamagedRecord("; ".join(causes), id, mendable=False)
        if causes:
            transition(log, id, state, why="repaired by an operator")
        self._gateway.queue.hook([event or ""])
        return state, causes

    def remove(self, id: str, by: str | Action | None) -> bool:
        ledger = self._gateway.ledger
        if ledger.damaged_entry(id) is None and ledger.is_sound(id):
            return False
        if not ledger.remove(id, action=self._action("remove", by)):
            raise LookupError(f"no message and no event has the id {id!r}")
        log.warning("%s: removed by an operator, as it was damaged", id, extra={"id": id})
        return True


#: Details that are phone numbers, which the audit shows masked.
_NUMBERS = ("number", "to", "src", "dst")


def _shown(name: str, value: object) -> str:
    """A filter or an argument as the audit shows it."""
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(_shown(name, each) for each in value)
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return mask(str(value)) if name in _NUMBERS else str(value)


def _log_damaged(damaged: Damaged) -> None:
    log.warning("%s: %s", damaged.id, damaged.cause, extra={"id": damaged.id})


def _checked_scope(sender: str | None, category: str | None) -> str:
    if category is not None:
        check_category("category", category)
    return scope_of(sender, category)


def _known(id: str, answer: Answer) -> Answer:
    """The ledger's answer about a message that is there."""
    if answer.before == "gone":
        raise LookupError(f"no message has the id {id!r}")
    return answer
