"""Opt-outs as values: which number wants no messages, from which sender and of which category."""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

from smsqueue.message.numbers import incoming_address

__all__ = ["OptOut", "OptOutChange", "opt_out_sender", "scope_of"]


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
    return f"{opt_out_sender(sender) if sender else '*'}|{category or '*'}"


def opt_out_sender(sender: str) -> str:
    """A sender as opt-outs name it: the digits of a phone number or short code, any other text
    unchanged. As ``opt_out_sender`` of the ledger's scripts.

    Raises:
        TypeError: it is not text.
    """
    address = incoming_address(sender)
    written = re.fullmatch(r"[0-9\s+()./-]+", address)
    return re.sub("[^0-9]", "", address).removeprefix("00") if written else address
