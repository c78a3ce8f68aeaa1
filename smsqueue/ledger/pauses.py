"""Pauses by operators: of a provider, of a tag, or of everything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = ["EVERYTHING", "OperatorPause", "parse_held", "parse_provider_pause", "pause_scope"]

#: The scope of a pause of everything.
EVERYTHING = "all"


@dataclass(frozen=True)
class OperatorPause:
    """What an operator has paused. Nothing of it is sent until the pause ends."""

    #: "all", "tag:black-friday" or "provider:main".
    scope: str
    by: str
    reason: str
    since: datetime
    #: None: until an operator resumes it.
    until: datetime | None
    #: Messages that wait because of it; of a provider about how many.
    waiting: int = 0

    @property
    def kind(self) -> str:
        """all, tag or provider."""
        return self.scope.partition(":")[0]

    @property
    def name(self) -> str:
        """The tag or the provider; "" for everything."""
        return self.scope.partition(":")[2]

    def __str__(self) -> str:
        """``"tag black-friday"``, ``"provider main"`` or ``"everything"``."""
        return f"{self.kind} {self.name}" if self.name else "everything"


def pause_scope(provider: str | None, tag: str | None, everything: bool) -> str:
    """The scope of a pause.

    Raises:
        ValueError: not exactly one of the arguments is given.
    """
    given = [provider is not None, tag is not None, everything]
    if sum(given) != 1:
        raise ValueError("what? Give one of provider=, tag= and everything=True")
    if everything:
        return EVERYTHING
    return f"provider:{provider}" if provider is not None else f"tag:{tag}"


def parse_held(scope: str, text: str, now: float) -> OperatorPause | None:
    """A pause of a tag or of everything, as pause.lua writes it; None: it is over or damaged.

    Args:
        now: Redis's clock, in seconds.
    """
    ends, _, about = text.partition(" ")
    with suppress(ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError):
        if int(ends) and int(ends) / 1000 <= now:
            return None
        fields = json.loads(about)
        return OperatorPause(
            scope,
            str(fields["by"]),
            str(fields["reason"]),
            datetime.fromtimestamp(fields["since"] / 1000, UTC),
            datetime.fromtimestamp(int(ends) / 1000, UTC) if int(ends) else None,
        )
    return None


def parse_provider_pause(
    provider: str, fields: Mapping[str, str], now: float
) -> OperatorPause | None:
    """An operator's pause in the hash of a provider's pause; None: no operator paused it."""
    if "by" not in fields:
        return None
    with suppress(ValueError, KeyError, OverflowError, OSError):
        ends = int(float(fields["ends"])) / 1000 if "ends" in fields else None
        if ends is not None and ends <= now:
            return None
        return OperatorPause(
            f"provider:{provider}",
            fields["by"],
            fields.get("reason", ""),
            datetime.fromtimestamp(int(float(fields["paused_at"])) / 1000, UTC),
            None if ends is None else datetime.fromtimestamp(ends, UTC),
        )
    return None
