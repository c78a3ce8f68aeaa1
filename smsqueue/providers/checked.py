"""What a webhook tells is looked at once more before it is reported, for all providers."""

from __future__ import annotations

from typing import Any, TypeVar

from smsqueue.media import media_of
from smsqueue.messages import IncomingMessage
from smsqueue.statuses import MessageStatus

__all__ = ["Malformed", "checked", "nested_too_deeply"]

_Event = TypeVar("_Event", IncomingMessage, MessageStatus)

#: Levels of lists and objects in what a provider tells beside.
_DEPTH = 24
#: Characters of an address, an id or a code.
_LONGEST = 1024
#: Bits of an id or a code that is a number: JSON's may have 4300 digits.
_LONGEST_NUMBER = 256
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


def checked(event: _Event) -> _Event:
    """The event, if the ledger and handlers can take it.

    Its texts are texts, its ids texts or whole numbers; its ``meta`` is nested so little that it
    can be written and read anywhere. Media that are none are left out, as the text counts more.

    Raises:
        Malformed: they are not.
    """
    kind = IncomingMessage if isinstance(event, IncomingMessage) else MessageStatus
    if isinstance(event, IncomingMessage):
        event.media = media_of(event.media)
    for name, allowed in _KINDS[kind].items():
        value = getattr(event, name)
        if not isinstance(value, allowed) or isinstance(value, bool):
            raise Malformed(f"{name} is a {type(value).__name__}")
        if isinstance(value, str) and len(value) > _LONGEST and name not in ("body", "status"):
            raise Malformed(f"{name} has more than {_LONGEST} characters")
        if isinstance(value, int) and value.bit_length() > _LONGEST_NUMBER:
            raise Malformed(f"{name} is a number of more than {_LONGEST_NUMBER} bits")
    if nested_too_deeply(event.meta):
        raise Malformed("nested too deeply")
    return event


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
