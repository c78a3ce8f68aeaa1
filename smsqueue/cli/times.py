"""Times on the command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

__all__ = ["aware", "past"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def past(context: click.Context, option: click.Parameter, text: str | None) -> datetime | None:
    """Of an option: ``2h`` ago, or an ISO time; without a time zone it is local time."""
    if text is None:
        return None
    now = datetime.now(UTC)
    length = re.fullmatch(r"(\d{1,6})([smhd])", text.strip())
    try:
        if length:
            return now - timedelta(seconds=int(length[1]) * _UNITS[length[2]])
        at = datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is no time: write how long ago, as 30m, 2h or 1d, or a time, as "
            "2030-01-31T09:00 (local time) or 2030-01-31T09:00+01:00"
        ) from None
    if at > now:
        raise click.BadParameter(f"{text!r} is yet to come: nothing happened since")
    return at


def aware(context: click.Context, option: click.Parameter, text: str | None) -> datetime | None:
    """Of an option: an ISO time with its time zone."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no time: write it as 2030-01-31T09:00+01:00, with the time zone"
        ) from None
    if at.utcoffset() is None:
        raise click.BadParameter(
            f"{text!r} has no time zone: write it as 2030-01-31T09:00+01:00, or with Z for UTC"
        )
    return at
