"""Looking: show, find, list."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table

from smsqueue.cli.base import json_option, kept, opened, reveal_option, screen, show_json
from smsqueue.cli.shown import clean, local, looked_up
from smsqueue.lib import digits_only
from smsqueue.masking import mask
from smsqueue.states import EventState, State

__all__ = ["find", "list_", "show"]

_STATES: dict[str, State | EventState] = {str(s): s for s in (*State, *EventState)}
#: Shown as a table, or of no use to people.
_NOT_LISTED = ("timeline", "length")


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
    if as_json:
        show_json(found)
        return
    console = screen()
    if not reveal and "text" in found:
        found["text"] = f"({found['length']} characters, hidden: --reveal shows number and text)"
    for name, value in found.items():
        if name not in _NOT_LISTED and value not in (None, "", {}, []):
            value = local(value) if name in ("accepted_at", "changed_at", "at", "next") else value
            console.print(f"{name.replace('_', ' '):<12} {clean(value)}", soft_wrap=True)
    if "timeline" in found:
        console.print()
        console.print(_timeline(found["timeline"]))


def _timeline(lines: list[dict[str, Any]]) -> Table:
    table = Table("time", "state", "attempt", "provider", "what", "next", box=None, pad_edge=False)
    for line in lines:
        what = [line.get("error"), line.get("code"), line.get("why")]
        if line.get("times"):
            what.append(f"({line['times']} times, last {local(line.get('last'))})")
        if line.get("dropped"):
            what.append(f"({line['dropped']} lines before it dropped)")
        row = (line["state"], line.get("attempt"), line.get("provider"))
        text = " ".join(clean(word) for word in what if word not in (None, ""))
        table.add_row(local(line["at"]), *map(clean, row), text, local(line.get("next")))
    return table


@click.command()
@click.argument("number")
@reveal_option
@json_option
def find(number: str, reveal: bool, as_json: bool) -> None:
    """List what was sent to and received from a number, newest first."""
    digits = digits_only(number)
    if not digits:
        raise click.BadParameter("a number has digits", param_hint="NUMBER")
    with opened() as gateway:
        found = (looked_up(gateway, id, reveal) for id in gateway.ledger.find(digits))
        items = [item for item in found if item is not None]
        if as_json:
            show_json({"number": digits if reveal else mask(digits), "items": items})
        elif items:
            screen().print(_table(items))
        else:
            click.echo(f"nothing of {mask(digits)}: {kept(gateway.settings)}")


@click.command("list")
@click.option("--state", type=click.Choice(list(_STATES)), help="Of messages, or of events.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@reveal_option
@json_option
def list_(state: str | None, limit: int, reveal: bool, as_json: bool) -> None:
    """List messages or events in a state, newest in it first; without one: how many are where."""
    with opened() as gateway:
        counts = gateway.ledger.counts()
        if state is None:
            _counts(counts, as_json)
            return
        ids = gateway.ledger.ids_in(_STATES[state], limit)
        found = (looked_up(gateway, id, reveal) for id in ids)
        items = [item for item in found if item is not None]
    if as_json:
        show_json({"state": state, "total": counts[state], "items": items})
    elif not items:
        click.echo(f"nothing is {state}")
    else:
        screen().print(_table(items))
        if counts[state] > len(ids):
            click.echo(f"{len(ids)} of {counts[state]}: --limit shows more")


def _counts(counts: dict[str, int], as_json: bool) -> None:
    groups = {
        "messages": {str(s): counts[s] for s in State},
        "events": {str(s): counts[s] for s in EventState},
    }
    if as_json:
        show_json(groups)
        return
    table = Table("", "state", "count", box=None, pad_edge=False)
    table.columns[2].justify = "right"
    for group, states in groups.items():
        for state, count in states.items():
            table.add_row(group, state, str(count))
    screen().print(table)
    click.echo("smsqueue list --state STATE shows which")


def _table(items: list[dict[str, Any]]) -> Table:
    table = Table("id", "kind", "state", "number", "provider", "since", "what", box=None)
    table.pad_edge = False
    for column in table.columns:
        column.overflow = "fold"  # a narrow terminal cuts nothing
    table.columns[0].min_width = max(len(item["id"]) for item in items)  # to be copied
    table.columns[3].min_width = table.columns[6].min_width = 12
    for item in items:
        if item["kind"] == "message":
            what = [item["error"], item["code"], item["text"]]
        else:
            about = f"of {item['message']}" if item["message"] else None
            what = [item.get("report"), item.get("code"), about, item["why"], item.get("text")]
        cells = (item["id"], item["kind"], item["state"], item.get("number"), item["provider"])
        text = " ".join(clean(word) for word in what if word not in (None, ""))
        since = local(item.get("changed_at") or item.get("at"))
        table.add_row(*map(clean, cells), since, text)
    return table
