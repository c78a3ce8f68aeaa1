"""Values in words, for people and their terminals."""

from __future__ import annotations

from datetime import datetime
from typing import Any

__all__ = ["clean", "counted", "local", "size", "span"]

_SPANS = ((86400.0, "days"), (3600.0, "h"), (60.0, "min"))
_SIZES = ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB"))


def clean(value: Any) -> str:
    """A value for a terminal, in one line: what would steer it is written as an escape sequence."""
    text = "" if value is None else str(value)
    return "".join(
        c if c.isprintable() or c == "\u200d" else c.encode("unicode_escape").decode() for c in text
    )


def local(at: datetime | None) -> str:
    """A time as the user's clock shows it."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S}" if at else ""


def span(seconds: float) -> str:
    """A length of time, in the largest unit of which there are at least two."""
    for length, unit in _SPANS:
        if seconds >= 2 * length:
            return f"{int(seconds / length)} {unit}"
    return f"{int(seconds)} s"


def size(number: int) -> str:
    """A number of bytes."""
    for length, unit in _SIZES:
        if number >= length:
            return f"{number / length:.1f} {unit}"
    return f"{number} B"


def counted(number: int, what: str, verb: str = "") -> str:
    """``'1 message is'``, ``'3 messages are'``; without the verb ``is``: ``'3 messages'``."""
    many = {"is": "are", "was": "were", "has": "have", "waits": "wait"}
    words = [str(number), what if number == 1 else f"{what}s"]
    return " ".join([*words, verb if number == 1 else many[verb]] if verb else words)
