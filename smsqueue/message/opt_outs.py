"""Opt-outs as values: which number wants no messages, from which sender and of which category."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from smsqueue.message.numbers import incoming_address

__all__ = ["OptOut", "OptOutChange", "scope_of"]


class OptOut(NamedTuple):
    """An opt-out of a number."""

    #: Personal data.
    number: str
    #: Sender whose messages are not wanted, and their category; None: of all.
    sender: str | None
    category: str | None
    at: datetime
    #: The word, the provider and its code, or what the operator or application gave.
    why: str
    #: "keyword", "provider", "operator" or "application".
    by: str


class OptOutChange(NamedTuple):
    """A change of a number's opt-outs."""

    #: Which messages, see :func:`scope_of`.
    scope: str
    why: str
    by: str
    #: It ends opt-outs of this scope.
    ends: bool = False


def scope_of(sender: str | None, category: str | None) -> str:
    """The name of an opt-out: which sender's messages of which category; "*": of all."""
    return f"{incoming_address(sender) if sender else '*'}|{category or '*'}"
