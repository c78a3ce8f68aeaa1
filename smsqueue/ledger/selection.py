"""Which messages or events an operator's command is about."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = ["Selection"]


@dataclass(frozen=True)
class Selection:
    """Filters for messages or events; None or empty: no restriction."""

    #: In one of these states.
    states: tuple[str, ...]
    #: The provider of the last attempt, or of an event.
    provider: str | None = None
    #: Class or code of the last error.
    error: str | None = None
    #: All of these tags.
    tags: tuple[str, ...] = ()
    #: To this number, as the ledger stores it.
    number: str | None = None
    #: Entered their state at this time or later, at this time or earlier.
    since: datetime | None = None
    before: datetime | None = None
    #: At most so many, the newest first.
    limit: int | None = None
