"""Masks numbers, texts and errors where personal data must not be shown."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

__all__ = ["body_size", "mask", "place_of", "shown_id", "word"]

#: A code like "NO_ROUTE", or up to three words like "not taken".
_WORD = re.compile(r"(?!.*\d{5})[A-Za-z0-9_.-]{1,64}|[a-z]{1,12}( [a-z]{1,12}){1,2}")


#: Any other text may be a name, or an address of another channel.
_DIGITS = re.compile(r"\+?[0-9]{8,}")


def mask(number: str | None) -> str:
    """A phone number with its middle hidden: ``'15551234567' -> '1555*****67'``.

    Other texts are hidden completely: ``'jane@example.com' -> '****************'``.
    """
    if not number:
        return ""
    if not _DIGITS.fullmatch(number):
        return "*" * len(number)
    return number[:4] + "*" * (len(number) - 6) + number[-2:]


#: A provider's message id has no spaces, unlike most texts.
_ID = re.compile(r"[!-~]{1,128}")


def body_size(body: object) -> str:
    """The length of a text, which may be shown."""
    return f"<{len(body)} characters>" if isinstance(body, str) else f"<{type(body).__name__}>"


def shown_id(msgid: Any) -> str:
    """A provider's message id, or a list of ids, for a repr; of other values only the type."""
    if msgid is None or (isinstance(msgid, str) and _ID.fullmatch(msgid)):
        return repr(msgid)
    if isinstance(msgid, int):
        return repr(msgid)
    if isinstance(msgid, list | tuple):
        return f"[{', '.join(map(shown_id, msgid))}]"
    return f"<{type(msgid).__name__}>"


def word(text: str) -> str:
    """A code from outside, if it looks like one: a sentence or a long number may be personal."""
    return text if _WORD.fullmatch(text) else "(not a word)"


def text_of(value: object) -> str:
    """``str(value)``, or the name of its type if that raises."""
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"


def place_of(error: BaseException) -> str:
    """Where an error was raised, innermost last: ``'shop/hooks.py:12 > shop/db.py:40'``.

    Used instead of a traceback, which would show the text of the error.
    """
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return " > ".join(f"{'/'.join(Path(f.filename).parts[-2:])}:{f.lineno}" for f in frames)
