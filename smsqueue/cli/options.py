"""Which messages: the options by which commands pick them, and the picking."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

import click

from smsqueue.cli.times import past
from smsqueue.gateway import Gateway
from smsqueue.ledger import Damaged, Record
from smsqueue.message.states import State

__all__ = ["Filters", "filters"]


@dataclass(frozen=True)
class Filters:
    """What was asked for; None and nothing: whatever it is."""

    states: tuple[str, ...]
    provider: str | None
    error: str | None
    since: datetime | None
    limit: int | None

    def __bool__(self) -> bool:
        return bool(self.states or self.narrow or self.limit)

    @property
    def narrow(self) -> bool:
        """Is more asked for than states?"""
        return (self.provider, self.error, self.since) != (None, None, None)

    def records(
        self,
        gateway: Gateway,
        states: Iterable[State],
        until: Mapping[State, float] | None = None,
        on_damaged: Callable[[Damaged], None] | None = None,
    ) -> Iterator[Record]:
        """All messages of some states that fit, state by state, the newest in it first.

        Args:
            until, on_damaged: See :meth:`~smsqueue.ledger.Ledger.select`.
        """
        return gateway.ledger.select(
            states,
            provider=self.provider,
            error=self.error,
            since=self.since,
            until=until,
            on_damaged=on_damaged,
        )

    def picked(self, gateway: Gateway, until: Mapping[State, float]) -> Iterator[Record]:
        """The messages that fit, as many as were asked for; read while they are asked for."""
        states = [State(state) for state in self.states]
        return islice(self.records(gateway, states, until), self.limit)


def filters(
    states: Iterable[str], *, limit: int | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options, of which :class:`Filters` is made by their names.

    Args:
        states: Those that may be asked for.
        limit: How many, if nothing is said; None: all.
    """
    options = [
        click.option(
            "--state",
            "states",
            multiple=True,
            type=click.Choice(sorted(map(str, states))),
            help="In this state; may be repeated.",
        ),
        click.option("--provider", help="Whose last attempt was at this provider."),
        click.option("--error", help="Whose last error has this class or provider's code."),
        click.option(
            "--since",
            callback=past,
            metavar="TIME",
            help="That came into the state in the last 30m, 2h or 1d, or since an ISO time "
            "(local time, if it has no zone).",
        ),
        click.option(
            "--limit",
            type=click.IntRange(min=1, max=1_000_000_000),
            default=limit,
            show_default=limit is not None,
            help="At most so many, the newest in their state.",
        ),
    ]

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add
