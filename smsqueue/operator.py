"""What an operator does with messages and events: look up, cancel, send again, settle, repair."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar

from smsqueue.exc import DamagedRecord, QueueUnavailable
from smsqueue.logs import get_logger, transition
from smsqueue.message.masking import mask
from smsqueue.message.messages import check_category, check_tag
from smsqueue.message.numbers import destination_digits, searched_address
from smsqueue.message.opt_outs import OptOutChange, scope_of
from smsqueue.message.states import (
    DAMAGED,
    ENDED_EVENTS,
    REQUEUED_FROM,
    SETTLED_BY_HAND,
    WAITING,
    State,
)
from smsqueue.settings import Settings

if TYPE_CHECKING:
    from smsqueue.broker.queue import Queue
    from smsqueue.ledger import (
        Action,
        AuditEntry,
        BulkOperation,
        BulkStep,
        Damaged,
        Ledger,
        OperatorPause,
        Progress,
        Record,
    )
    from smsqueue.ledger.script_values import Cancelled, Requeued

__all__ = ["BulkResult", "BulkRun", "Connected", "Filters", "OnStep", "Operator"]

log = get_logger(__name__)

_LONGEST_REASON = 200
_LONGEST_PAUSE = 10 * 365 * 86400.0
_NO_DETAILS: Mapping[str, object] = {}

Answer = TypeVar("Answer", "Cancelled", "Requeued")

OnStep = Callable[["BulkStep"], None]


class Filters(TypedDict, total=False):
    """Which messages or events a bulk operation is about; what is missing restricts nothing."""

    #: These, and no other filter.
    ids: Iterable[str]
    #: In one of these states.
    state: str | Collection[str]
    #: With all of these tags.
    tag: str | Collection[str]
    #: The provider of the last attempt; of an event, the provider that it came from.
    provider: str
    #: Class, or provider's code, of the last error.
    error: str
    #: To this number, in any notation.
    number: str
    #: They entered their state at this time or later; at this time or earlier.
    since: datetime
    before: datetime
    #: At most so many, the newest first.
    limit: int


@dataclass(frozen=True)
class BulkRun:
    """How a bulk operation is run."""

    #: Change nothing, and count what would be done.
    dry_run: bool = False
    #: Called after each step. What it raises ends the run.
    on_step: OnStep | None = None
    #: Single messages come before these; None: unless a single id is given.
    bulk: bool | None = None
    #: Who does it, or the action that it is a part of; None: the gateway's ``operator_name``.
    by: str | Action | None = None


@dataclass(frozen=True)
class BulkResult:
    """How many messages or events a bulk operation changed, or would change."""

    dry_run: bool
    #: How many were changed, by their state before.
    done: Mapping[str, int] = field(default_factory=dict)
    #: For how many it was not possible, by their state; "gone" and "damaged" are also used.
    not_done: Mapping[str, int] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """How many were changed, or would be."""
        return sum(self.done.values())

    @property
    def number_not_done(self) -> int:
        """For how many it was not possible."""
        return sum(self.not_done.values())


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

        if not isinstance(context, Mapping | None):
            raise TypeError(f"context must be a dict, not {type(context).__name__}")
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
        if not isinstance(reason, str):
            raise TypeError(f"reason must be text, not {type(reason).__name__}")
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
        from smsqueue.ledger.audit_log import Action, checked_name, host_name

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

    # --- pauses --------------------------------------------------------------------------------

    def pause(
        self,
        scope: str,
        reason: str,
        *,
        length: timedelta | float | None,
        until: datetime | None,
        by: str | Action | None,
    ) -> OperatorPause:
        if length is not None and until is not None:
            raise ValueError("give the length of the pause or its end, not both")
        seconds = length.total_seconds() if isinstance(length, timedelta) else length
        if seconds is not None and not 0 < seconds <= _LONGEST_PAUSE:
            raise ValueError("a pause takes more than 0 seconds and at most ten years")
        if until is not None and until.utcoffset() is None:
            raise ValueError("the end of a pause needs a time zone")
        if len(reason) > _LONGEST_REASON or not reason.isprintable():
            raise ValueError(
                f"the reason of a pause is at most {_LONGEST_REASON} characters, in one line"
            )
        details = _named(scope) | {"reason": reason, "seconds": seconds, "until": until}
        action = self._action("pause", by, details)
        pause = self._gateway.ledger.pause(
            scope, by=action.by, reason=reason, until=until, seconds=seconds, action=action
        )
        log.warning("%s is paused by %s", pause, action.by)
        return pause

    def resume(self, scope: str, by: str | Action | None) -> bool:
        action = self._action("resume", by, _named(scope))
        if self._gateway.ledger.resume(scope, action=action) is None:
            return False
        log.warning("%s is resumed by %s", scope, action.by)
        return True

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
        _check_settled_as(state)
        action = self._action("settle", by, {"as": state})
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

    def cancel_all(self, filters: Filters, how: BulkRun) -> BulkResult:
        from smsqueue.ledger import BulkOperation

        operation = BulkOperation("cancel", WAITING)
        # One that is being sent is counted, unless the states are given.
        return self._run(operation, {}, filters, (*sorted(WAITING), State.SENDING), how)

    def requeue_all(self, expires: float | None, filters: Filters, how: BulkRun) -> BulkResult:
        from smsqueue.ledger import BulkOperation

        validity_ms = int(expires * 60_000) if expires else None
        operation = BulkOperation("requeue", REQUEUED_FROM, validity_ms)
        return self._run(operation, {"expires": expires}, filters, (), how)

    def settle_all(self, as_state: State | str, filters: Filters, how: BulkRun) -> BulkResult:
        from smsqueue.ledger import BulkOperation

        _check_settled_as(as_state)
        operation = BulkOperation("settle", frozenset({State.UNKNOWN}), to=str(as_state))
        return self._run(operation, {"as": as_state}, filters, (State.UNKNOWN,), how)

    def replay_all(self, filters: Filters, how: BulkRun) -> BulkResult:
        from smsqueue.ledger import BulkOperation

        return self._run(BulkOperation("replay", ENDED_EVENTS), {}, filters, (), how)

    def _run(
        self,
        operation: BulkOperation,
        arguments: Mapping[str, object],
        filters: Filters,
        usual: Collection[str],
        how: BulkRun,
    ) -> BulkResult:
        """Run a bulk operation step by step.

        Args:
            arguments: Those of the operation, for the audit.
            usual: The states if none is given; empty: they have to be given.
        """
        done, not_done = Counter[str](), Counter[str]()
        queue, by = self._gateway.queue, how.by
        select = self._selector(operation, filters, usual, how)
        acting: AbstractContextManager[Action | None] = nullcontext()
        if isinstance(by, str | None) and not how.dry_run:
            details = {**filters, **arguments}
            details.pop("ids", None)
            acting = self.acting(operation.name, details, by=by, matched=None)
        elif not isinstance(by, str | None):
            acting = nullcontext(by)
        with acting as action:
            for step in select(action):
                queue.deliver([(id, 0) for id in step.messages])
                queue.hook(step.events)
                for id, before, now in step.changes:
                    (done if now else not_done)[before] += 1
                    if now and not how.dry_run:
                        transition(log, id, now, why="by an operator", level=logging.DEBUG)
                not_done[DAMAGED] += len(step.failures)
                if how.on_step is not None:
                    how.on_step(step)
        if done and not how.dry_run:
            log.info("%s: %d by an operator", operation.name, done.total())
        return BulkResult(how.dry_run, dict(done), dict(+not_done))

    def _selector(
        self, operation: BulkOperation, filters: Filters, usual: Collection[str], how: BulkRun
    ) -> Callable[[Action | None], Iterator[BulkStep]]:
        """Validate the filters; returns what runs the steps.

        Raises:
            ValueError: there are no filters, or they contradict each other.
        """
        from smsqueue.ledger import Selection

        ledger = self._gateway.ledger
        if "ids" in filters:
            if len(filters) > 1:
                raise ValueError("give ids or filters, not both")
            ids = iter(filters["ids"])
            first = list(islice(ids, 2))
            several = len(first) > 1 if how.bulk is None else how.bulk
            return lambda action: ledger.bulk_by_ids(
                operation, chain(first, ids), dry=how.dry_run, bulk=several, action=action
            )
        states = _texts(filters.get("state", ())) or tuple(usual)
        possible = ", ".join(sorted(operation.possible))
        if not filters.keys() - {"limit"}:
            raise ValueError("which ones? Give ids, or filters such as state, tag or provider")
        if not states:
            raise ValueError(f"filters need state: which of {possible}?")
        impossible = set(states) - operation.possible - set(usual)
        if impossible:
            raise ValueError(
                f"{operation.name} is not possible in state {min(impossible)!r}, only in {possible}"
            )
        tags = tuple(check_tag(tag) for tag in _texts(filters.get("tag", ())))
        number = filters.get("number")
        selection = Selection(
            states=states,
            provider=filters.get("provider"),
            error=filters.get("error"),
            tags=tags,
            number=number and searched_address(number, self._gateway.settings.region),
            since=filters.get("since"),
            before=filters.get("before"),
            limit=filters.get("limit"),
        )
        several = how.bulk is not False
        return lambda action: ledger.bulk(
            operation, selection, dry=how.dry_run, bulk=several, action=action
        )

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


def _named(scope: str) -> dict[str, object]:
    """A scope of pauses as details of an action."""
    kind, _, name = scope.partition(":")
    return {kind: name} if name else {"everything": "yes"}


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
    if sender == "":
        raise ValueError("the sender is empty: leave it out for all senders")
    return scope_of(sender, category)


def _check_settled_as(state: State | str) -> None:
    if state not in SETTLED_BY_HAND:
        allowed = ", ".join(sorted(SETTLED_BY_HAND))
        raise ValueError(f"a message cannot be settled as {state!r}, only as {allowed}")


def _texts(value: str | Collection[str]) -> tuple[str, ...]:
    """One text, or several."""
    return (str(value),) if isinstance(value, str) else tuple(map(str, value))


def _known(id: str, answer: Answer) -> Answer:
    """The ledger's answer about a message that is there."""
    if answer.before == "gone":
        raise LookupError(f"no message has the id {id!r}")
    return answer
