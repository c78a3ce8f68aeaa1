"""What a webhook tells is looked at once more before it is reported, for all providers."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from smsqueue.message.media import media_of
from smsqueue.message.messages import IncomingMessage
from smsqueue.message.statuses import MessageStatus

__all__ = [
    "ADDRESS",
    "ID",
    "NUMBER_ID",
    "PREFIXED_ID",
    "UUID",
    "Malformed",
    "check_lengths",
    "checked",
    "nested_too_deeply",
]

_Event = TypeVar("_Event", bound=IncomingMessage | MessageStatus)

#: Levels of lists and objects in what a provider tells beside.
_DEPTH = 24
#: Characters of a status, a code or a reference.
_LONGEST = 1024
#: Bits of an id or a code that is a number: JSON's may have 4300 digits.
_LONGEST_NUMBER = 256
#: An id, of providers that do not document how theirs look.
ID = re.compile(r"[A-Za-z0-9._:+/=@~-]{1,128}")
#: UUIDs and the like; the same with an underscore, as after a prefix; numbers.
UUID = re.compile("[0-9A-Za-z-]{1,64}")
PREFIXED_ID = re.compile("[0-9A-Za-z_-]{1,64}")
NUMBER_ID = re.compile("[0-9]{1,20}")
#: A number however it is written, a short code, a sender id, or an address of another channel.
ADDRESS = re.compile(r"[\w +()./&@:*#'!,-]{1,100}")
#: Neither ids nor words have them; in a log or a terminal they could stand for something else.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_KINDS: dict[type[Any], dict[str, Any]] = {
    IncomingMessage: {
        "src": str,
        "body": str,
        "dst": str | None,
        "msgid": str | int | None,
        "channel": str | None,
    },
    MessageStatus: {
        "msgid": str | int | None,
        "status": str | int | None,
        "status_code": str | int | float | None,
        "reference": str | None,
    },
}


class Malformed(ValueError):
    """What a webhook tells cannot be recorded: its sender is to blame, whoever finds out."""


def checked(event: _Event, ids: re.Pattern[str] = ID) -> _Event:
    """The event, if the ledger and handlers can take it.

    Its texts are texts; ids and addresses have the characters that those have; its ``meta`` is
    nested so little that it can be written and read anywhere. Media that are none are left out,
    as the text counts more.

    Args:
        ids: How the provider's message ids look.

    Raises:
        Malformed: it is not so. The text says which field is wrong, and nothing of its value.
    """
    kind = IncomingMessage if isinstance(event, IncomingMessage) else MessageStatus
    if isinstance(event, IncomingMessage):
        event.media = media_of(event.media)
    for name, allowed in _KINDS[kind].items():
        value = getattr(event, name)
        if not isinstance(value, allowed) or isinstance(value, bool):
            raise Malformed(f"{name} is a {type(value).__name__}")
        if isinstance(value, str) and name != "body":
            if len(value) > _LONGEST:
                raise Malformed(f"{name} has more than {_LONGEST} characters")
            if _CONTROL.search(value):
                raise Malformed(f"{name} has a control character")
        if isinstance(value, int) and value.bit_length() > _LONGEST_NUMBER:
            raise Malformed(f"{name} is a number of more than {_LONGEST_NUMBER} bits")
    if event.msgid is not None and not _fits(ids, event.msgid):
        raise Malformed("msgid does not look like an id of the provider's")
    if isinstance(event, IncomingMessage):
        for name in ("src", "dst"):
            value = getattr(event, name)
            if value and not ADDRESS.fullmatch(value):
                raise Malformed(f"{name} is neither a number nor another address")
    if nested_too_deeply(event.meta):
        raise Malformed("nested too deeply")
    return event


def _fits(form: re.Pattern[str], value: str | int) -> bool:
    if isinstance(value, int):
        return 0 <= value < 10**20
    return form.fullmatch(value) is not None


def check_lengths(event: IncomingMessage | MessageStatus) -> None:
    """Raise Malformed if an address, an id or a code is too long to be one.

    Of all providers, plugins too: what is longer would fill the ledger. Texts are cut there, and
    so is a code that is one: its report counts all the same.
    """
    kind = IncomingMessage if isinstance(event, IncomingMessage) else MessageStatus
    for name in _KINDS[kind]:
        value = getattr(event, name)
        cut = name in ("body", "status") or (name == "status_code" and isinstance(value, str))
        if not cut and _is_long(value):
            raise Malformed(f"{name} has more than {_LONGEST} characters")


def _is_long(value: Any) -> bool:
    if isinstance(value, int):  # Python refuses to write one of thousands of digits
        return value.bit_length() // 3 > _LONGEST
    return len(value if isinstance(value, str) else str(value)) > _LONGEST


def nested_too_deeply(value: Any) -> bool:
    """Has a JSON value more levels of lists and objects than can be read anywhere?"""
    level: list[Any] = [value]
    for _ in range(_DEPTH):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return bool(level)
