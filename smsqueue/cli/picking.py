"""What a command is to act on: ids, or the messages that filters pick, perhaps after a question."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

import click

from smsqueue.cli.options import Filters
from smsqueue.cli.words import counted
from smsqueue.gateway import Gateway
from smsqueue.message.states import State

__all__ = ["Selection", "confirm", "picked"]


def named(ids: Iterable[str]) -> list[str]:
    """The ids, each once; ``-`` stands for those on standard input."""
    found: dict[str, None] = {}
    for id in ids:
        found.update(dict.fromkeys(sys.stdin.read().split() if id == "-" else [id]))
    return list(found)


class Selection:
    """Ids to act on, with their states as far as they are known.

    What filters pick is read page by page while somebody iterates, each time anew, and only what
    was in its state when this was made: what an action moves to another state is not picked there.

    Args:
        ids: None: the filters pick.
    """

    def __init__(
        self, gateway: Gateway, ids: Iterable[str] | None, filters: Filters | None = None
    ) -> None:
        self._gateway = gateway
        self._ids = None if ids is None else named(ids)
        self._filters = filters
        states = [State(state) for state in filters.states] if filters else []
        self._newest = gateway.ledger.newest(states) if states else {}

    def __iter__(self) -> Iterator[tuple[str, str | None]]:
        if self._ids is not None:
            yield from ((id, None) for id in self._ids)
        elif self._filters:
            for record in self._filters.picked(self._gateway, self._newest):
                yield record.id, str(record.state)

    @property
    def given(self) -> int | None:
        """How many they are, if they were given by their ids."""
        return None if self._ids is None else len(self._ids)

    def count(self) -> int:
        """How many they are; what filters pick is looked through for that."""
        return sum(1 for _ in self) if self._ids is None else len(self._ids)


def picked(gateway: Gateway, ids: Iterable[str], filters: Filters) -> Selection:
    """What ids or filters name, but not both."""
    if ids and filters:
        raise click.UsageError("give ids or filters, not both")
    if ids:
        return Selection(gateway, ids)
    if not filters:
        raise click.UsageError(
            "which messages? Give their ids, '-' for ids on standard input, or --state"
        )
    if not filters.states:
        raise click.UsageError("filters need --state: nothing is done to messages of every state")
    return Selection(gateway, None, filters)


def confirm(chosen: Selection, verb: str) -> None:
    """Ask whoever sits at the terminal; where nobody sits, the command is enough."""
    if _interactive():
        number = counted(chosen.count(), "message")
        click.confirm(f"{verb} {number}?", abort=True, err=True)


def _interactive() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()
