"""Bulk operations on messages and events: cancel, requeue, settle, replay, repair.

A command acts on ids, or on everything that its filters select. The ledger does so step by step,
each in a few milliseconds, so neither this process nor Redis holds a list of it, and single
messages go on. If an operation is not possible for a record, the command goes on with the others.
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import FrameType, TracebackType
from typing import Any, Self

import click
from click.core import ParameterSource
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from smsqueue import exc
from smsqueue.cli.gateways import open_gateway
from smsqueue.cli.options import (
    MessageFilters,
    filter_options,
    json_option,
    limit_type,
    parse_past_time,
)
from smsqueue.cli.output import format_count, is_interactive, make_console, printable
from smsqueue.gateway import Gateway
from smsqueue.ledger import Action, BulkStep
from smsqueue.message.states import (
    DAMAGED,
    ENDED_EVENTS,
    REQUEUED_FROM,
    SETTLED_BY_HAND,
    WAITING,
    State,
)
from smsqueue.operator import BulkResult, Filters, OnStep

__all__ = ["cancel", "repair", "replay", "requeue", "settle"]

#: Up to this many results are printed one by one; more have a progress bar and a summary.
_FEW = 20
#: Ids on standard input among which a repeated one is skipped.
_REMEMBERED_IDS = 10_000


# --- Commands ----------------------------------------------------------------


_ids_argument = click.argument("ids", metavar="[ID...|-]", nargs=-1)
_before_option = click.option(
    "--before",
    callback=parse_past_time,
    metavar="TIME",
    help="Only those that have been in their state for 30m, 2h or 1d, or since before an ISO time.",
)
_run_options = (
    click.option("--dry-run", is_flag=True, help="Count what would be done, change nothing."),
    click.option("--yes", is_flag=True, help="Do not ask for confirmation."),
    json_option,
)


def _selection_options(*states: State) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add ids, the filters for messages in some states, and the options of bulk operations."""
    decorators: list[Callable[..., Any]] = [
        _ids_argument,
        filter_options(states),
        click.option("--number", help="Only messages to this number."),
        _before_option,
        *_run_options,
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
def cancel(ids: tuple[str, ...], **values: Any) -> None:
    """Cancel messages that wait to be sent.

    Select them by id ('-': read ids from standard input), or by filters. Without --state, these
    select all that wait. A message that is being sent is not cancelled.
    """
    operation = Operation(
        name="cancel",
        verb="Cancel",
        done="cancelled",
        rule="only queued, scheduled or retrying messages can be cancelled",
        run=lambda gateway, **how: gateway.cancel_all(**how),
    )
    _run(operation, _Choice.of_messages(ids, values), values)


@click.command()
@_selection_options(*REQUEUED_FROM)
@click.option(
    "--expires",
    type=float,
    callback=_validate_minutes,
    metavar="MINUTES",
    help="Validity from now. Default: as long as before.",
)
def requeue(ids: tuple[str, ...], expires: float | None, **values: Any) -> None:
    """Send failed, expired, undelivered, cancelled or unknown messages again.

    Select them by id ('-': read ids from standard input), or by filters, including --state.
    An unknown message may have arrived; then it arrives twice.
    """
    choice = _Choice.of_messages(ids, values, states_needed=REQUEUED_FROM)
    if State.UNKNOWN in values["states"]:
        click.echo("warning: unknown messages may have arrived; those arrive twice", err=True)
    operation = Operation(
        name="requeue",
        details={"expires": expires},
        verb="Send again",
        done="queued again",
        rule="only failed, expired, undelivered, cancelled or unknown messages can be sent again",
        run=lambda gateway, **how: gateway.requeue_all(expires, **how),
    )
    _run(operation, choice, values)


@click.command()
@_selection_options(State.UNKNOWN)
@click.option(
    "--as",
    "state",
    required=True,
    type=click.Choice(sorted(map(str, SETTLED_BY_HAND))),
    help="The state to set.",
)
def settle(ids: tuple[str, ...], state: str, **values: Any) -> None:
    """Set the state of unknown messages.

    Select them by id ('-': read ids from standard input), or by filters.
    """
    operation = Operation(
        name="settle",
        details={"as": state},
        verb=f"Settle as {state}",
        done=f"settled as {state}",
        rule="only unknown messages can be settled by hand",
        run=lambda gateway, **how: gateway.settle_all(state, **how),
    )
    _run(operation, _Choice.of_messages(ids, values), values)


@click.command()
@click.argument("events", metavar="[EVENT...|-]", nargs=-1)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(sorted(map(str, ENDED_EVENTS))),
    help="All events in this state; may be repeated.",
)
@click.option("--provider", help="Only events of this provider.")
@click.option(
    "--since",
    callback=parse_past_time,
    metavar="TIME",
    help="Only events that entered their state in the last 30m, 2h or 1d, or since an ISO time.",
)
@_before_option
@click.option("--limit", type=limit_type, help="At most this many, the newest.")
def replay(events: tuple[str, ...], **values: Any) -> None:
    """Run all handlers of dead, unheard or done events again.

    Select them by id ('-': read ids from standard input), or by filters, including --state.
    """
    operation = Operation(
        name="replay",
        verb="Replay",
        done="given to all handlers again",
        rule="only dead, unheard or done events can be replayed",
        run=lambda gateway, **how: gateway.replay_all(**how),
        noun="event",
    )
    filters: Filters = {}
    for name in ("provider", "since", "before", "limit"):
        if values[name] is not None:
            filters[name] = values[name]
    if values["states"]:
        filters["state"] = values["states"]
    if events and filters:
        raise click.UsageError("give ids or filters, not both")
    if not events and not values["states"]:
        raise click.UsageError(
            "which events? Give their ids, '-' for ids on standard input, or --state"
        )
    _run(operation, _Choice(events, filters), values)


