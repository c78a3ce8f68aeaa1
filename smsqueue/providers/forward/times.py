"""Times, which travel in UTC: smsframework's plugins give them without a zone, and mean UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from smsqueue.providers.forward.fields import text

__all__ = ["in_utc", "read_time"]


def in_utc(time: datetime) -> datetime:
    """The same time in UTC; ValueError if the calendar does not reach so far."""
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time before the first year, or after the last") from None


def read_time(value: Any, what: str) -> datetime:
    """A time in ISO format, in UTC; ValueError if it is none."""
    return in_utc(datetime.fromisoformat(text(value, what)))
