"""Fields that are signed as one text: sorted, names and values without anything between them.

That text can be divided into other names and values, and the signature is that of all divisions. So
a division that the provider would not have written is refused: a field whose name goes on in its
value, a value that has begun in a name, a word of a text that has become a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from smsqueue.providers.checked import Malformed

__all__ = ["check_division"]

_NAME = re.compile("[A-Z][A-Za-z0-9_.-]{0,60}")
#: A name that no text has in it by chance.
_SEVERAL_WORDS = re.compile("[A-Z][a-z]+[A-Z][A-Za-z0-9_.-]*")
_NUMBERED = re.compile("([A-Za-z]+)[0-9]{1,3}")


def check_division(
    fields: Mapping[str, str],
    *,
    known: Iterable[str],
    numbered: Iterable[str],
    optional: Iterable[str],
    texts: Iterable[str],
    words: Iterable[str] = (),
) -> None:
    """Raise Malformed for fields that were divided otherwise than the provider does it.

    Args:
        known: Names that the provider documents.
        numbered: Those of them that a number follows, as in ``MediaUrl0``.
        optional: Those that count, and that a webhook may lack.
        texts: Names of what people write: whatever they write, it is theirs.
        words: Names of other fields whose values may be a word, or several: a sender id, which a
            number may be in place of.
    """
    known, optional, texts = frozenset(known), tuple(optional), frozenset(texts)
    names, before = sorted(fields), ""
    for name in names:
        value = fields[name]
        parts = _NUMBERED.fullmatch(name)
        is_known = name in known or (parts is not None and parts[1] in numbered)
        if not is_known:
            if not _NAME.fullmatch(name):
                raise Malformed("a field has a name that the provider does not use")
            if any(name.startswith(each) for each in optional):
                raise Malformed("a field has the beginning of a value in its name")
            if before in texts or (before in words and not _is_number(fields[before])):
                raise Malformed(
                    "behind a text or a sender there is a field that is not known; if the provider "
                    "really sends it, give its name with fields=[...]"
                )
        whole = name + value[:100]
        if any(len(each) > len(name) and whole.startswith(each) for each in known):
            raise Malformed("a field has the end of its name in its value")
        if name in texts:
            _check_text(name, value, known, names)
        before = name


def _is_number(address: str) -> bool:
    """Is it a number, here or in another channel? No name begins with its end."""
    return address.rpartition(":")[2].removeprefix("+").isdecimal()


def _check_text(name: str, value: str, known: frozenset[str], names: list[str]) -> None:
    """Raise Malformed for a text that has taken in the fields behind it."""
    after = names[names.index(name) + 1 :]
    until = after[0] if after else "\uffff"
    for each in known:
        if name < each < until and _SEVERAL_WORDS.fullmatch(each) and each in value:
            raise Malformed("a text has another field in it")
