"""Which format a document is written in."""

from __future__ import annotations

from typing import Any

from smsqueue import exc
from smsqueue.providers.forward.original import Original
from smsqueue.providers.forward.own import MARK, VERSION, Own
from smsqueue.providers.forward.parts import Format
from smsqueue.settings import SettingsError

__all__ = ["format_named", "format_of"]

_OWN, _ORIGINAL = Own(), Original()
_NAMED: dict[str, Format] = {"smsqueue": _OWN, "smsframework": _ORIGINAL}


def format_named(name: str) -> Format:
    """The format of an application; SettingsError for a name that is none."""
    if name not in _NAMED:
        raise SettingsError(f"speak is {name!r}: use {' or '.join(map(repr, _NAMED))}")
    return _NAMED[name]


def format_of(document: dict[str, Any]) -> Format:
    """The format that a document is written in.

    Raises:
        UnsupportedError: a version of our own that this one does not know.
    """
    if MARK not in document:
        return _ORIGINAL
    if document[MARK] is True or document[MARK] != VERSION:
        raise exc.UnsupportedError(f"this side knows version {VERSION} only: upgrade it first")
    return _OWN
