"""How numbers and errors are shown where personal data must not be."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

__all__ = ["body_size", "mask", "place_of", "shown_id", "word"]

#: A word like "NO_ROUTE", or some like "not taken", which are codes of our own.
_WORD = re.compile(r"(?!.*\d{5})[A-Za-z0-9_.-]{1,64}|[a-z]{1,12}( [a-z]{1,12}){1,2}")


#: Anything else is a name, or somebody's address in another channel.
_DIGITS = re.compile(r"\+?[0-9]{8,}")


def mask(number: str | None) -> str:
    """A phone number with its middle hidden: ``'15551234567' -> '1555*****67'``.

    Of what is no number nothing is shown: ``'jane@example.com' -> '****************'``.
    """
    if not number:
        return ""
    if not _DIGITS.fullmatch(number):
        return "*" * len(number)
    return number[:4] + "*" * (len(number) - 6) + number[-2:]


#: A provider's message id has no spaces, a text mostly has some.
_ID = re.compile(r"[!-~]{1,128}")


def body_size(body: object) -> str:
    """What of a text may be shown: its length."""
    return f"<{len(body)} characters>" if isinstance(body, str) else f"<{type(body).__name__}>"


def shown_id(msgid: Any) -> str:
    """A provider's message id, or a list of them, for a repr; of anything else only its type."""
    if msgid is None or (isinstance(msgid, str) and _ID.fullmatch(msgid)):
        return repr(msgid)
    if isinstance(msgid, int):
        return repr(msgid)
    if isinstance(msgid, list | tuple):
        return f"[{', '.join(map(shown_id, msgid))}]"
    return f"<{type(msgid).__name__}>"


def word(text: str) -> str:
    """What a provider, or another side, wrote for a word or a code, if it is one: a sentence or a
    long number there may be about somebody."""
    return text if _WORD.fullmatch(text) else "(not a word)"


def text_of(value: object) -> str:
    """``str(value)``, or the name of its type if that raises."""
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"


def place_of(error: BaseException) -> str:
    """Where an error was raised, innermost last: ``'shop/hooks.py:12 > shop/db.py:40'``.

    In place of a traceback, whose last line would show the error's text.
    """
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return " > ".join(f"{'/'.join(Path(f.filename).parts[-2:])}:{f.lineno}" for f in frames)
