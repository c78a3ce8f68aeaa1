"""Looking at many messages: list."""

from __future__ import annotations

from itertools import islice
from typing import Any

import click
from rich.table import Table

from smsqueue.cli.options import Filters, filters
from smsqueue.cli.output import columns, json_option, opened, reveal_option, screen, show_json
from smsqueue.cli.shown import damaged_shown, looked_up, message_shown
from smsqueue.cli.words import clean, local
from smsqueue.gateway import Gateway
from smsqueue.ledger import Damaged
from smsqueue.message.states import DAMAGED, EventState, State

__all__ = ["list_", "table"]

_STATES: dict[str, State | EventState] = {str(s): s for s in (*State, *EventState)}


@click.command("list")
@filters(_STATES, limit=100)
@click.option(
    "--damaged",
    is_flag=True,
    help="Those that were put aside as damaged: workers or commands met them.",
)
@reveal_option
@json_option
def list_(damaged: bool, reveal: bool, as_json: bool, **given: Any) -> None:
    """List messages or events, the newest in their state first; without filters: count them.

    Events are listed by --state only.
    """
    asked = Filters(**given)
    with opened() as gateway:
        if damaged:
            _damaged(gateway, asked, as_json)
            return
        counts = gateway.ledger.counts()
        if not asked.states and not asked.narrow:
            _counts(counts, as_json)
            return
        states = [_STATES[state] for state in dict.fromkeys(asked.states)] or list(State)
        limit = asked.limit or 100
        items = _items(gateway, asked, states, limit + 1, reveal)
    total, more = sum(counts[state] for state in states), len(items) > limit
    items = items[:limit]
    if as_json:
        names = list(map(str, states))
        show_json({"states": names, "total": total, "more": more, "items": items})
    elif not items:
        click.echo("no message fits" if asked.narrow else f"nothing is {' or '.join(states)}")
    else:
        screen().print(table(items))
        if more:
            of = "and there are more" if asked.narrow else f"of {total}"
            click.echo(f"{len(items)} {of}: --limit shows more")


def _items(
    gateway: Gateway, asked: Filters, states: list[State | EventState], limit: int, reveal: bool
) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    for state in states:
        left = limit - len(items)
        if isinstance(state, State):
            damaged: list[Damaged] = []
            records = islice(asked.records(gateway, [state], on_damaged=damaged.append), left)
            items += [message_shown(record, reveal) for record in records]
            items += [damaged_shown(each) for each in damaged]
        elif asked.narrow:
            raise click.UsageError(
                f"--provider, --error and --since are for messages, {state} is a state of events: "
                f"smsqueue list --state {state}"
            )
        else:
            found = (looked_up(gateway, id, reveal) for id in gateway.ledger.ids_in(state, left))
            items += [item for item in found if item is not None]
    return items


def _damaged(gateway: Gateway, asked: Filters, as_json: bool) -> None:
    if asked.states or asked.narrow:
        raise click.UsageError("--damaged goes with --limit only: what else they are nobody knows")
    found, limit = gateway.ledger.damaged(), asked.limit or 100
    items, more = [damaged_shown(each) for each in found[:limit]], len(found) > limit
    if as_json:
        show_json({"states": [DAMAGED], "total": len(found), "more": more, "items": items})
    elif not items:
        click.echo(
            "no damaged record was put aside; one is as soon as a worker, or a command that "
            "changes it, meets it"
        )
    else:
        screen().print(table(items))
        if more:
            click.echo(f"{limit} of {len(found)}: --limit shows more")


def _counts(counts: dict[str, int], as_json: bool) -> None:
    groups = {
        "messages": {str(s): counts[s] for s in State},
        "events": {str(s): counts[s] for s in EventState},
    }
    if as_json:
        show_json(groups)
        return
    rows = columns("", "state", "count")
    rows.columns[2].justify = "right"
    for group, states in groups.items():
        for state, count in states.items():
            rows.add_row(group, state, str(count))
    screen().print(rows)
    click.echo("smsqueue list --state STATE shows which")


def table(items: list[dict[str, Any]]) -> Table:
    """Messages and events, one a row."""
    rows = columns("id", "kind", "state", "number", "provider", "since", "what")
    rows.columns[0].min_width = max(len(item["id"]) for item in items)  # to be copied
    rows.columns[3].min_width = rows.columns[6].min_width = 12
    for item in items:
        if item["state"] == DAMAGED:
            what = [item["why"], item["do"]]
        elif item["kind"] == "message":
            what = [item["error"], item["code"], item["text"]]
        else:
            about = f"of {item['message']}" if item["message"] else None
            what = [item.get("report"), item.get("code"), about, item["why"], item.get("text")]
        cells = (item["id"], item["kind"], item["state"], item.get("number"), item.get("provider"))
        text = " ".join(clean(word) for word in what if word not in (None, ""))
        since = local(item.get("changed_at") or item.get("at"))
        rows.add_row(*map(clean, cells), since, text)
    return rows
