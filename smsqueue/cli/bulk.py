"""Deciding by hand: cancel, requeue, settle, replay; repairing damaged records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from smsqueue.cli.acting import Act, act
from smsqueue.cli.options import Filters, filters
from smsqueue.cli.output import json_option, opened
from smsqueue.cli.picking import Selection, confirm, picked
from smsqueue.cli.words import clean
from smsqueue.gateway import Gateway
from smsqueue.message.states import SETTLED_BY_HAND, WAITING, EventState, State

__all__ = ["cancel", "repair", "replay", "requeue", "settle"]

_AGAIN = (State.FAILED, State.EXPIRED, State.UNDELIVERED, State.UNKNOWN)
_UNKNOWN = (State.UNKNOWN,)
_OVER = (EventState.DEAD, EventState.UNHEARD, EventState.DONE)


def _many(*states: State) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Ids, or filters for messages in some states."""
    decorators: list[Callable[..., Any]] = [
        click.argument("ids", metavar="[ID...|-]", nargs=-1),
        filters(states),
        click.option("--dry-run", is_flag=True, help="Only say what would be done."),
        click.option("--yes", is_flag=True, help="Do not ask before filters act."),
        json_option,
    ]

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return add


def _minutes(context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < 5_256_000:  # what is no number is not between either
        raise click.BadParameter("must be between 0 minutes and ten years")
    return value


@click.command()
@_many(*WAITING)
def cancel(ids: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool, **given: Any) -> None:
    """Cancel messages that wait to be sent.

    By their ids ('-': read from standard input), or by filters, of which --state must be one.
    """

    def end(gateway: Gateway, id: str, bulk: bool) -> bool:
        return gateway.cancel(id)

    allowed = "only what is queued, scheduled or retrying can be cancelled"
    what = Act("Cancel", "cancelled", State.CANCELLED, WAITING, allowed, end)
    _do(what, ids, Filters(**given), dry_run, yes, as_json)


@click.command()
@_many(*_AGAIN)
@click.option(
    "--expires",
    type=float,
    callback=_minutes,
    metavar="MINUTES",
    help="Validity from now; if not given, as long as it was.",
)
def requeue(
    ids: tuple[str, ...],
    expires: float | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Send failed, expired, undelivered or unknown messages again.

    By their ids ('-': read from standard input), or by filters, of which --state must be one.
    An unknown one may have arrived: then it arrives twice.
    """
    asked = Filters(**given)
    if State.UNKNOWN in asked.states:
        click.echo(
            "warning: unknown messages may have arrived: those that did arrive twice", err=True
        )

    def again(gateway: Gateway, id: str, bulk: bool) -> bool:
        return gateway.requeue(id, expires, bulk=bulk, states=asked.states or _AGAIN)

    allowed = "only what is failed, expired, undelivered or unknown can be sent again"
    what = Act("Send again", "queued again", State.QUEUED, _AGAIN, allowed, again)
    _do(what, ids, asked, dry_run, yes, as_json)


@click.command()
@_many(*_UNKNOWN)
@click.option(
    "--as",
    "state",
    required=True,
    type=click.Choice(sorted(map(str, SETTLED_BY_HAND))),
    help="What became of them.",
)
def settle(
    ids: tuple[str, ...], state: str, dry_run: bool, yes: bool, as_json: bool, **given: Any
) -> None:
    """Say what became of unknown messages.

    By their ids ('-': read from standard input), or by filters, of which --state must be one.
    """

    def decide(gateway: Gateway, id: str, bulk: bool) -> bool:
        return gateway.settle(id, state)

    allowed = "only what is unknown can be settled by hand"
    what = Act(f"Settle as {state}", f"settled as {state}", state, _UNKNOWN, allowed, decide)
    _do(what, ids, Filters(**given), dry_run, yes, as_json)


@click.command()
@click.argument("events", metavar="EVENT...|-", nargs=-1, required=True)
@json_option
def replay(events: tuple[str, ...], as_json: bool) -> None:
    """Give events that are dead, unheard or done to all handlers again.

    '-': their ids are read from standard input.
    """

    def again(gateway: Gateway, id: str, bulk: bool) -> bool:
        return gateway.replay(id)

    allowed = "only what is dead, unheard or done can be replayed"
    what = Act("Replay", "given to the hooks again", EventState.WAITING, _OVER, allowed, again)
    with opened() as gateway:
        act(gateway, what, Selection(gateway, events), dry=False, as_json=as_json)


@click.command()
@click.argument("ids", metavar="ID...|-", nargs=-1, required=True)
@click.option(
    "--remove", is_flag=True, help="Remove them for good, with all that is known of them."
)
@click.option("--yes", is_flag=True, help="Do not ask before something is removed.")
@json_option
def repair(ids: tuple[str, ...], remove: bool, yes: bool, as_json: bool) -> None:
    """Mend damaged messages and events, so that they go on in their state.

    What a provider may have becomes unknown: nothing is sent twice. What cannot be mended can only
    be removed. '-': the ids are read from standard input.
    """

    def mend(gateway: Gateway, id: str, bulk: bool) -> bool:
        if not remove:
            state, causes = gateway.repair(id)
            if causes and not as_json:
                click.echo(f"{clean(id)}: {clean('; '.join(causes))}; it is {state} now")
            return bool(causes)
        return gateway.remove(id)

    verb, done = ("Remove", "removed") if remove else ("Repair", "repaired")
    allowed = "nothing is wrong with it"
    what = Act(verb, done, "removed" if remove else "repaired", (), allowed, mend)
    with opened() as gateway:
        chosen = Selection(gateway, ids)
        if remove and chosen.given and not yes:
            confirm(chosen, "Remove")
        act(gateway, what, chosen, dry=False, as_json=as_json)


def _do(
    what: Act, ids: tuple[str, ...], asked: Filters, dry: bool, yes: bool, as_json: bool
) -> None:
    with opened() as gateway:
        chosen = picked(gateway, ids, asked)
        empty = next(iter(chosen), None) is None
        if asked and not (empty or dry or yes):
            confirm(chosen, what.verb)
        if empty and not as_json:
            click.echo("no message fits" if asked else "no ids on standard input")
        act(gateway, what, chosen, dry=dry, as_json=as_json)