for _option in reversed(_run_options):
    replay = _option(replay)


@click.command()
@click.argument("ids", metavar="[ID...|-]", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All records that were set aside.")
@click.option("--remove", is_flag=True, help="Delete the records for good.")
@click.option("--yes", is_flag=True, help="Do not ask before records are removed.")
@json_option
def repair(ids: tuple[str, ...], everything: bool, remove: bool, yes: bool, as_json: bool) -> None:
    """Repair damaged messages and events, so that they continue in their state.

    A message that a provider may have received becomes unknown, so nothing is sent twice. Records
    that cannot be repaired can only be removed. '-': read ids from standard input.
    """
    if everything and ids:
        raise click.UsageError("give ids or --all, not both")
    if not everything and not ids:
        raise click.UsageError(
            "which records? Give their ids, or --all: see smsqueue list --damaged"
        )
    done = "removed" if remove else "repaired"

    def repair_one(gateway: Gateway, id: str, action: Action) -> _Result:
        try:
            if remove:
                changed = gateway.remove(id, by=action)
            else:
                state, causes = gateway.repair(id, by=action)
                changed = bool(causes)
                if causes and not as_json:
                    text = printable("; ".join(causes))
                    click.echo(f"{printable(id)}: {text}; it is {state} now")
        except LookupError as error:
            return _Result(id, False, None, str(error))
        except exc.DamagedRecord as error:
            return _Result(id, False, DAMAGED, _damage(id, error.cause, mendable=error.mendable))
        if changed:
            return _Result(id, True, done, None)
        return _Result(id, False, _state(gateway, id), "its record is not damaged")

    with open_gateway() as gateway:
        chosen = [one.id for one in gateway.ledger.damaged()] if everything else ids
        with _CtrlC() as ctrl_c:
            records = list(_read_ids(chosen, ctrl_c))
        if remove and not yes and records and is_interactive():
            click.confirm(f"Remove {format_count(len(records), 'message')}?", abort=True, err=True)
        report = _Report(done, dry_run=False, as_json=as_json, total=len(records))
        name = "remove" if remove else "repair"
        with (
            report.until_done("run the same command again: it does nothing twice") as ctrl_c,
            gateway.acting(name, {}, matched=len(records)) as action,
        ):
            for id in records:
                report.add([repair_one(gateway, id, action)])
                ctrl_c.check()


# --- What a command is about -------------------------------------------------


@dataclass(frozen=True)
class _Choice:
    """Ids, or filters."""

    ids: tuple[str, ...]
    filters: Filters

    @classmethod
    def of_messages(
        cls, ids: tuple[str, ...], values: dict[str, Any], states_needed: Collection[str] = ()
    ) -> Self:
        """The messages that the options of a command select.

        Args:
            states_needed: Filters need one of these states; empty: they need none.
        """
        number, before = values["number"], values["before"]
        names = MessageFilters.__dataclass_fields__
        chosen = MessageFilters(**{name: values[name] for name in names})
        filters: Filters = {}
        if chosen.states:
            filters["state"] = chosen.states
        for name, value in (
            ("provider", chosen.provider),
            ("error", chosen.error),
            ("tag", chosen.tag),
            ("since", chosen.since),
            ("limit", chosen.limit),
            ("number", number),
            ("before", before),
        ):
            if value is not None:
                filters[name] = value  # type: ignore[literal-required]
        if ids and filters:
            raise click.UsageError("give ids or filters, not both")
        if not ids and not filters.keys() - {"limit"}:
            raise click.UsageError(
                "which messages? Give their ids, '-' for ids on standard input, or filters such "
                "as --state"
            )
        if not ids and states_needed and not chosen.states:
            one_of = ", ".join(sorted(states_needed))
            raise click.UsageError(f"filters need --state, one or more of {one_of}")
        return cls(ids, filters)


def _read_ids(ids: Iterable[str], ctrl_c: _CtrlC) -> Iterator[str]:
    """The ids; ``-`` stands for those on standard input. Repeated ones are skipped, unless
    thousands of others are between them."""
    known: OrderedDict[str, None] = OrderedDict()
    for argument in ids:
        for id in _words_of_stdin(ctrl_c) if argument == "-" else [argument]:
            if id in known:
                continue
            known[id] = None
            if len(known) > _REMEMBERED_IDS:
                known.popitem(last=False)
            yield id


def _words_of_stdin(ctrl_c: _CtrlC) -> Iterator[str]:
    lines = iter(sys.stdin)
    while True:
        with ctrl_c.at_once():
            line = next(lines, None)
        if line is None:
            return
        yield from line.split()


# --- Running an operation ----------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """What a command does to each message or event."""

    #: For the audit.
    name: str
    #: In a question, as ``Cancel``; and in the result, as ``cancelled``.
    verb: str
    done: str
    #: The error text for other states.
    rule: str
    #: Called with a gateway, and the keywords of :meth:`Gateway.cancel_all`.
    run: Callable[..., BulkResult]
    noun: str = "message"
    #: Its arguments, for the audit.
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class _Result:
    id: str
    done: bool
    #: The state now; None: there is no such record.
    state: str | None
    problem: str | None
    #: The state before, if that is known.
    before: str | None = None


def _run(operation: Operation, choice: _Choice, values: dict[str, Any]) -> None:
    """Run an operation, and print the results.

    The exit code is 1 if it was not possible for some.
    """
    dry_run, as_json = values["dry_run"], values["as_json"]
    with open_gateway() as gateway:
        filters, began = choice.filters, datetime.fromtimestamp(gateway.ledger.now(), UTC)
        total = len(set(choice.ids)) if choice.ids and "-" not in choice.ids else None
        bulk = None
        if not choice.ids:
            # What enters a state while the question is on the screen is left alone, too.
            filters = filters | {"before": min(began, filters.get("before", began))}
            asks = is_interactive() and not dry_run and not values["yes"]
            if asks or (_shows_progress() and not dry_run and not as_json):
                counted = operation.run(gateway, dry_run=True, **filters)
                total = counted.number + counted.number_not_done
                bulk = total > 1
                if asks and counted.number:
                    click.confirm(_question(operation, counted), abort=True, err=True)
        report = _Report(
            operation.done,
            dry_run=dry_run,
            as_json=as_json,
            total=total,
            by_state=bool(not choice.ids and dry_run),
        )
        hint = _how_to_go_on(began, report) if not choice.ids else None
        with report.until_done(hint) as ctrl_c:
            selected = {"ids": _read_ids(choice.ids, ctrl_c)} if choice.ids else filters
            details = {**operation.details, **choice.filters}
            acting: AbstractContextManager[Action | None] = (
                nullcontext() if dry_run else gateway.acting(operation.name, details, matched=total)
            )
            with acting as action:
                operation.run(
                    gateway,
                    dry_run=dry_run,
                    bulk=bulk,
                    on_step=_reporter(operation, report, ctrl_c),
                    by=action,
                    **selected,
                )
            if not report.tried and not as_json:
                empty = "no ids on standard input" if choice.ids else f"no {operation.noun} matches"
                click.echo(empty)


def _reporter(operation: Operation, report: _Report, ctrl_c: _CtrlC) -> OnStep:
    def add(step: BulkStep) -> None:
        report.add(_results(operation, step))
        ctrl_c.check()

    return add


def _results(operation: Operation, step: BulkStep) -> Iterator[_Result]:
    for id, before, now in step.changes:
        if now is not None:
            yield _Result(id, True, now, None, before)
        elif before == "gone":
            yield _Result(id, False, None, f"no {operation.noun} has the id {id!r}")
        else:
            yield _Result(id, False, before, f"it is {before}: {operation.rule}")
    for id, cause, _ in step.failures:
        yield _Result(id, False, DAMAGED, _damage(id, cause))


def _damage(id: str, cause: str, *, mendable: bool = True) -> str:
    if mendable:
        return f"it is damaged ({cause}): smsqueue repair {id}"
    return f"it cannot be repaired ({cause}), remove it with: smsqueue repair {id} --remove"


def _state(gateway: Gateway, id: str) -> str | None:
    """The state of a message or an event; None if there is none."""
    try:
        record = gateway.ledger.read(id)
        if record is not None:
            return str(record.state)
        return (gateway.ledger.read_event(id) or {}).get("state")
    except exc.DamagedRecord:
        return DAMAGED


def _question(operation: Operation, counted: BulkResult) -> str:
    """``"Cancel 500 messages (480 queued, 20 retrying; not 12 sending)?"``."""
    details = [_by_state(counted.done)] if len(counted.done) > 1 else []
    details += [f"not {_by_state(counted.not_done)}"] if counted.not_done else []
    states = f" ({'; '.join(details)})" if details else ""
    return f"{operation.verb} {format_count(counted.number, operation.noun)}{states}?"


def _by_state(numbers: Counter[str] | Any) -> str:
    """``"480 queued, 20 retrying"``."""
    return ", ".join(f"{number} {state}" for state, number in Counter(numbers).most_common())


def _shows_progress() -> bool:
    return make_console(stderr=True).is_terminal


def _how_to_go_on(began: datetime, report: _Report) -> Callable[[], str]:
    """What to do after an interruption: the command that goes on.

    It names times instead of ages, and leaves out what entered its state since the first run
    began: a message that was sent again and failed again.
    """
    context = click.get_current_context()

    def text() -> str:
        words = [context.find_root().info_name or "smsqueue"]
        for level in [context.parent, context]:
            if level is None:
                continue
            words += [level.info_name or ""] if level is context else []
            for option in level.command.params:
                name = option.name or ""
                value = level.params.get(name)
                if name == "limit" and value is not None:
                    if value <= report.tried:
                        return "do nothing: all that --limit allows was done"
                    value -= report.tried
                elif name == "before" and value is None:
                    value = began
                elif level.get_parameter_source(name) != ParameterSource.COMMANDLINE:
                    continue
                words += _option_words(option, value)
        return f"run: {shlex.join(words)}"

    return text


def _option_words(option: click.Parameter, value: Any) -> list[str]:
    """An option as it is written on the command line."""
    name = max(option.opts, key=len)
    if isinstance(value, bool):
        return [name]
    values = value if isinstance(value, tuple) else (value,)
    texts = [v.isoformat() if isinstance(v, datetime) else str(v) for v in values]
    return [word for text in texts for word in (name, text)]


# --- Ctrl-C ------------------------------------------------------------------


class _CtrlC:
    """A context in which the first Ctrl-C ends the run after the step that is under way, so that
    its result is known; the second one ends it at once."""

    def __init__(self) -> None:
        self.pressed = False
        self._waits = False
        self._former: Any = None

    def __enter__(self) -> Self:
        former = signal.getsignal(signal.SIGINT)
        main = threading.current_thread() is threading.main_thread()
        if main and former is signal.default_int_handler:
            self._former = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._former is not None:
            signal.signal(signal.SIGINT, self._former)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.pressed or self._waits:
            raise KeyboardInterrupt
        self.pressed = True

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A block that the first Ctrl-C interrupts: nothing is under way."""
        self.check()
        self._waits = True
        try:
            yield
        finally:
            self._waits = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed."""
        if self.pressed:
            raise KeyboardInterrupt


# --- Results -----------------------------------------------------------------


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "")


