"""What a command is to act on: ids, or the messages that filters pick, perhaps after a question."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click

from smsqueue.cli.filters import Filters
from smsqueue.cli.words import counted
from smsqueue.gateway import Gateway

__all__ = ["confirm", "named", "picked"]


def named(ids: Iterable[str]) -> list[str]:
    """The ids, each once; ``-`` stands for those on standard input."""
    found: dict[str, None] = {}
    for id in ids:
        found.update(dict.fromkeys(sys.stdin.read().split() if id == "-" else [id]))
    return list(found)


def picked(gateway: Gateway, ids: Iterable[str], filters: Filters) -> dict[str, str | None]:
    """Ids, and their states as far as they are known."""
    if ids and filters:
        raise click.UsageError("give ids or filters, not both")
    if ids:
        return dict.fromkeys(named(ids))
    if not filters:
        raise click.UsageError(
            "which messages? Give their ids, '-' for ids on standard input, or --state"
        )
    if not filters.states:
        raise click.UsageError("filters need --state: nothing is done to messages of every state")
    return {record.id: str(record.state) for record in filters.picked(gateway)}


def confirm(number: int, verb: str) -> None:
    """Ask whoever sits at the terminal; where nobody sits, the command is enough."""
    if _interactive():
        click.confirm(f"{verb} {counted(number, 'message')}?", abort=True, err=True)


def _interactive() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()
