"""Bulk operations on messages and events: cancel, requeue, settle, replay, repair.

A command acts on ids or on the messages that filters select, one after the other. If an operation
is not possible for one of them, the command goes on with the others.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from smsqueue import exc
from smsqueue.cli.gateways import open_gateway
from smsqueue.cli.options import MessageFilters, filter_options, json_option
from smsqueue.cli.output import (
    format_count,
    is_interactive,
    make_console,
    print_json,
    printable,
)
from smsqueue.gateway import Gateway
from smsqueue.ledger import Action
from smsqueue.message.states import (
    DAMAGED,
    REQUEUED_FROM,
    SETTLED_BY_HAND,
    WAITING,
    EventState,
    State,
)

__all__ = ["cancel", "repair", "replay", "requeue", "settle"]

_SETTLEABLE = (State.UNKNOWN,)
_REPLAYABLE = (EventState.DEAD, EventState.UNHEARD, EventState.DONE)

#: Up to this many results are printed one by one; more have a progress bar and a summary.
_FEW = 20


# --- Commands ----------------------------------------------------------------


def _selection_options(*states: State) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add ids, the filters for messages in some states, and the options of bulk operations."""
    decorators: list[Callable[..., Any]] = [
        click.argument("ids", metavar="[ID...|-]", nargs=-1),
        filter_options(states),
        click.option("--dry-run", is_flag=True, help="Print what would be done, change nothing."),
        click.option("--yes", is_flag=True, help="Do not ask for confirmation."),
        json_option,
    ]

    def add_options(command: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return add_options


def _validate_minutes(
    context: click.Context, option: click.Parameter, value: float | None
) -> float | None:
    if value is not None and not 0 < value < 5_256_000:  # NaN is refused as well
        raise click.BadParameter("must be between 0 minutes and ten years")
    return value


@click.command()
@_selection_options(*WAITING)
def cancel(
    ids: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool, **filter_values: Any
) -> None:
    """Cancel messages that wait to be sent.

    Select them by id ('-': read ids from standard input), or by filters, including --state.
    """

    def cancel_one(gateway: Gateway, id: str, bulk: bool, action: Action) -> bool:
        return gateway.cancel(id, by=action)

    operation = Operation(
        name="cancel",
        verb="Cancel",
        done="cancelled",
        new_state=State.CANCELLED,
        states=WAITING,
        rule="only queued, scheduled or retrying messages can be cancelled",
        run=cancel_one,
    )
    _run_on_messages(operation, ids, MessageFilters(**filter_values), dry_run, yes, as_json)


@click.command()
@_selection_options(*REQUEUED_FROM)
@click.option(
    "--expires",
    type=float,
    callback=_validate_minutes,
    metavar="MINUTES",
    help="Validity from now. Default: as long as before.",
)
def requeue(
    ids: tuple[str, ...],
    expires: float | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **filter_values: Any,
) -> None:
    """Send failed, expired, undelivered, cancelled or unknown messages again.

    Select them by id ('-': read ids from standard input), or by filters, including --state.
    An unknown message may have arrived; then it arrives twice.
    """
    filters = MessageFilters(**filter_values)
    if State.UNKNOWN in filters.states:
        click.echo("warning: unknown messages may have arrived; those arrive twice", err=True)

    def requeue_one(gateway: Gateway, id: str, bulk: bool, action: Action) -> bool:
        states = filters.states or REQUEUED_FROM
        return gateway.requeue(id, expires, bulk=bulk, states=states, by=action)

    operation = Operation(
        name="requeue",
        details={"expires": expires},
        verb="Send again",
        done="queued again",
        new_state=State.QUEUED,
        states=REQUEUED_FROM,
        rule="only failed, expired, undelivered, cancelled or unknown messages can be sent again",
        run=requeue_one,
    )
    _run_on_messages(operation, ids, filters, dry_run, yes, as_json)


@click.command()
@_selection_options(*_SETTLEABLE)
@click.option(
    "--as",
    "state",
    required=True,
    type=click.Choice(sorted(map(str, SETTLED_BY_HAND))),
    help="The state to set.",
)
def settle(
    ids: tuple[str, ...], state: str, dry_run: bool, yes: bool, as_json: bool, **filter_values: Any
) -> None:
    """Set the state of unknown messages.

    Select them by id ('-': read ids from standard input), or by filters, including --state.
    """

    def settle_one(gateway: Gateway, id: str, bulk: bool, action: Action) -> bool:
        return gateway.settle(id, state, by=action)

    operation = Operation(
        name="settle",
        details={"state": state},
        verb=f"Settle as {state}",
        done=f"settled as {state}",
        new_state=state,
        states=_SETTLEABLE,
        rule="only unknown messages can be settled by hand",
        run=settle_one,
    )
    _run_on_messages(operation, ids, MessageFilters(**filter_values), dry_run, yes, as_json)


@click.command()
@click.argument("events", metavar="EVENT...|-", nargs=-1, required=True)
@json_option
def replay(events: tuple[str, ...], as_json: bool) -> None:
    """Run all handlers of dead, unheard or done events again.

    '-': read ids from standard input.
    """

    def replay_one(gateway: Gateway, id: str, bulk: bool, action: Action) -> bool:
        return gateway.replay(id, by=action)

    operation = Operation(
        name="replay",
        verb="Replay",
        done="given to all handlers again",
        new_state=EventState.WAITING,
        states=_REPLAYABLE,
        rule="only dead, unheard or done events can be replayed",
        run=replay_one,
    )
    with open_gateway() as gateway:
        _run(gateway, operation, Selection(gateway, events), dry_run=False, as_json=as_json)


@click.command()
@click.argument("ids", metavar="ID...|-", nargs=-1, required=True)
@click.option("--remove", is_flag=True, help="Delete the records for good.")
@click.option("--yes", is_flag=True, help="Do not ask before records are removed.")
@json_option
def repair(ids: tuple[str, ...], remove: bool, yes: bool, as_json: bool) -> None:
    """Repair damaged messages and events, so that they continue in their state.

    A message that a provider may have received becomes unknown, so nothing is sent twice. Records
    that cannot be repaired can only be removed. '-': read ids from standard input.
    """

    def repair_one(gateway: Gateway, id: str, bulk: bool, action: Action) -> bool:
        if remove:
            return gateway.remove(id, by=action)
        state, causes = gateway.repair(id, by=action)
        if causes and not as_json:
            click.echo(f"{printable(id)}: {printable('; '.join(causes))}; it is {state} now")
        return bool(causes)

    operation = Operation(
        name="remove" if remove else "repair",
        verb="Remove" if remove else "Repair",
        done="removed" if remove else "repaired",
        new_state="removed" if remove else "repaired",
        states=(),
        rule="its record is not damaged",
        run=repair_one,
    )
    with open_gateway() as gateway:
        selection = Selection(gateway, ids)
        if remove and not yes and selection.number_of_ids:
            _confirm(selection, operation.verb)
        _run(gateway, operation, selection, dry_run=False, as_json=as_json)


# --- Selection ---------------------------------------------------------------


class Selection:
    """Ids to act on, and their states as far as they are known.

    Each iteration evaluates the filters again, page by page. They select only messages that were
    in their state when the selection was created: a message that the operation moves to another
    state is not selected there.

    Args:
        ids: None: the filters select.
    """

    def __init__(
        self, gateway: Gateway, ids: Iterable[str] | None, filters: MessageFilters | None = None
    ) -> None:
        self._gateway = gateway
        self._ids = None if ids is None else _read_ids(ids)
        self._filters = filters
        self._states = [State(state) for state in filters.states] if filters else []
        self._newest = gateway.ledger.newest(self._states) if self._states else {}

    def __iter__(self) -> Iterator[tuple[str, str | None]]:
        if self._ids is not None:
            yield from ((id, None) for id in self._ids)
        elif self._filters:
            records = self._filters.select(self._gateway, self._states, self._newest)
            for record in islice(records, self._filters.limit):
                yield record.id, str(record.state)

    @property
    def details(self) -> dict[str, object]:
        """The filters, for the audit."""
        return vars(self._filters) if self._filters else {}

    @property
    def number_of_ids(self) -> int | None:
        """The number of ids; None if filters select."""
        return None if self._ids is None else len(self._ids)

    def count(self) -> int:
        """The number of ids, or of the messages that the filters select now."""
        return sum(1 for _ in self) if self._ids is None else len(self._ids)


def _read_ids(ids: Iterable[str]) -> list[str]:
    """The ids without duplicates; ``-`` stands for those on standard input."""
    unique: dict[str, None] = {}
    for id in ids:
        unique.update(dict.fromkeys(sys.stdin.read().split() if id == "-" else [id]))
    return list(unique)


def _select(gateway: Gateway, ids: Iterable[str], filters: MessageFilters) -> Selection:
    """Select messages by ids or filters, but not both."""
    if ids and filters:
        raise click.UsageError("give ids or filters, not both")
    if ids:
        return Selection(gateway, ids)
    if not filters:
        raise click.UsageError(
            "which messages? Give their ids, '-' for ids on standard input, or --state"
        )
    if not filters.states:
        raise click.UsageError("filters need --state: no command acts on messages of all states")
    return Selection(gateway, None, filters)


def _confirm(selection: Selection, verb: str) -> None:
    """Ask for confirmation, but only at a terminal: scripts need no --yes."""
    if is_interactive():
        messages = format_count(selection.count(), "message")
        click.confirm(f"{verb} {messages}?", abort=True, err=True)


# --- Running an operation ----------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """What a command does to each message or event."""

    #: For the audit.
    name: str
    #: In a question, as ``Cancel``; and in the result, as ``cancelled``.
    verb: str
    done: str
    #: The state after it.
    new_state: str
    #: The states that it is possible in.
    states: Collection[str]
    #: The error text for other states.
    rule: str
    #: Called with an id, whether it is one of many, and the action for the audit; False: not
    #: possible in its state.
    run: Callable[[Gateway, str, bool, Action], bool]
    #: Its arguments, for the audit.
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class _Result:
    id: str
    done: bool
    #: The state now; None: there is no such record.
    state: str | None
    problem: str | None


@dataclass
class _Summary:
    done: int = 0
    #: Number of those for which it was not possible, by state.
    refused: Counter[str] = field(default_factory=Counter)
    #: The first of these; and all results, if they are to be printed.
    failures: list[_Result] = field(default_factory=list)
    results: list[_Result] | None = None

    @property
    def tried(self) -> int:
        return self.done + self.refused.total()

    def add(self, result: _Result) -> None:
        self.done += result.done
        if not result.done:
            self.refused[result.state or "gone"] += 1
            if len(self.failures) < _FEW:
                self.failures.append(result)
        if self.results is not None:
            self.results.append(result)


def _run_on_messages(
    operation: Operation,
    ids: tuple[str, ...],
    filters: MessageFilters,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    with open_gateway() as gateway:
        selection = _select(gateway, ids, filters)
        empty = next(iter(selection), None) is None
        if filters and not (empty or dry_run or yes):
            _confirm(selection, operation.verb)
        if empty and not as_json:
            click.echo("no message matches" if filters else "no ids on standard input")
        _run(gateway, operation, selection, dry_run=dry_run, as_json=as_json)


def _run(
    gateway: Gateway, operation: Operation, selection: Selection, *, dry_run: bool, as_json: bool
) -> None:
    """Run an operation on each selected id, and print the results.

    The exit code is 1 if it was not possible for some.
    """
    summary, interruption = _Summary(results=[] if as_json else None), None
    iterator = iter(selection)
    first = list(islice(iterator, _FEW + 1))
    few, several = len(first) <= _FEW, len(first) > 1
    total = len(first) if few else selection.number_of_ids
    console = make_console(stderr=True)
    columns = (TextColumn(operation.done), BarColumn(), MofNCompleteColumn())
    acting = (
        nullcontext(None)
        if dry_run or not first
        else gateway.acting(
            operation.name, {**operation.details, **selection.details}, matched=total
        )
    )
    with (
        acting as action,
        Progress(*columns, console=console, disable=few or not console.is_terminal) as progress,
    ):
        bar = progress.add_task(operation.done, total=total)
        try:
            for id, state in chain(first, iterator):
                result = (
                    _predict(gateway, operation, id, state)
                    if action is None
                    else _run_one(gateway, operation, id, action, bulk=several)
                )
                summary.add(result)
                progress.advance(bar)
                if few and not as_json:
                    _print_result(result, operation, dry_run)
        except (exc.QueueUnavailable, KeyboardInterrupt) as error:
            interruption = error
    if interruption and action:
        with suppress(exc.QueueUnavailable):  # its entry shows that it did not end
            gateway.ledger.end_action(action, interrupted=True)
    not_tried = 0 if interruption is None else None if total is None else total - summary.tried
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "done": summary.done,
                "not_done": summary.refused.total() + (not_tried or 0),
                "results": [vars(result) for result in summary.results or ()],
            }
        )
    elif several:
        if not few:
            for result in summary.failures:
                _print_result(result, operation, dry_run)
        click.echo(_format_summary(summary, operation, not_tried, dry_run))
    if isinstance(interruption, KeyboardInterrupt):
        raise click.Abort
    if interruption:
        raise click.ClickException(
            f"{interruption}. Then run the same command again: it does nothing twice"
        )
    if summary.refused:
        raise click.exceptions.Exit(1)


