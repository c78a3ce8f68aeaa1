"""The providers of the application's gateway: providers."""

from __future__ import annotations

from typing import Any

import click

from smsqueue.cli.output import columns, json_option, loaded, opened, screen, show_json
from smsqueue.cli.reporting import errors_shown
from smsqueue.cli.tally import Tally, pause_shown, paused, tallies
from smsqueue.cli.webhooks import receives
from smsqueue.cli.words import clean
from smsqueue.gateway import Gateway
from smsqueue.providers.base import IProvider
from smsqueue.providers.known import names

__all__ = ["class_of", "providers"]


@click.command()
@click.option("--installed", is_flag=True, help="The names of all that could be added instead.")
@json_option
def providers(installed: bool, as_json: bool) -> None:
    """Show the providers of the gateway that SMSQUEUE_GATEWAY names, and how they fare."""
    if installed:
        if as_json:
            show_json({"installed": names()})
        else:
            click.echo("\n".join(names()))
        return
    with opened() as desk:
        gateway = loaded(desk.settings)
        pauses = {pause.provider: pause for pause in desk.ledger.pauses()}
        found = tallies(desk.ledger.counters())
    if as_json:
        items = [
            _about(gateway, provider)
            | vars(found.get(name, Tally()))
            | {"paused": pause_shown(pauses.get(name))}
            for name, provider in gateway.providers.items()
        ]
        show_json({"providers": items})
        return
    rows = columns("name", "class", "can", "deadline", "attempts", "sent", "errors", "paused")
    for name, provider in gateway.providers.items():
        tally = found.get(name, Tally())
        rows.add_row(
            f"{clean(name)} (default)" if name == gateway.default_provider else clean(name),
            type(provider).__qualname__,
            _can(provider),
            f"{provider.deadline:g} s",
            str(tally.attempts),
            str(tally.sent),
            errors_shown(tally),
            paused(pauses.get(name)),
        )
    if rows.rows:
        screen().print(rows)
    else:
        click.echo("the gateway has no provider: add one with gateway.add_provider()")


def _about(gateway: Gateway, provider: IProvider) -> dict[str, Any]:
    return {
        "name": provider.name,
        "class": class_of(provider),
        "default": provider.name == gateway.default_provider,
        "sends": _sends(provider),
        "receives": receives(provider),
        "deadline": provider.deadline,
    }


def class_of(provider: IProvider) -> str:
    """A provider's class, with its module."""
    return f"{type(provider).__module__}.{type(provider).__qualname__}"


def _sends(provider: IProvider) -> bool:
    return type(provider).send is not IProvider.send


def _can(provider: IProvider) -> str:
    receiving = receives(provider)
    can = ["send"] if _sends(provider) else []
    if receiving is None:
        can.append("receive? (see smsqueue check)")
    return ", ".join([*can, "receive"] if receiving else can)
