"""Detects shifted boundaries between form fields that are signed as one text.

Twilio and Plivo sign sorted names and values without separators. Such a text can be divided into
other names and values that have the same signature. So a division that the provider would not have
written is rejected: a name that continues in its value, a value that begins in a name, a word of a
text that has become a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from smsqueue.providers.base.webhook_errors import Malformed

__all__ = ["check_field_boundaries"]

_NAME = re.compile("[A-Z][A-Za-z0-9_.-]{0,60}")
#: A name that texts do not contain by chance.
_SEVERAL_WORDS = re.compile("[A-Z][a-z]+[A-Z][A-Za-z0-9_.-]*")
_NUMBERED = re.compile("([A-Za-z]+)[0-9]{1,3}")


def check_field_boundaries(
    fields: Mapping[str, str],
    *,
    known: Iterable[str],
    numbered: Iterable[str],
    optional: Iterable[str],
    texts: Iterable[str],
    words: Iterable[str] = (),
) -> None:
    """Raise Malformed if the provider would not divide its signed text into these fields.

    Args:
        known: Names that the provider documents.
        numbered: Those of them that end in a number, as ``MediaUrl0``.
        optional: Those that we read, and that a webhook may lack.
        texts: Names of fields with free text.
        words: Names of other fields whose values may be words: sender ids, where there is no
            number.
    """
    known, optional, texts = frozenset(known), tuple(optional), frozenset(texts)
    names, previous = sorted(fields), ""
    for name in names:
        value = fields[name]
        parts = _NUMBERED.fullmatch(name)
        is_known = name in known or (parts is not None and parts[1] in numbered)
        if not is_known:
            if not _NAME.fullmatch(name):
                raise Malformed("the name of a field is not one of the provider's")
            if any(name.startswith(prefix) for prefix in optional):
                raise Malformed("the name of a field holds the beginning of its value")
            if previous in texts or (previous in words and not _is_number(fields[previous])):
                raise Malformed(
                    "an unknown field follows a text or a sender; if the provider really sends it, "
                    "add the provider with its name in fields=[...]"
                )
        joined = name + value[:100]
        if any(len(other) > len(name) and joined.startswith(other) for other in known):
            raise Malformed("the value of a field holds the end of its name")
        if name in texts:
            _check_text(name, value, known, names)
        previous = name


def _is_number(address: str) -> bool:
    """Is it a number, of an SMS or another channel? No name begins with the end of a number."""
    return address.rpartition(":")[2].removeprefix("+").isdecimal()


def _check_text(name: str, value: str, known: frozenset[str], names: list[str]) -> None:
    """Raise Malformed for a text that contains the fields that should follow it."""
    following = names[names.index(name) + 1 :]
    until = following[0] if following else "\uffff"
    for other in known:
        if name < other < until and _SEVERAL_WORDS.fullmatch(other) and other in value:
            raise Malformed("a text contains another field")
