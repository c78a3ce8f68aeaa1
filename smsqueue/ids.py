"""Ids of messages and events: 20 characters that sort by time."""

from __future__ import annotations

import secrets
import time

__all__ = ["new_id", "time_of"]

_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
_LENGTH = 20
_TIME_LENGTH = 9  # 45 bits of milliseconds, enough for a thousand years
_RANDOM_BITS = (_LENGTH - _TIME_LENGTH) * 5


def new_id() -> str:
    """An id that nobody else makes: milliseconds since 1970, then 55 random bits."""
    value = (time.time_ns() // 1_000_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    return "".join(_LETTERS[(value >> shift) & 31] for shift in range((_LENGTH - 1) * 5, -1, -5))


def time_of(id: str) -> float:
    """When an id was made, in seconds since 1970 by its maker's clock; 0 if it is not ours."""
    value = 0
    for letter in id[:_TIME_LENGTH]:
        value = value << 5 | max(_LETTERS.find(letter), 0)
    return value / 1000 if len(id) == _LENGTH else 0.0
