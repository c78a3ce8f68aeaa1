"""Validates parsed events before they are recorded, for all providers."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from smsqueue.message.media import media_of
from smsqueue.message.messages import IncomingMessage
from smsqueue.message.statuses import MessageStatus
from smsqueue.providers.base.webhook_errors import Malformed

__all__ = [
    "ADDRESS",
    "ID",
    "NUMBER_ID",
    "PREFIXED_ID",
    "UUID",
    "check_lengths",
    "nested_too_deeply",
    "validate_event",
]

_Event = TypeVar("_Event", bound=IncomingMessage | MessageStatus)

#: Most levels of lists and objects in ``meta``.
_MAX_DEPTH = 24
#: Most characters of an id, an address, a status, a code or a reference.
_MAX_LENGTH = 1024
#: Most bits of a number that is an id or a code: JSON's may have 4300 digits.
_MAX_BITS = 256
#: Ids of providers that do not document their form.
ID = re.compile(r"[A-Za-z0-9._:+/=@~-]{1,128}")
#: UUIDs and the like; ids with a prefix and an underscore; numbers.
UUID = re.compile("[0-9A-Za-z-]{1,64}")
PREFIXED_ID = re.compile("[0-9A-Za-z_-]{1,64}")
NUMBER_ID = re.compile("[0-9]{1,20}")
#: A number in any notation, a short code, a sender id, or an address of another channel.
ADDRESS = re.compile(r"[\w +()./&@:*#'!,-]{1,100}")
#: Never part of ids or statuses; in a log or a terminal they could forge other output.
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FIELD_TYPES: dict[type[Any], dict[str, Any]] = {
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


def validate_event(event: _Event, ids: re.Pattern[str] = ID) -> _Event:
    """Return the event if the ledger and handlers can process it.

    Fields have their types; ids and addresses have only the characters that these can have;
    ``meta`` is not nested too deeply for other JSON parsers. Invalid media are left out, so that
    the text is not lost.

    Args:
        ids: The form of the provider's message ids.

    Raises:
        Malformed: a field is invalid. The text names the field, and does not show its value.
    """
    kind = IncomingMessage if isinstance(event, IncomingMessage) else MessageStatus
    if isinstance(event, IncomingMessage):
        event.media = media_of(event.media)
    for name, allowed in _FIELD_TYPES[kind].items():
        value = getattr(event, name)
        if not isinstance(value, allowed) or isinstance(value, bool):
            raise Malformed(f"{name} is a {type(value).__name__}")
        if isinstance(value, str) and name != "body":
            if len(value) > _MAX_LENGTH:
                raise Malformed(f"{name} has more than {_MAX_LENGTH} characters")
            if _CONTROL_CHARACTER.search(value):
                raise Malformed(f"{name} has a control character")
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise Malformed(f"{name} is a number of more than {_MAX_BITS} bits")
    if event.msgid is not None and not _matches(ids, event.msgid):
        raise Malformed("msgid does not have the form of the provider's ids")
    if isinstance(event, IncomingMessage):
        for name in ("src", "dst"):
            value = getattr(event, name)
            if value and not ADDRESS.fullmatch(value):
                raise Malformed(f"{name} is neither a number nor another address")
    if nested_too_deeply(event.meta):
        raise Malformed("nested too deeply")
    return event


def _matches(form: re.Pattern[str], value: str | int) -> bool:
    if isinstance(value, int):
        return 0 <= value < 10**20
    return form.fullmatch(value) is not None


def check_lengths(event: IncomingMessage | MessageStatus) -> None:
    """Raise Malformed if an address, an id or a numeric code is too long.

    For all providers, plugins included: longer values would fill the ledger. Texts, statuses and
    codes that are strings are truncated there instead, so that their report still counts.
    """
    kind = IncomingMessage if isinstance(event, IncomingMessage) else MessageStatus
    for name in _FIELD_TYPES[kind]:
        value = getattr(event, name)
        truncated = name in ("body", "status") or (name == "status_code" and isinstance(value, str))
        if not truncated and _is_too_long(value):
            raise Malformed(f"{name} has more than {_MAX_LENGTH} characters")


def _is_too_long(value: Any) -> bool:
    if isinstance(value, int):  # Python refuses to convert thousands of digits to a string
        return value.bit_length() // 3 > _MAX_LENGTH
    return len(value if isinstance(value, str) else str(value)) > _MAX_LENGTH


def nested_too_deeply(value: Any) -> bool:
    """Has a JSON value more levels of lists and objects than other JSON parsers accept?"""
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
    return bool(level)
