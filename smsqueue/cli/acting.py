"""Acting on messages one after the other: what cannot be done does not stop the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import chain, islice

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from smsqueue import exc
from smsqueue.cli.output import screen, show_json
from smsqueue.cli.picking import Selection
from smsqueue.cli.words import clean
from smsqueue.gateway import Gateway
from smsqueue.message.states import DAMAGED

__all__ = ["Act", "act"]

#: More than these are not told one by one, and have a progress bar.
_FEW = 20


@dataclass(frozen=True)
class Act:
    """What is done to messages or events."""

    #: For a question: ``Cancel``; and for its answer: ``cancelled``.
    verb: str
    done: str
    #: The state that it leads to, and those that it is possible in.
    becomes: str
    states: Collection[str]
    #: Says in which, in words.
    allowed: str
    #: Called with an id, and whether it is one of many; False: not in that state.
    run: Callable[[Gateway, str, bool], bool]


@dataclass(frozen=True)
class _Result:
    id: str
    done: bool
    state: str | None
    problem: str | None


@dataclass
class _Tally:
    done: int = 0
    #: What could not be done, by state.
    refused: Counter[str] = field(default_factory=Counter)
    #: The first of that; and all results, if they are to be printed.
    failed: list[_Result] = field(default_factory=list)
    results: list[_Result] | None = None

    @property
    def tried(self) -> int:
        return self.done + self.refused.total()

    def add(self, result: _Result) -> None:
        self.done += result.done
        if not result.done:
            self.refused[result.state or "gone"] += 1
            if len(self.failed) < _FEW:
                self.failed.append(result)
        if self.results is not None:
            self.results.append(result)


def act(gateway: Gateway, what: Act, chosen: Selection, *, dry: bool, as_json: bool) -> None:
    """Act on what was chosen, and tell how it went; exit code 1 if some failed.

    Args:
        dry: Only say what would be done.
    """
    tally, stopped = _Tally(results=[] if as_json else None), None
    iterator = iter(chosen)
    first = list(islice(iterator, _FEW + 1))
    few, several = len(first) <= _FEW, len(first) > 1
    console = screen(stderr=True)
    columns = (TextColumn(what.done), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=few or not console.is_terminal) as progress:
        total = len(first) if few else chosen.given
        bar = progress.add_task(what.done, total=total)
        try:
            for id, state in chain(first, iterator):
                result = (
                    _foreseen(gateway, what, id, state)
                    if dry
                    else _result(gateway, what, id, bulk=several)
                )
                tally.add(result)
                progress.advance(bar)
                if few and not as_json:
                    _tell(result, what, dry)
        except (exc.QueueUnavailable, KeyboardInterrupt) as error:
            stopped = error
    left = 0 if stopped is None else None if total is None else total - tally.tried
    if as_json:
        show_json(
            {
                "dry_run": dry,
                "done": tally.done,
                "not_done": tally.refused.total() + (left or 0),
                "results": [vars(result) for result in tally.results or ()],
            }
        )
    elif several:
        if not few:
            for result in tally.failed:
                _tell(result, what, dry)
        click.echo(_summary(tally, what, left, dry))
    if isinstance(stopped, KeyboardInterrupt):
        raise click.Abort
    if stopped:
        raise click.ClickException(f"{stopped}. Then the same again: nothing is done twice")
    if tally.refused:
        raise click.exceptions.Exit(1)


def _result(gateway: Gateway, what: Act, id: str, *, bulk: bool) -> _Result:
    try:
        if what.run(gateway, id, bulk):
            return _Result(id, True, what.becomes, None)
    except LookupError as error:
        return _Result(id, False, None, str(error))
    except exc.DamagedRecord as error:
        cause = (
            f"it is damaged ({error.cause}): smsqueue repair {id}"
            if error.mendable
            else f"it cannot be mended ({error.cause}), remove it with: "
            f"smsqueue repair {id} --remove"
        )
        return _Result(id, False, DAMAGED, cause)
    return _refused(what, id, _state(gateway, id))


def _foreseen(gateway: Gateway, what: Act, id: str, state: str | None) -> _Result:
    state = state or _state(gateway, id)
    return _Result(id, True, state, None) if state in what.states else _refused(what, id, state)


def _refused(what: Act, id: str, state: str | None) -> _Result:
    if state == DAMAGED:
        return _Result(id, False, state, f"it is damaged: smsqueue repair {id}")
    return _Result(id, False, state, f"it is {state}: {what.allowed}" if state else "it is gone")


def _state(gateway: Gateway, id: str) -> str | None:
    try:
        record = gateway.ledger.read(id)
        if record is not None:
            return str(record.state)
        return (gateway.ledger.read_event(id) or {}).get("state")
    except exc.DamagedRecord:
        return DAMAGED


def _tell(result: _Result, what: Act, dry: bool) -> None:
    would = f"is {result.state}, would be {what.done}" if dry else what.done
    text = would if result.done else result.problem
    click.echo(f"{clean(result.id)}: {clean(text)}", err=not result.done)


def _summary(tally: _Tally, what: Act, left: int | None, dry: bool) -> str:
    text = f"{tally.done} would be {what.done}" if dry else f"{tally.done} {what.done}"
    if tally.refused:
        why = ", ".join(f"{number} {state}" for state, number in tally.refused.most_common())
        text += f", {tally.refused.total()} not: {why}"
    if left == 0:
        return text
    return f"{text}, {'the others' if left is None else left} not tried"