def _run_one(
    gateway: Gateway, operation: Operation, id: str, action: Action, *, bulk: bool
) -> _Result:
    try:
        if operation.run(gateway, id, bulk, action):
            return _Result(id, True, operation.new_state, None)
    except LookupError as error:
        return _Result(id, False, None, str(error))
    except exc.DamagedRecord as error:
        problem = (
            f"it is damaged ({error.cause}): smsqueue repair {id}"
            if error.mendable
            else f"it cannot be repaired ({error.cause}), remove it with: "
            f"smsqueue repair {id} --remove"
        )
        return _Result(id, False, DAMAGED, problem)
    return _refusal(operation, id, _state(gateway, id))


def _predict(gateway: Gateway, operation: Operation, id: str, state: str | None) -> _Result:
    state = state or _state(gateway, id)
    if state in operation.states:
        return _Result(id, True, state, None)
    return _refusal(operation, id, state)


def _refusal(operation: Operation, id: str, state: str | None) -> _Result:
    if state == DAMAGED:
        return _Result(id, False, state, f"it is damaged: smsqueue repair {id}")
    return _Result(id, False, state, f"it is {state}: {operation.rule}" if state else "it is gone")


def _state(gateway: Gateway, id: str) -> str | None:
    """The state of a message or an event; None if there is none."""
    try:
        record = gateway.ledger.read(id)
        if record is not None:
            return str(record.state)
        return (gateway.ledger.read_event(id) or {}).get("state")
    except exc.DamagedRecord:
        return DAMAGED


def _print_result(result: _Result, operation: Operation, dry_run: bool) -> None:
    done = f"is {result.state}, would be {operation.done}" if dry_run else operation.done
    text = done if result.done else result.problem
    click.echo(f"{printable(result.id)}: {printable(text)}", err=not result.done)


def _format_summary(
    summary: _Summary, operation: Operation, not_tried: int | None, dry_run: bool
) -> str:
    """``"497 queued again, 3 not: 2 delivered, 1 gone"``.

    Args:
        not_tried: None: it is not known how many.
    """
    text = f"{summary.done} {'would be ' if dry_run else ''}{operation.done}"
    if summary.refused:
        states = ", ".join(f"{number} {state}" for state, number in summary.refused.most_common())
        text += f", {summary.refused.total()} not: {states}"
    if not_tried == 0:
        return text
    return f"{text}, {'the others' if not_tried is None else not_tried} not tried"
