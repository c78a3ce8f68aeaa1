"""The list of numbers that want no messages: optout add, remove, list, import, export."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import click

from smsqueue.cli.gateways import open_gateway
from smsqueue.cli.options import json_option, limit_type, reveal_option
from smsqueue.cli.output import format_count, format_time, make_console, make_table, print_json
from smsqueue.ledger import GROUP_LIMIT
from smsqueue.message.masking import mask
from smsqueue.message.messages import check_category
from smsqueue.message.numbers import destination_digits
from smsqueue.message.opt_outs import OptOut, OptOutChange, scope_of

__all__ = ["optout"]

#: Columns of import and export.
_COLUMNS = ("number", "sender", "category", "reason")


@click.group()
def optout() -> None:
    """Manage the numbers that want no messages."""


_sender_option = click.option("--sender", help="Only messages of this sender. Default: of any.")
_category_option = click.option("--category", help="Only messages of this category. Default: all.")


@optout.command("add")
@click.argument("numbers", metavar="NUMBER...", nargs=-1, required=True)
@_sender_option
@_category_option
@click.option("--reason", default="", help="Shown in the list.")
def add(numbers: tuple[str, ...], sender: str | None, category: str | None, reason: str) -> None:
    """Send these numbers no more messages."""
    with open_gateway() as gateway:
        for number in numbers:
            changed = _changed(
                partial(gateway.opt_out, number, sender=sender, category=category, reason=reason)
            )
            click.echo(f"{mask(number)}: {'added' if changed else 'was in the list already'}")


@optout.command("remove")
@click.argument("numbers", metavar="NUMBER...", nargs=-1, required=True)
@_sender_option
@_category_option
def remove(numbers: tuple[str, ...], sender: str | None, category: str | None) -> None:
    """Send these numbers messages again. Do so only at their owners' request."""
    missing = False
    with open_gateway() as gateway:
        for number in numbers:
            changed = _changed(partial(gateway.opt_in, number, sender=sender, category=category))
            missing = missing or not changed
            click.echo(f"{mask(number)}: {'removed' if changed else 'is not in the list'}")
    if missing:
        sys.exit(1)


@optout.command("list")
@click.argument("number", required=False)
@click.option("--limit", type=limit_type, default=50, show_default=True, help="At most this many.")
@reveal_option
@json_option
def list_(number: str | None, limit: int, reveal: bool, as_json: bool) -> None:
    """List the numbers that want no messages, the last that changed first; or those of NUMBER."""
    with open_gateway() as gateway:
        if number is None:
            entries = gateway.ledger.opt_outs()
        else:
            try:
                digits = destination_digits(number, gateway.settings.region)
            except ValueError as error:
                raise click.UsageError(str(error)) from None
            entries = iter(gateway.ledger.opt_outs_of(digits))
        items = [_document(one, reveal) for one in islice(entries, limit + 1)]
    more, items = len(items) > limit, items[:limit]
    if as_json:
        print_json({"more": more, "items": items})
    elif not items:
        click.echo("no number has opted out" if number is None else "it has not opted out")
    else:
        table = make_table("number", "sender", "category", "since", "by", "why")
        for item in items:
            texts = (item[name] or "all" for name in ("sender", "category"))
            table.add_row(item["number"], *texts, format_time(item["at"]), item["by"], item["why"])
        make_console().print(table)
        if more:
            click.echo(f"{limit} are shown, there are more: raise --limit, or use export")


@optout.command("export")
def export() -> None:
    """Write the whole list to standard output as CSV, with numbers in plain."""
    with open_gateway() as gateway:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow((*_COLUMNS, "at", "by"))
        for one in gateway.ledger.opt_outs():
            row = (f"+{one.number}", one.sender or "", one.category or "", one.why)
            writer.writerow((*row, one.at.isoformat(timespec="milliseconds"), one.by))


@optout.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8-sig"), default="-")
def import_(file: Any) -> None:
    """Add the numbers of a CSV file, or of standard input.

    With a heading, the columns number, sender, category and reason count, as 'export' writes them;
    without one, the first column. Lines that hold no number are reported, and the others are added.
    Repeating it does no harm.
    """
    with open_gateway() as gateway, gateway.acting("optout import") as action:
        added = total = 0
        problems: list[str] = []
        rows = _rows(file, gateway.settings.region, problems)
        while group := list(islice(rows, GROUP_LIMIT)):
            added += gateway.ledger.change_opt_outs(group, action=action)
            total += len(group)
    for problem in problems[:20]:
        click.echo(problem, err=True)
    if len(problems) > 20:
        click.echo(f"... and {len(problems) - 20} more lines", err=True)
    click.echo(f"{format_count(added, 'opt-out')} added, {total - added} were in the list already")
    if problems:
        raise click.ClickException(f"{format_count(len(problems), 'line')} could not be read")


def _rows(file: Any, region: str | None, problems: list[str]) -> Iterator[tuple[str, OptOutChange]]:
    """Numbers and changes of a file; notes lines without a number in ``problems``."""
    columns: list[str] | None = None
    reader = csv.reader(file, strict=True)  # a quotation mark that is not closed is an error
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            problems.append(f"line {reader.line_num}: {error}: nothing after it was read")
            return
        if row is None:
            return
        if not any(cell.strip() for cell in row):
            continue
        if columns is None:
            heading = [cell.strip().lower() for cell in row]
            columns = heading if "number" in heading else ["number"]
            if columns is heading:
                continue
        cells = {name: cell.strip() for name, cell in zip(columns, row, strict=False)}
        try:
            digits = destination_digits(cells.get("number", ""), region)
            scope = scope_of(cells.get("sender"), _category(cells.get("category")))
        except ValueError as error:
            problems.append(f"line {reader.line_num}: {error}")
            continue
        yield digits, OptOutChange(scope, cells.get("reason", ""), "operator")


def _category(value: str | None) -> str | None:
    return check_category("category", value) if value else None


def _changed(change: Callable[[], bool]) -> bool:
    """The result of a change; an invalid number or category is a mistake of the caller."""
    try:
        return change()
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _document(one: OptOut, reveal: bool) -> dict[str, Any]:
    shown = one.number if reveal else mask(one.number)
    return one._asdict() | {"number": shown}
