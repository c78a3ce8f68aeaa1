"""Ids of messages and events: 20 characters that sort by time."""

from __future__ import annotations

import os
import struct
import time

__all__ = ["new_id", "new_token", "time_of"]

_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
_LENGTH = 20
_TIME_LENGTH = 9  # 45 bits of milliseconds, enough for a thousand years
_RANDOM_BITS = (_LENGTH - _TIME_LENGTH) * 5


#: All pairs of letters, by their ten bits.
_PAIRS = [first + second for first in _LETTERS for second in _LETTERS]

#: Random 64-bit numbers of the operating system, which are read in batches.
_random: list[int] = []
_AT_ONCE = 128
# A forked child would make the same ids as its parent.
os.register_at_fork(after_in_child=_random.clear)


def _random_bits() -> int:
    """64 unpredictable bits."""
    try:
        return _random.pop()
    except IndexError:
        first, *others = struct.unpack(f"{_AT_ONCE}Q", os.urandom(8 * _AT_ONCE))
        _random.extend(others)
        return int(first)


def new_id() -> str:
    """A unique id: milliseconds since 1970, then 55 random bits."""
    random = _random_bits() & ((1 << _RANDOM_BITS) - 1)
    value = (time.time_ns() // 1_000_000) << _RANDOM_BITS | random
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in range(90, -1, -10)])


def new_token() -> str:
    """A token of a claim: 64 random bits as 16 hex digits."""
    return f"{_random_bits():016x}"


def time_of(id: str) -> float:
    """When an id was made, in seconds since 1970 by its maker's clock; 0: not an id of ours."""
    value = 0
    for letter in id[:_TIME_LENGTH]:
        value = value << 5 | max(_LETTERS.find(letter), 0)
    return value / 1000 if len(id) == _LENGTH else 0.0
