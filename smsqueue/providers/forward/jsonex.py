"""smsframework's JSON with objects in it, for applications that use its two functions.

Objects are ``{"?": [class, fields]}``, errors ``{"?E": [class, arguments]}``. What is read is data:
a class's name chooses among those we know, and only their known fields are taken.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from typing import Any

from smsqueue.message.messages import IncomingMessage, OutgoingMessage, OutgoingMessageOptions
from smsqueue.message.statuses import MessageStatus
from smsqueue.providers.checked import nested_too_deeply
from smsqueue.providers.forward.errors import known
from smsqueue.providers.forward.fields import mapping, named, scalar, sequence, text
from smsqueue.providers.forward.options import set_options
from smsqueue.providers.forward.original import OPTIONS, nearest_name
from smsqueue.providers.forward.parts import STATUSES, fill_status, nearest
from smsqueue.providers.forward.times import in_utc

__all__ = ["jsonex_dumps", "jsonex_loads"]

_OUTGOING = ("src", "dst", "body", "provider", "provider_options", "provider_params")
_INCOMING = ("msgid", "src", "body", "dst", "rtime", "meta", "provider")
_STATUS = ("msgid", "rtime", "meta", "provider")
_FACTS = ("accepted", "delivered", "expired", "error", "status_code", "status")


def jsonex_dumps(data: Any) -> bytes:
    """Write JSON data, with messages, reports, times, errors and other objects in it.

    Times have a fraction always, as smsframework reads no other; the times of messages and
    reports are in UTC, without a zone.

    Raises:
        TypeError: something in it is neither of these nor an object with attributes.
    """
    return json.dumps(data, default=_written).encode()


def jsonex_loads(s: bytes | str) -> Any:
    """Read what :func:`jsonex_dumps` or smsframework wrote.

    Objects of classes that are not known stay as they are written; errors of such classes become
    a RuntimeError.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or an object in it is malformed.
    """
    try:
        data = json.loads(s)
    except (RecursionError, UnicodeDecodeError):
        raise ValueError("not JSON, or nested too deeply") from None
    if nested_too_deeply(data):
        raise ValueError("nested too deeply")
    return _read(data)


def _written(value: Any) -> dict[str, Any]:
    if isinstance(value, datetime):
        return {"?": ["datetime", value.isoformat(timespec="microseconds")]}
    if isinstance(value, date):
        return {"?": ["date", value.isoformat()]}
    if isinstance(value, time):
        return {"?": ["time", value.isoformat(timespec="microseconds")]}
    if isinstance(value, BaseException):
        return {"?E": [_error_name(value), list(value.args)]}
    if isinstance(value, OutgoingMessageOptions):
        given = vars(value)
        return {"?": ["OutgoingMessageOptions", {n: given[n] for n in OPTIONS if n in given}]}
    if isinstance(value, OutgoingMessage):
        more = [n for n in ("routing_values", "msgid", "meta") if getattr(value, n) is not None]
        fields = {name: getattr(value, name) for name in (*_OUTGOING, *more)}
        return {"?": ["OutgoingMessage", fields]}
    if isinstance(value, IncomingMessage):
        return {"?": ["IncomingMessage", _with_time({n: getattr(value, n) for n in _INCOMING})]}
    if isinstance(value, MessageStatus):
        name = nearest(value)
        facts = [n for n in _FACTS if getattr(value, n) != getattr(STATUSES[name], n)]
        return {"?": [name, _with_time({n: getattr(value, n) for n in (*_STATUS, *facts)})]}
    try:
        return {"?": [type(value).__name__, vars(value)]}
    except TypeError:
        raise TypeError(f"a {type(value).__name__} cannot be written as JSON") from None


def _with_time(fields: dict[str, Any]) -> dict[str, Any]:
    if isinstance(fields["rtime"], datetime):
        fields["rtime"] = in_utc(fields["rtime"]).replace(tzinfo=None)
    return fields


def _error_name(error: BaseException) -> str:
    """The nearest class that the other side knows, else its own."""
    names = [each.__name__ for each in type(error).__mro__]
    return next((name for name in names if known(name)), names[0])


def _read(value: Any) -> Any:
    """A value with the objects in it, the innermost first."""
    if isinstance(value, list):
        return [_read(each) for each in value]
    if not isinstance(value, dict):
        return value
    value = {name: _read(each) for name, each in value.items()}
    told = next(iter(value.values())) if value.keys() in ({"?"}, {"?E"}) else None
    if not (isinstance(told, list) and len(told) == 2 and isinstance(told[0], str)):
        return value
    name, fields = told
    if "?E" in value:
        args = fields if isinstance(fields, list) else [fields]
        return (known(name) or RuntimeError)(*args)
    if name in _TIMES:
        return _TIMES[name](text(fields, f"a {name}"))
    kind = name if name in _OBJECTS else nearest_name(name)
    if kind != name and not name.endswith(kind):
        return value
    return _OBJECTS[kind](kind, mapping(fields, f"the fields of {kind}"))


def _outgoing(name: str, fields: dict[str, Any]) -> OutgoingMessage:
    message = OutgoingMessage(
        text(fields.get("dst"), "dst"),
        text(fields.get("body"), "body"),
        named(fields.get("src"), "src"),
        named(fields.get("provider"), "provider"),
    )
    options = fields.get("provider_options")
    if isinstance(options, OutgoingMessageOptions):
        message.provider_options = options
    message.provider_params = mapping(fields.get("provider_params"), "provider_params")
    route = sequence(fields.get("routing_values"), "routing_values")
    message.routing_values = None if route is None else tuple(route)
    message.msgid, message.meta = scalar(fields.get("msgid"), "msgid"), fields.get("meta")
    return message


def _options(name: str, fields: dict[str, Any]) -> OutgoingMessageOptions:
    message = OutgoingMessage("", "")
    set_options(message, fields, OPTIONS)
    return message.provider_options


def _incoming(name: str, fields: dict[str, Any]) -> IncomingMessage:
    message = IncomingMessage(
        text(fields.get("src"), "src"),
        text(fields.get("body"), "body"),
        scalar(fields.get("msgid"), "msgid"),
        named(fields.get("dst"), "dst"),
        _rtime(fields),
        mapping(fields.get("meta"), "meta"),
    )
    message.provider = named(fields.get("provider"), "provider")
    return message


def _status(name: str, fields: dict[str, Any]) -> MessageStatus:
    status = STATUSES[name](
        scalar(fields.get("msgid"), "msgid"), _rtime(fields), mapping(fields.get("meta"), "meta")
    )
    fill_status(status, fields)
    return status


def _rtime(fields: dict[str, Any]) -> datetime | None:
    """When a message or report came: smsframework writes UTC without a zone."""
    rtime = fields.get("rtime")
    if rtime is not None and not isinstance(rtime, datetime):
        raise ValueError("rtime is not a time")
    return None if rtime is None else in_utc(rtime).astimezone(UTC)


_TIMES: dict[str, Callable[[str], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
}
_OBJECTS: dict[str, Callable[[str, dict[str, Any]], Any]] = {
    "OutgoingMessage": _outgoing,
    "OutgoingMessageOptions": _options,
    "IncomingMessage": _incoming,
    **dict.fromkeys(STATUSES, _status),
}
