"""Options that several commands share: --json, --reveal, times, and filters for messages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from smsqueue.gateway import Gateway
from smsqueue.ledger import Damaged, Record
from smsqueue.message.messages import check_tag
from smsqueue.message.states import State

__all__ = [
    "MessageFilters",
    "filter_options",
    "json_option",
    "limit_type",
    "parse_duration",
    "parse_past_time",
    "parse_tag",
    "parse_zoned_time",
    "reveal_option",
]

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
reveal_option = click.option("--reveal", is_flag=True, help="Show numbers and texts.")
limit_type = click.IntRange(min=1, max=1_000_000_000)


def parse_past_time(
    context: click.Context, option: click.Parameter, text: str | None
) -> datetime | None:
    """Parse an age (``30m``, ``2h``, ``1d``) or an ISO time, local unless it has a time zone.

    Raises:
        click.BadParameter: the text is neither, or the time is in the future.
    """
    if text is None:
        return None
    now = datetime.now(UTC)
    age = re.fullmatch(r"(\d{1,6})([smhd])", text.strip())
    try:
        if age:
            return now - timedelta(seconds=int(age[1]) * _UNIT_SECONDS[age[2]])
        at = datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"invalid time {text!r}: write how long ago, as 30m, 2h or 1d, or a time, as "
            "2030-01-31T09:00 (local time) or 2030-01-31T09:00+01:00"
        ) from None
    if at > now:
        raise click.BadParameter(f"{text!r} is in the future: give a time in the past")
    return at


def parse_duration(
    context: click.Context, option: click.Parameter, text: str | None
) -> timedelta | None:
    """Parse a length of time: ``90s``, ``30m``, ``2h`` or ``1d``.

    Raises:
        click.BadParameter: the text is not a length of time, or is zero.
    """
    if text is None:
        return None
    length = re.fullmatch(r"(\d{1,6})([smhd])", text.strip())
    if not length or not int(length[1]):
        raise click.BadParameter(f"invalid time {text!r}: write it as 90s, 30m, 2h or 1d")
    return timedelta(seconds=int(length[1]) * _UNIT_SECONDS[length[2]])


def parse_zoned_time(
    context: click.Context, option: click.Parameter, text: str | None
) -> datetime | None:
    """Parse an ISO time that must have a time zone.

    Raises:
        click.BadParameter: the text is not such a time.
    """
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"invalid time {text!r}: write it as 2030-01-31T09:00+01:00, with the time zone"
        ) from None
    if at.utcoffset() is None:
        raise click.BadParameter(
            f"{text!r} has no time zone: write it as 2030-01-31T09:00+01:00, or with Z for UTC"
        )
    return at


def parse_tag(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    """Validate a tag.

    Raises:
        click.BadParameter: the text is not a tag.
    """
    try:
        return text if text is None else check_tag(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@dataclass(frozen=True)
class MessageFilters:
    """The values of :func:`filter_options`; None or empty: no restriction."""

    states: tuple[str, ...]
    provider: str | None
    error: str | None
    tag: str | None
    since: datetime | None
    limit: int | None

    def __bool__(self) -> bool:
        return bool(self.states or self.by_details or self.limit)

    @property
    def by_details(self) -> bool:
        """True if a filter but --state and --limit is given; events have no such filters."""
        return (self.provider, self.error, self.tag, self.since) != (None, None, None, None)

    def select(
        self,
        gateway: Gateway,
        states: Iterable[State],
        until: Mapping[State, float] | None = None,
        on_damaged: Callable[[Damaged], None] | None = None,
    ) -> Iterator[Record]:
        """Matching messages in some states, state by state, the newest in it first; with a tag,
        those of all states, the newest message first. Has no limit.

        Args:
            until, on_damaged: See :meth:`~smsqueue.ledger.Ledger.select`.
        """
        return gateway.ledger.select(
            states,
            provider=self.provider,
            error=self.error,
            tag=self.tag,
            since=self.since,
            until=until,
            on_damaged=on_damaged,
        )


def filter_options(
    states: Iterable[str], *, default_limit: int | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the filter options; their names are the fields of :class:`MessageFilters`.

    Args:
        states: The states that --state accepts.
        default_limit: Default of --limit; None: no limit.
    """
    options = [
        click.option(
            "--state",
            "states",
            multiple=True,
            type=click.Choice(sorted(map(str, states))),
            help="Only this state; may be repeated.",
        ),
        click.option("--provider", help="Only messages whose last attempt was at this provider."),
        click.option(
            "--error", help="Only messages whose last error has this class or provider code."
        ),
        click.option("--tag", callback=parse_tag, help="Only messages with this tag."),
        click.option(
            "--since",
            callback=parse_past_time,
            metavar="TIME",
            help="Only messages that entered their state in the last 30m, 2h or 1d, or since an "
            "ISO time (local time if it has no zone).",
        ),
        click.option(
            "--limit",
            type=limit_type,
            default=default_limit,
            show_default=default_limit is not None,
            help="At most this many, the newest in their state.",
        ),
    ]

    def add_options(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add_options
