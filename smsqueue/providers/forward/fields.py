"""Reading what another machine wrote: known fields of known types, bounded, nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from smsqueue.providers.checked import nested_too_deeply

__all__ = [
    "flag",
    "mapping",
    "named",
    "number",
    "parse",
    "scalar",
    "sequence",
    "text",
    "texts",
]

#: Characters of a name, an id or a code.
MAX_NAME = 200


def parse(body: bytes) -> dict[str, Any]:
    """A JSON object; ValueError if it is none, or nested too deeply."""
    try:
        document = json.loads(body, parse_constant=_no_constant)
    except (RecursionError, UnicodeDecodeError):
        raise ValueError("not JSON, or nested too deeply") from None
    if nested_too_deeply(document):
        raise ValueError("nested too deeply")
    return mapping(document, "the document")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def mapping(value: Any, what: str) -> dict[str, Any]:
    """An object; None counts as an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not an object")
    return value


def sequence(value: Any, what: str) -> list[Any] | None:
    """A list, or None."""
    if value is not None and not isinstance(value, list):
        raise ValueError(f"{what} is not a list")
    return value


def texts(value: Any, what: str, most: int = 64) -> tuple[str, ...]:
    """A list of short texts; None counts as an empty one."""
    found = sequence(value, what) or []
    if len(found) > most:
        raise ValueError(f"{what} is too long")
    return tuple(str(named(each, what)) for each in found)


def text(value: Any, what: str) -> str:
    """A text of any length."""
    if not isinstance(value, str):
        raise ValueError(f"{what} is not a text")
    return value


def named(value: Any, what: str) -> str | None:
    """A short text, or None."""
    if value is None or (isinstance(value, str) and len(value) <= MAX_NAME):
        return value
    raise ValueError(f"{what} is not a short text")


def scalar(value: Any, what: str) -> Any:
    """A text, a number, a truth value, or None."""
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"{what} is not a single value")


def flag(value: Any, what: str, allowed: Sequence[Any] = (True, False)) -> bool | None:
    """A truth value, or None where that is allowed."""
    if isinstance(value, bool) or (value is None and None in allowed):
        return value
    raise ValueError(f"{what} is neither true nor false")


def number(value: Any, what: str, most: float) -> float | None:
    """A number from 0 to ``most``, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ValueError(f"{what} is not a number")
    # Not float() first: a whole number may be longer than any float.
    return float(min(max(value, 0), most))
