"""What operators did: audit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

import click

from smsqueue.cli.gateways import open_gateway
from smsqueue.cli.options import limit_type, parse_past_time
from smsqueue.cli.output import format_time, make_console, make_table, printable
from smsqueue.ledger import AuditEntry

__all__ = ["audit"]

_DEFAULT_LIMIT = 100
#: Ids of an entry that the table shows.
_SHOWN_IDS = 2


@click.command()
@click.option(
    "--since",
    callback=parse_past_time,
    metavar="TIME",
    help="Only what was begun in the last 30m, 2h or 1d, or since an ISO time.",
)
@click.option("--by", metavar="NAME", help="Only what this person did.")
@click.option("--action", metavar="ACTION", help="Only this action: cancel, requeue, pause ...")
@click.option(
    "--limit",
    type=limit_type,
    help=f"At most this many, the last. Default: {_DEFAULT_LIMIT}, with --json all.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object per line.")
def audit(
    since: datetime | None, by: str | None, action: str | None, limit: int | None, as_json: bool
) -> None:
    """List who cancelled, requeued, paused or otherwise changed something, the last first.

    Entries are kept as long as messages.
    """
    with open_gateway() as gateway:
        entries = gateway.audit(since=since, by=by, action=action)
        if as_json:
            for entry in islice(entries, limit):
                click.echo(json.dumps(_document(entry)))
            return
        limit = limit or _DEFAULT_LIMIT
        shown = list(islice(entries, limit + 1))
    if not shown:
        filtered = since or by or action
        click.echo("no action matches" if filtered else "no operator has changed anything")
        return
    _print_table(shown[:limit])
    if len(shown) > limit:
        click.echo(f"{limit} are shown, there are more: raise --limit")


def _print_table(entries: list[AuditEntry]) -> None:
    table = make_table("time", "by", "action", "messages", "result", "what")
    for entry in entries:
        table.add_row(
            format_time(entry.at),
            printable(f"{entry.by}@{entry.host}"),
            printable(entry.action),
            _format_number(entry),
            entry.result,
            printable(" ".join(_describe(entry))),
        )
    make_console().print(table)


def _format_number(entry: AuditEntry) -> str:
    """``"3"``, or ``"3 of 5"`` if it was about more than were changed."""
    total = max(entry.matched or 0, entry.done + entry.refused)
    return str(entry.done) if total == entry.done else f"{entry.done} of {total}"


def _describe(entry: AuditEntry) -> Iterator[str]:
    yield from (f"{name}={value}" for name, value in entry.details.items())
    if len(entry.ids) > 0:
        others = entry.done - _SHOWN_IDS
        yield from entry.ids[:_SHOWN_IDS]
        if others > 0:
            yield f"and {others} more"


def _document(entry: AuditEntry) -> dict[str, object]:
    return vars(entry) | {
        "at": entry.at.isoformat(),
        "last": entry.last.isoformat(),
        "details": dict(entry.details),
    }
