"""Output of the commands: tables, JSON documents, and values formatted for people."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from smsqueue.ledger.server_facts import format_size

__all__ = [
    "format_count",
    "format_duration",
    "format_rate",
    "format_size",
    "format_time",
    "is_interactive",
    "make_console",
    "make_table",
    "print_json",
    "printable",
]

_DURATION_UNITS = ((86400.0, "days"), (3600.0, "h"), (60.0, "min"))
_PLURALS = {"is": "are", "was": "were", "has": "have", "waits": "wait"}


def make_console(*, stderr: bool = False) -> Console:
    """A console that does not interpret markup, and does not truncate piped output."""
    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = 200
    return console


def make_table(*headers: str) -> Table:
    """A table whose cells are wrapped, not truncated, on a narrow terminal."""
    table = Table(*headers, box=None, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    return table


def print_json(document: Any) -> None:
    """Print a JSON document, times in ISO format with milliseconds and a zone."""
    click.echo(json.dumps(document, indent=2, default=_json_default))


def _json_default(value: Any) -> str:
    return value.isoformat(timespec="milliseconds") if isinstance(value, datetime) else str(value)


def is_interactive() -> bool:
    """True if a person at a terminal can answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def printable(value: Any) -> str:
    """A value in one line; control characters are written as escape sequences. None is ``""``."""
    text = "" if value is None else str(value)
    return "".join(
        c if c.isprintable() or c == "\u200d" else c.encode("unicode_escape").decode() for c in text
    )


def format_time(at: datetime | None) -> str:
    """A time in the local time zone, with the zone and milliseconds; None is ``""``."""
    return at.astimezone().isoformat(" ", "milliseconds") if at else ""


def format_duration(seconds: float) -> str:
    """A duration, in the largest unit of which there are at least two."""
    for length, unit in _DURATION_UNITS:
        if seconds >= 2 * length:
            return f"{int(seconds / length)} {unit}"
    return f"{int(seconds)} s"


def format_rate(per_second: float) -> str:
    """A number per second; per minute or per hour if it is small."""
    for length, unit in ((1, "s"), (60, "min"), (3600, "h")):
        if per_second * length >= 0.1:
            return f"{per_second * length:.1f}/{unit}"
    return "0/s"


def format_count(number: int, noun: str, verb: str = "") -> str:
    """``"3 messages"``, or with the verb ``is``: ``"1 message is"`` or ``"3 messages are"``."""
    words = [str(number), noun if number == 1 else f"{noun}s"]
    return " ".join([*words, verb if number == 1 else _PLURALS[verb]] if verb else words)
