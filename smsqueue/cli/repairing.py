"""Deciding by hand: cancel, requeue, settle, replay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from smsqueue import exc
from smsqueue.cli.base import json_option, opened, show_json
from smsqueue.cli.shown import clean
from smsqueue.gateway import Gateway
from smsqueue.states import SETTLED_BY_HAND

__all__ = ["cancel", "replay", "requeue", "settle"]

_ids = click.argument("ids", metavar="ID...", nargs=-1, required=True)


def _minutes(context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < 5_256_000:  # what is no number is not between either
        raise click.BadParameter("must be between 0 minutes and ten years")
    return value


@click.command()
@_ids
@json_option
def cancel(ids: tuple[str, ...], as_json: bool) -> None:
    """Cancel messages that wait to be sent."""
    allowed = "only what is queued, scheduled or retrying can be cancelled"
    _each(ids, Gateway.cancel, "cancelled", allowed, as_json)


@click.command()
@_ids
@click.option(
    "--expires",
    type=float,
    callback=_minutes,
    metavar="MINUTES",
    help="New validity from now.",
)
@json_option
def requeue(ids: tuple[str, ...], expires: float | None, as_json: bool) -> None:
    """Send failed, expired, undelivered or unknown messages again.

    An unknown one may have arrived: then it arrives twice.
    """
    allowed = "only what is failed, expired, undelivered or unknown can be sent again"
    _each(ids, lambda g, id: g.requeue(id, expires), "queued again", allowed, as_json)


@click.command()
@click.argument("id")
@click.argument("state", type=click.Choice(sorted(map(str, SETTLED_BY_HAND))))
@json_option
def settle(id: str, state: str, as_json: bool) -> None:
    """Say what became of an unknown message."""
    allowed = "only what is unknown can be settled by hand"
    _each([id], lambda g, id: g.settle(id, state), f"settled as {state}", allowed, as_json)


@click.command()
@click.argument("event")
@json_option
def replay(event: str, as_json: bool) -> None:
    """Give an event that is dead, unheard or done to all handlers again."""
    allowed = "only what is dead, unheard or done can be replayed"
    _each([event], Gateway.replay, "given to the hooks again", allowed, as_json)


def _each(
    ids: Iterable[str],
    act: Callable[[Gateway, str], bool],
    done: str,
    allowed: str,
    as_json: bool,
) -> None:
    """Act on each id, one line each; what cannot be done does not stop the rest."""
    results: list[dict[str, Any]] = []
    away: exc.QueueUnavailable | None = None
    with opened() as gateway:
        for id in ids:
            try:
                ok, problem = act(gateway, id), None
                state = _state(gateway, id)
                if not ok:
                    problem = f"it is {state}: {allowed}" if state else "it is gone"
            except LookupError as error:
                ok, state, problem = False, None, str(error)
            except exc.QueueUnavailable as error:
                away = error
                break
            results.append({"id": id, "done": ok, "state": state, "problem": problem})
            if not as_json:
                click.echo(f"{clean(id)}: {done if ok else problem}", err=not ok)
    if as_json:
        show_json({"results": results})
    if away:
        raise away
    if not all(result["done"] for result in results):
        raise click.exceptions.Exit(1)


def _state(gateway: Gateway, id: str) -> str | None:
    record = gateway.ledger.read(id)
    if record is not None:
        return record.state
    return (gateway.ledger.read_event(id) or {}).get("state")
