"""Puts each Lua script together out of its own text and those shared definitions that it uses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Definition", "definitions_of", "needed"]

#: A definition begins where a line does; what it has inside is indented.
_BEGINS = re.compile(r"^(?:local function|function|local) (\w+(?:, \w+)*)", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z_]\w*")
_COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)


class Definition(NamedTuple):
    """A statement at the outermost level of a shared file."""

    #: The local variables that it declares or, of ``function name``, whose value it sets.
    names: frozenset[str]
    #: All words in it: the names that it uses are among them.
    words: frozenset[str]
    text: str


def definitions_of(text: str) -> list[Definition]:
    """The definitions of a shared file, in their order."""
    code = _COMMENT.sub("", text)
    begins = list(_BEGINS.finditer(code))
    ends = [match.start() for match in begins[1:]] + [len(code)]
    found = []
    for match, end in zip(begins, ends, strict=True):
        part = code[match.start() : end]
        names = match.group(1).split(", ")
        found.append(Definition(frozenset(names), frozenset(_WORD.findall(part)), part.strip()))
    return found


def needed(definitions: Iterable[Definition], script: str) -> str:
    """Those definitions that a script uses, or that these use themselves.

    Redis runs all of a script's text at each call. To define what all the scripts share takes
    longer than most of them take themselves, and grows with the square of the number of functions:
    Lua looks for each variable that a function uses among all that are in use already.
    """
    everything = list(definitions)
    words, chosen = set(_WORD.findall(_COMMENT.sub("", script))), set[int]()
    while True:
        new = {
            n for n, definition in enumerate(everything)
            if n not in chosen and not words.isdisjoint(definition.names)
        }  # fmt: skip
        if not new:
            return "\n".join(everything[n].text for n in sorted(chosen))
        chosen |= new
        words.update(*(everything[n].words for n in new))
