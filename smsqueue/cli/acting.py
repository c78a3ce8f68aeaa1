"""Acting on messages one after the other: what cannot be done does not stop the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from smsqueue import exc
from smsqueue.cli.base import screen, show_json
from smsqueue.cli.words import clean
from smsqueue.gateway import Gateway

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


def act(
    gateway: Gateway, what: Act, ids: Mapping[str, str | None], *, dry: bool, as_json: bool
) -> None:
    """Act on ids, whose states may be known, and tell how it went; exit code 1 if some failed.

    Args:
        dry: Only say what would be done.
    """
    few, results, stopped = len(ids) <= _FEW, list[_Result](), None
    console = screen(stderr=True)
    columns = (TextColumn(what.done), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=few or not console.is_terminal) as progress:
        for id in progress.track(ids):
            try:
                result = (
                    _foreseen(gateway, what, id, ids[id])
                    if dry
                    else _result(gateway, what, id, bulk=len(ids) > 1)
                )
            except (exc.QueueUnavailable, KeyboardInterrupt) as error:
                stopped = error
                break
            results.append(result)
            if few and not as_json:
                _tell(result, what, dry)
    failed = [result for result in results if not result.done]
    if as_json:
        show_json(
            {
                "dry_run": dry,
                "done": len(results) - len(failed),
                "not_done": len(ids) - len(results) + len(failed),
                "results": [vars(result) for result in results],
            }
        )
    elif len(ids) > 1:
        if not few:
            for result in failed[:_FEW]:
                _tell(result, what, dry)
        click.echo(_summary(results, what, len(ids) - len(results), dry))
    if isinstance(stopped, KeyboardInterrupt):
        raise click.Abort
    if stopped:
        raise click.ClickException(f"{stopped}. Then the same again: nothing is done twice")
    if failed:
        raise click.exceptions.Exit(1)


def _result(gateway: Gateway, what: Act, id: str, *, bulk: bool) -> _Result:
    try:
        if what.run(gateway, id, bulk):
            return _Result(id, True, what.becomes, None)
    except LookupError as error:
        return _Result(id, False, None, str(error))
    return _refused(what, id, _state(gateway, id))


def _foreseen(gateway: Gateway, what: Act, id: str, state: str | None) -> _Result:
    state = state or _state(gateway, id)
    return _Result(id, True, state, None) if state in what.states else _refused(what, id, state)


def _refused(what: Act, id: str, state: str | None) -> _Result:
    return _Result(id, False, state, f"it is {state}: {what.allowed}" if state else "it is gone")


def _state(gateway: Gateway, id: str) -> str | None:
    record = gateway.ledger.read(id)
    if record is not None:
        return str(record.state)
    return (gateway.ledger.read_event(id) or {}).get("state")


def _tell(result: _Result, what: Act, dry: bool) -> None:
    would = f"is {result.state}, would be {what.done}" if dry else what.done
    text = would if result.done else result.problem
    click.echo(f"{clean(result.id)}: {clean(text)}", err=not result.done)


def _summary(results: Collection[_Result], what: Act, left: int, dry: bool) -> str:
    refused = Counter(result.state or "gone" for result in results if not result.done)
    done = len(results) - refused.total()
    text = f"{done} would be {what.done}" if dry else f"{done} {what.done}"
    if refused:
        why = ", ".join(f"{number} {state}" for state, number in refused.most_common())
        text += f", {refused.total()} not: {why}"
    return f"{text}, {left} not tried" if left else text
