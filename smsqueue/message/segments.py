"""How a text is sent as SMS: its encoding and its parts.

The alphabet is the GSM 7 bit default alphabet with its extension table (3GPP TS 23.038, 6.2.1 and
6.2.1.1). National shift tables are not used, since phones need not support them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["Segments", "is_gsm7", "segments_of", "split"]

#: Septets 0x00 to 0x7F without 0x1B, which announces a character of the extension table.
_DEFAULT = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
#: Two septets each.
_EXTENSION = "\f^{}\\[~]|€"
_UNICODE = re.compile(f"[^{re.escape(_DEFAULT + _EXTENSION)}]")


@dataclass(frozen=True)
class Segments:
    """The SMS that a text takes.

    A unit is a septet in GSM-7 and a UTF-16 code unit in UCS-2.
    """

    encoding: Literal["gsm7", "ucs2"]
    #: Units of the whole text. A character of the extension table, or one beyond U+FFFF, is two.
    units: int
    #: Number of SMS that are sent and charged; 0 for an empty text.
    parts: int
    #: Units in each part: fewer if there are several, which begin with a header of six bytes.
    per_part: int
    #: Units that are free in the last part.
    remaining: int
    #: Index and text of the first character outside of GSM-7; None in GSM-7.
    first_unicode: tuple[int, str] | None


def is_gsm7(text: str) -> bool:
    """Does GSM-7 have every character of a text?"""
    return _UNICODE.search(text) is None


def segments_of(text: str) -> Segments:
    """The segments of a text, in linear time."""
    match = _UNICODE.search(text)
    first = (match.start(), match[0]) if match else None
    units, per_part = _measure(text, first is not None)
    used = [used for _, used in _cut(text, first is not None, per_part)]
    left = per_part - (used[-1] if used else 0)
    return Segments("ucs2" if first else "gsm7", units, len(used), per_part, left, first)


def split(text: str) -> list[str]:
    """The texts of the parts, in order; joined, they are the text.

    Escape pairs (GSM-7) and surrogate pairs (UTF-16) are not split: the part then has one unit
    less. A visible character of several code points (a combining accent, an emoji with a skin tone)
    may be split; the phone joins the parts and shows it whole.
    """
    unicode = not is_gsm7(text)
    _, per_part = _measure(text, unicode)
    return [part for part, _ in _cut(text, unicode, per_part)]


def _measure(text: str, unicode: bool) -> tuple[int, int]:
    """The units of a text, and how many fit into each of its parts."""
    if unicode:
        units, alone, joined = len(text.encode("utf-16-le", "surrogatepass")) // 2, 70, 67
    else:
        units, alone, joined = len(text) + sum(map(text.count, _EXTENSION)), 160, 153
    return units, alone if units <= alone else joined


def _cut(text: str, unicode: bool, per_part: int) -> Iterator[tuple[str, int]]:
    """The parts of a text, each with its units."""
    start = used = 0
    for i, character in enumerate(text):
        pair = character > "\uffff" if unicode else character in _EXTENSION
        if used + 1 + pair > per_part:
            yield text[start:i], used
            start, used = i, 0
        used += 1 + pair
    if text:
        yield text[start:], used