@dataclass
class _Report:
    """Prints the results of a run: up to 20 one by one, of more a summary and the first failures;
    with --json all of them, as they come."""

    done_word: str
    dry_run: bool
    as_json: bool
    #: None: not known.
    total: int | None
    #: Print the states before of what would be done.
    by_state: bool = False
    done: Counter[str] = field(default_factory=Counter)
    #: Number of those for which it was not possible, by state.
    refused: Counter[str] = field(default_factory=Counter)
    #: The first results; more than _FEW are not printed one by one.
    first: list[_Result] = field(default_factory=list)
    #: The first of those that were not possible.
    failures: list[_Result] = field(default_factory=list)
    #: The bar while it is shown.
    progress: Progress | None = None

    @property
    def tried(self) -> int:
        """How many results there are."""
        return self.done.total() + self.refused.total()

    def add(self, results: Iterable[_Result]) -> None:
        """Count results, and print them with --json."""
        for result in results:
            if self.as_json:
                comma = "," if self.tried else ""
                fields = {"id": result.id, "done": result.done}
                fields |= {"state": result.state, "problem": result.problem}
                if self.dry_run and result.done:
                    fields["state"] = result.before
                click.echo(f"{comma}\n    {json.dumps(fields)}", nl=False)
            if result.done:
                self.done[result.before or ""] += 1
            else:
                self.refused[result.state or "gone"] += 1
                if len(self.failures) < _FEW:
                    self.failures.append(result)
            if len(self.first) <= _FEW:
                self.first.append(result)
        if self.progress is not None:
            self.progress.update(self.progress.task_ids[0], completed=self.tried)

    @contextmanager
    def until_done(self, how_to_go_on: str | Callable[[], str] | None) -> Iterator[_CtrlC]:
        """Show the progress of a block, and then the results, also if it is interrupted.

        Args:
            how_to_go_on: What to do after an interruption.

        Raises:
            click.exceptions.Exit: it was not possible for some, or was interrupted.
            click.ClickException: Redis failed.
        """
        console, few = make_console(stderr=True), (self.total or 0) <= _FEW
        columns = (
            *(TextColumn(self.done_word), BarColumn(), MofNCompleteColumn()),
            *(_Rate(), TimeRemainingColumn()),
        )
        interruption: exc.QueueUnavailable | KeyboardInterrupt | None = None
        if self.as_json:
            click.echo(f'{{\n  "dry_run": {json.dumps(self.dry_run)},\n  "results": [', nl=False)
        hidden = (few and self.total is not None) or not console.is_terminal or self.as_json
        with _CtrlC() as ctrl_c, Progress(*columns, console=console, disable=hidden) as progress:
            progress.add_task(self.done_word, total=self.total)
            self.progress = progress
            try:
                yield ctrl_c
            except (exc.QueueUnavailable, KeyboardInterrupt) as error:
                interruption = error
        self._print(interruption is not None)
        again = how_to_go_on() if callable(how_to_go_on) else how_to_go_on
        again = again or "run the same command again: it does nothing twice"
        if isinstance(interruption, KeyboardInterrupt):
            click.echo(f"Interrupted. To go on, {again}", err=True)
            raise click.exceptions.Exit(1)
        if interruption:
            raise click.ClickException(f"{interruption}. Then {again}")
        if self.refused:
            raise click.exceptions.Exit(1)

    def _print(self, interrupted: bool) -> None:
        not_tried: int | None = 0
        if interrupted:
            not_tried = None if self.total is None else max(0, self.total - self.tried)
        if self.as_json:
            summary = {
                "done": self.done.total(),
                "not_done": self.refused.total() + (not_tried or 0),
                "done_by_state": {state: n for state, n in self.done.items() if state},
                "not_done_by_state": dict(self.refused),
                "interrupted": interrupted,
            }
            fields = ",\n".join(f'  "{k}": {json.dumps(v)}' for k, v in summary.items())
            click.echo(f"\n  ],\n{fields}\n}}" if self.tried else f"],\n{fields}\n}}")
            return
        few = self.tried <= _FEW
        for result in self.first if few else self.failures:
            self._print_result(result)
        if self.tried > 1 or not few or (interrupted and self.tried):
            click.echo(self._summary(not_tried))

    def _print_result(self, result: _Result) -> None:
        word = self.done_word
        done = f"is {result.before}, would be {word}" if self.dry_run else word
        text = done if result.done else result.problem
        click.echo(f"{printable(result.id)}: {printable(text)}", err=not result.done)

    def _summary(self, not_tried: int | None) -> str:
        """``"497 queued again, 3 not: 2 delivered, 1 gone"``.

        Args:
            not_tried: None: it is not known how many.
        """
        text = f"{self.done.total()} {'would be ' if self.dry_run else ''}{self.done_word}"
        if self.by_state and self.done:
            text += f" ({_by_state(self.done)})"
        if self.refused:
            text += f", {self.refused.total()} not: {_by_state(self.refused)}"
        if not_tried == 0:
            return text
        return f"{text}, {'the others' if not_tried is None else not_tried} not tried"
