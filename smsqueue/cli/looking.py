"""Looking at one message, or at one number: show, find."""

from __future__ import annotations

from itertools import islice
from typing import Any

import click
from rich.table import Table

from smsqueue.cli.messages import table
from smsqueue.cli.output import columns, json_option, kept, opened, reveal_option, screen, show_json
from smsqueue.cli.shown import damaged_line, looked_up
from smsqueue.cli.words import clean, local
from smsqueue.gateway import Gateway
from smsqueue.message import numbers
from smsqueue.message.masking import mask
from smsqueue.message.states import DAMAGED, State
from smsqueue.settings import Settings

__all__ = ["find", "show"]

#: Shown as a table, or of no use to people.
_NOT_LISTED = ("timeline", "length")
_TIMES = ("accepted_at", "changed_at", "send_at", "expires_at", "at", "next")


@click.command()
@click.argument("id")
@reveal_option
@json_option
def show(id: str, reveal: bool, as_json: bool) -> None:
    """Show a message with its timeline, or an event."""
    with opened() as gateway:
        found = looked_up(gateway, id, reveal)
        if found is None:
            hint = "" if len(id) >= 20 else "; to look by number: smsqueue find NUMBER"
            raise LookupError(
                f"no message and no event has the id {clean(id)!r} ({kept(gateway.settings)}){hint}"
            )
        if found["kind"] == "message" and found["state"] != DAMAGED:
            found |= _validity(gateway, found)
    if as_json:
        show_json(found)
        return
    console = screen()
    if found["state"] == DAMAGED:
        console.print(damaged_line(found), soft_wrap=True)
        return
    if not reveal and "text" in found:
        found["text"] = f"({found['length']} characters, hidden: --reveal shows number and text)"
    for name, value in found.items():
        if name not in _NOT_LISTED and value not in (None, "", {}, []):
            value = local(value) if name in _TIMES else value
            console.print(f"{name.replace('_', ' '):<12} {clean(value)}", soft_wrap=True)
    if "timeline" in found:
        console.print()
        console.print(_timeline(found["timeline"]))


def _validity(gateway: Gateway, found: dict[str, Any]) -> dict[str, Any]:
    """From when and until when a message may be sent, as its sender asked."""
    first = found["timeline"][0]
    return {
        "send_at": first.get("next") if first["state"] == State.SCHEDULED else None,
        "expires_at": gateway.ledger.expires(found["id"]),
    }


def _timeline(lines: list[dict[str, Any]]) -> Table:
    rows = columns("time", "state", "attempt", "provider", "what", "next")
    for line in lines:
        what = [line.get("error"), line.get("code"), line.get("why")]
        if line.get("times"):
            what.append(f"({line['times']} times, last {local(line.get('last'))})")
        if line.get("dropped"):
            what.append(f"({line['dropped']} lines before it dropped)")
        row = (line["state"], line.get("attempt"), line.get("provider"))
        text = " ".join(clean(word) for word in what if word not in (None, ""))
        rows.add_row(local(line["at"]), *map(clean, row), text, local(line.get("next")))
    return rows


@click.command()
@click.argument("number")
@click.option(
    "--limit",
    type=click.IntRange(min=1, max=1_000_000_000),
    default=100,
    show_default=True,
    help="At most so many, the newest.",
)
@reveal_option
@json_option
def find(number: str, limit: int, reveal: bool, as_json: bool) -> None:
    """List what was sent to and received from a number, newest first.

    NUMBER may also be another address that a message came from: INFO4242, whatsapp:+15551234567.
    """
    with opened() as gateway:
        address = numbers.searched_address(number, gateway.settings.region)
        found = (looked_up(gateway, id, reveal) for id in gateway.ledger.find(address))
        items = list(islice((item for item in found if item is not None), limit + 1))
        more, items = len(items) > limit, items[:limit]
        if not items and not any(character.isdecimal() for character in address):
            raise click.BadParameter(
                "a number has digits, and no message came from this address", param_hint="NUMBER"
            )
        if as_json:
            shown = address if reveal else mask(address)
            show_json({"number": shown, "more": more, "items": items})
        elif items:
            screen().print(table(items))
            if more:
                click.echo(f"{len(items)} and there are more: --limit shows more")
        else:
            click.echo(f"nothing of {mask(address)}: {_why_nothing(number, gateway.settings)}")


def _why_nothing(number: str, settings: Settings) -> str:
    """That records are not kept for ever; or why no message can have gone to this number."""
    problem = numbers.resolved(number, settings.region)[1]
    if problem and numbers.destination(number, settings.region)[0]:
        return problem
    return kept(settings)
