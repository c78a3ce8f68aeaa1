"""Smart encoding: replaces characters that would make a text Unicode by similar ones of GSM-7.

One typographic quotation mark makes an SMS Unicode, so that each part holds 70 characters instead
of 160. The table holds characters that differ from their replacement in looks only. Letters are
never replaced, because that would change the spelling.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import NamedTuple

from smsqueue.message.segments import is_gsm7, segments_of

__all__ = ["Replacement", "SmartText", "smart_text"]

#: Each replacement, and the characters that it replaces.
_SIMILAR = {
    # Quotation marks, primes, grave and acute accents.
    "'": "\u2018\u2019\u201a\u201b\u2032\u2035\u02b9\u02bb\u02bc\u02bd\u2039\u203a`\u00b4\uff07",
    '"': "\u201c\u201d\u201e\u201f\u2033\u2036\u00ab\u00bb\u02ba\uff02",
    # Hyphens, dashes, the minus sign and the hyphen bullet.
    "-": "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2043\ufe58\ufe63\uff0d",
    # Spaces of other widths, the no-break space and the tab.
    " ": "\t\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u202f\u205f\u3000",
    "\n": "\u2028\u2029\u0085\u000b",
    "*": "\u2022\u2023\u25cf\u2219",
    ".": "\u2024",
    "...": "\u2026",
    "/": "\u2044\u2215",
    # Zero width: they are not visible.
    "": "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
    "\u2066\u2067\u2068\u2069\ufe0e\ufe0f",
}
_TABLE = {character: new for new, characters in _SIMILAR.items() for character in characters}
_REPLACEABLE = re.compile(f"[{re.escape(''.join(_TABLE))}]")


class Replacement(NamedTuple):
    """One kind of replacement in a text."""

    #: The characters that were written: one, or a letter with its combining marks.
    written: str
    #: What is sent instead; "": nothing.
    sent: str
    times: int


class SmartText(NamedTuple):
    """A text after smart encoding."""

    text: str
    #: In the order of their first occurrence; empty: the text is unchanged.
    replaced: tuple[Replacement, ...]


def smart_text(text: str) -> SmartText:
    """Replace characters so that a text takes fewer SMS, without changing its meaning.

    Combining marks are composed with their letters (NFC), which changes nothing visible. Other
    characters are replaced only if the whole text is in GSM-7 afterwards. A text in Arabic, or with
    an emoji, stays Unicode anyway; there, replacing would cost quality and save nothing. So joiners
    inside of emoji and of scripts that need them are kept.

    The text is returned unchanged if the result would take more SMS, as of many ellipses, or would
    be empty.
    """
    written = segments_of(text)
    if written.encoding == "gsm7":
        return SmartText(text, ())
    composed, compositions = _compose(text)
    substitutions: Counter[str] = Counter()

    def substitute(match: re.Match[str]) -> str:
        substitutions[match[0]] += 1
        return _TABLE[match[0]]

    similar = _REPLACEABLE.sub(substitute, composed)
    if similar and is_gsm7(similar) and segments_of(similar).parts <= written.parts:
        return SmartText(similar, (*compositions, *_list(substitutions)))
    if segments_of(composed).units < written.units:
        return SmartText(composed, compositions)
    return SmartText(text, ())


def _list(substitutions: Counter[str]) -> list[Replacement]:
    return [
        Replacement(written, _TABLE[written], count) for written, count in substitutions.items()
    ]


#: A character and the combining marks after it.
_COMBINED = re.compile(r"(?s:.)[\u0300-\u036f\u3099\u309a]*")


def _compose(text: str) -> tuple[str, tuple[Replacement, ...]]:
    """Compose letters with their combining marks (NFC)."""
    if unicodedata.is_normalized("NFC", text):
        return text, ()
    compositions: Counter[tuple[str, str]] = Counter()

    def compose(match: re.Match[str]) -> str:
        composed = unicodedata.normalize("NFC", match[0])
        if composed != match[0]:
            compositions[match[0], composed] += 1
        return composed

    composed = _COMBINED.sub(compose, text)
    return composed, tuple(
        Replacement(written, sent, count) for (written, sent), count in compositions.items()
    )
