"""smsframework's JSON: objects are ``{"?": [class, fields]}``, errors ``{"?E": [class, args]}``.

:class:`SmsframeworkFormat` exchanges documents with an application that runs smsframework.
:func:`jsonex_dumps` and :func:`jsonex_loads` are for applications that use the format themselves.

Nothing that is read runs code: the name of a class selects one of those that we know, and only
its known fields are set.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from typing import Any

from smsqueue import exc
from smsqueue.message.messages import IncomingMessage, OutgoingMessage, OutgoingMessageOptions
from smsqueue.message.statuses import MessageStatus
from smsqueue.policy.retry import error_label
from smsqueue.providers.base.event_validation import nested_too_deeply
from smsqueue.providers.forward.protocol import (
    STATUS_CLASSES,
    ForwardedEvent,
    ForwardedMessage,
    error_class,
    read_list,
    read_name,
    read_object,
    read_options,
    read_scalar,
    read_text,
    read_time,
    set_status_fields,
    status_class_name,
    to_utc,
)

__all__ = ["SmsframeworkFormat", "jsonex_dumps", "jsonex_loads"]

#: The options of a message that smsframework has.
_OPTIONS = ("allow_reply", "status_report", "expires", "senderId", "escalate")
#: Fields of each class that are always written.
_OUTGOING_FIELDS = ("src", "dst", "body", "provider", "provider_options", "provider_params")
_INCOMING_FIELDS = ("msgid", "src", "body", "dst", "rtime", "meta", "provider")
_STATUS_FIELDS = ("msgid", "rtime", "meta", "provider")
#: Fields of a report that are written if they differ from the default of its class.
_OPTIONAL_STATUS_FIELDS = ("accepted", "delivered", "expired", "error", "status_code", "status")
#: Characters of an error's text.
_MAX_ERROR_TEXT = 300


# --- Forwarding ----------------------------------------------------------------------------------


class SmsframeworkFormat:
    """Writes and reads the documents of smsframework, which have no version, ids and hops."""

    has_message_ids = False

    def dump_message(self, forwarded: ForwardedMessage) -> dict[str, Any]:
        message = forwarded.message
        return {"message": _tag("OutgoingMessage", _message_fields(message, message.provider))}

    def load_message(self, document: dict[str, Any]) -> ForwardedMessage:
        _, fields = _untag(document.get("message"))
        message = OutgoingMessage(
            read_text(fields.get("dst"), "dst"),
            read_text(fields.get("body"), "body"),
            read_name(fields.get("src"), "src"),
            read_name(fields.get("provider"), "provider"),
        )
        route = read_list(fields.get("routing_values"), "routing_values")
        message.routing_values = None if route is None else tuple(route)
        message.provider_params = read_object(_untag_all(fields.get("provider_params")), "params")
        if fields.get("provider_options") is not None:
            read_options(_untag(fields["provider_options"])[1], _OPTIONS, message)
        return ForwardedMessage(message)

    def dump_accepted(self, message: OutgoingMessage, name: str | None) -> dict[str, Any]:
        fields = _message_fields(message, name)
        fields["msgid"] = message.msgid if message.id is None else message.id
        fields["meta"] = message.meta
        return {"message": _tag("OutgoingMessage", fields)}

    def load_accepted(self, document: dict[str, Any], message: OutgoingMessage) -> None:
        _, fields = _untag(document.get("message"))
        message.msgid = read_scalar(fields.get("msgid"), "msgid")
        meta = _untag_all(fields.get("meta"))
        provider = read_name(fields.get("provider"), "provider")
        forwarded = {"provider": provider, "msgid": message.msgid}
        message.meta = (meta if isinstance(meta, dict) else {}) | {"forwarded": forwarded}

    def dump_event(self, event: ForwardedEvent) -> dict[str, Any]:
        payload = event.payload
        has_time = isinstance(payload.rtime, datetime)
        # smsframework reads no time without a fraction, and none with a zone.
        rtime = to_utc(payload.rtime if has_time else datetime.now(UTC)).replace(tzinfo=None)
        fields = {
            "msgid": payload.msgid,
            "rtime": _tag("datetime", rtime.isoformat(timespec="microseconds")),
            "meta": payload.meta or {},
            "provider": payload.provider,
        }
        if isinstance(payload, IncomingMessage):
            fields |= {"src": payload.src, "dst": payload.dst, "body": payload.body}
            if payload.media:  # the format has no field for them
                fields["meta"] = {**fields["meta"], "media": list(map(list, payload.media))}
            return {"message": _tag("IncomingMessage", fields)}
        if event.id is not None:  # the id that the client got when it sent the message
            fields["msgid"] = event.id
        status_class = STATUS_CLASSES[status_class_name(payload)]
        fields |= _changed_status_fields(payload, status_class)
        return {"status": _tag(status_class.__name__, fields)}

    def load_event(self, field: str, document: dict[str, Any]) -> ForwardedEvent:
        name, fields = _untag(document.get(field))
        msgid = read_scalar(fields.get("msgid"), "msgid")
        rtime = _untag_time(fields.get("rtime"))
        meta = read_object(_untag_all(fields.get("meta")), "meta")
        if field == "status":
            status = STATUS_CLASSES[_base_status_name(name)](msgid, rtime, meta)
            set_status_fields(status, fields)
            return ForwardedEvent(status)
        dst = read_name(fields.get("dst"), "dst")
        src, body = read_text(fields.get("src"), "src"), read_text(fields.get("body"), "body")
        message = IncomingMessage(src, body, msgid, dst, rtime, meta)
        message.provider = read_name(fields.get("provider"), "provider")
        return ForwardedEvent(message)

    def dump_received(self, event: ForwardedEvent) -> dict[str, Any]:
        return self.dump_event(event)  # smsframework's server reads its own object back

    def load_received(self, field: str, document: dict[str, Any]) -> None:
        _untag(document.get(field))

    def dump_error(self, error: exc.ProviderError) -> dict[str, Any]:
        return {"error": {"?E": [error_label(error), [str(error)[:_MAX_ERROR_TEXT]]]}}

    def load_error(self, document: dict[str, Any]) -> exc.ProviderError | None:
        """The error in a document; None if it has none, or one that is malformed."""
        error = document.get("error")
        tagged = error.get("?E") if isinstance(error, dict) else None
        if not isinstance(tagged, list) or len(tagged) != 2 or not isinstance(tagged[1], list):
            return None
        name, args = tagged
        text = " ".join(str(arg) for arg in args if isinstance(arg, str | int | float))
        known = error_class(name)
        # The format does not say whether the provider may have the message. An error that the
        # provider reported is a refusal; but smsframework's plugins raise a plain
        # MessageSendError for every HTTP error, a gateway's timeout too.
        refusal = (
            known is not None
            and issubclass(known, exc.MessageSendError)
            and known is not exc.MessageSendError
        )
        return (known or exc.ServerError)(
            text[:_MAX_ERROR_TEXT] or "the server failed", ambiguous=not refusal
        )


def _tag(name: str, fields: Any) -> dict[str, Any]:
    return {"?": [name, fields]}


def _untag(value: Any) -> tuple[str, dict[str, Any]]:
    """Class name and fields of a tagged object; ValueError for anything else."""
    tagged = value.get("?") if isinstance(value, dict) and len(value) == 1 else None
    if not (isinstance(tagged, list) and len(tagged) == 2 and isinstance(tagged[0], str)):
        raise ValueError("not an object in smsframework's format")
    return tagged[0], read_object(tagged[1], "the fields")


def _untag_time(value: Any) -> datetime | None:
    """A tagged time in UTC; None for anything else."""
    tagged = value.get("?") if isinstance(value, dict) else None
    if not (isinstance(tagged, list) and len(tagged) == 2 and tagged[0] == "datetime"):
        return None
    return read_time(tagged[1], "a time")


def _untag_all(value: Any) -> Any:
    """Data with the fields of its tagged objects; a tagged time becomes its text."""
    if isinstance(value, list):
        return [_untag_all(item) for item in value]
    if not isinstance(value, dict):
        return value
    tagged = value.get("?")
    if len(value) == 1 and isinstance(tagged, list) and len(tagged) == 2:
        return tagged[1] if isinstance(tagged[1], str) else _untag_all(tagged[1])
    return {name: _untag_all(item) for name, item in value.items()}


def _message_fields(message: OutgoingMessage, provider: str | None) -> dict[str, Any]:
    fields: dict[str, Any] = {"src": message.src, "dst": message.dst, "body": message.body}
    fields |= {"provider": provider, "provider_params": message.provider_params}
    options = _options_fields(message.provider_options)
    fields["provider_options"] = _tag("OutgoingMessageOptions", options)
    if message.routing_values is not None:
        fields["routing_values"] = message.routing_values
    return fields


def _options_fields(options: OutgoingMessageOptions) -> dict[str, Any]:
    options_set = vars(options)
    return {name: options_set[name] for name in _OPTIONS if name in options_set}


def _changed_status_fields(
    status: MessageStatus, status_class: type[MessageStatus]
) -> dict[str, Any]:
    values = {name: getattr(status, name) for name in _OPTIONAL_STATUS_FIELDS}
    return {name: value for name, value in values.items() if value != getattr(status_class, name)}


def _base_status_name(name: str) -> str:
    """The class of reports whose name a plugin's class name ends with, else MessageStatus."""
    known = sorted(STATUS_CLASSES, key=len)
    return next((base for base in known if name.endswith(base)), "MessageStatus")


# --- The two functions ---------------------------------------------------------------------------


def jsonex_dumps(data: Any) -> bytes:
    """Write JSON data that contains messages, reports, times, errors and other objects.

    Times always have a fraction, because smsframework reads no other; the times of messages and
    reports are in UTC, without a zone.

    Raises:
        TypeError: it contains something else, without attributes.
    """
    return json.dumps(data, default=_dump_object).encode()


def jsonex_loads(s: bytes | str) -> Any:
    """Read what :func:`jsonex_dumps` or smsframework wrote.

    Objects of unknown classes stay as they are written; errors of unknown classes become a
    RuntimeError.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or an object in it is malformed.
    """
    try:
        data = json.loads(s)
    except (RecursionError, UnicodeDecodeError):
        raise ValueError("not JSON, or nested too deeply") from None
    if nested_too_deeply(data):
        raise ValueError("nested too deeply")
    return _load_value(data)


def _dump_object(value: Any) -> dict[str, Any]:
    if isinstance(value, datetime):
        return _tag("datetime", value.isoformat(timespec="microseconds"))
    if isinstance(value, date):
        return _tag("date", value.isoformat())
    if isinstance(value, time):
        return _tag("time", value.isoformat(timespec="microseconds"))
    if isinstance(value, BaseException):
        return {"?E": [_error_name(value), list(value.args)]}
    if isinstance(value, OutgoingMessageOptions):
        return _tag("OutgoingMessageOptions", _options_fields(value))
    if isinstance(value, OutgoingMessage):
        optional = ("routing_values", "msgid", "meta")
        names = [*_OUTGOING_FIELDS, *(n for n in optional if getattr(value, n) is not None)]
        return _tag("OutgoingMessage", {name: getattr(value, name) for name in names})
    if isinstance(value, IncomingMessage):
        fields = {name: getattr(value, name) for name in _INCOMING_FIELDS}
        return _tag("IncomingMessage", _with_naive_time(fields))
    if isinstance(value, MessageStatus):
        status_class = STATUS_CLASSES[status_class_name(value)]
        fields = {name: getattr(value, name) for name in _STATUS_FIELDS}
        fields |= _changed_status_fields(value, status_class)
        return _tag(status_class.__name__, _with_naive_time(fields))
    try:
        return _tag(type(value).__name__, vars(value))
    except TypeError:
        raise TypeError(f"a {type(value).__name__} cannot be written as JSON") from None


def _with_naive_time(fields: dict[str, Any]) -> dict[str, Any]:
    if isinstance(fields["rtime"], datetime):
        fields["rtime"] = to_utc(fields["rtime"]).replace(tzinfo=None)
    return fields


def _error_name(error: BaseException) -> str:
    """The nearest class that the other side knows, else its own."""
    names = [cls.__name__ for cls in type(error).__mro__]
    return next((name for name in names if error_class(name)), names[0])


def _load_value(value: Any) -> Any:
    """A value with its objects; inner objects are loaded first."""
    if isinstance(value, list):
        return [_load_value(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = {name: _load_value(item) for name, item in value.items()}
    tagged = next(iter(value.values())) if value.keys() in ({"?"}, {"?E"}) else None
    if not (isinstance(tagged, list) and len(tagged) == 2 and isinstance(tagged[0], str)):
        return value
    name, content = tagged
    if "?E" in value:
        args = content if isinstance(content, list) else [content]
        return (error_class(name) or RuntimeError)(*args)
    if name in _TIME_LOADERS:
        return _TIME_LOADERS[name](read_text(content, f"a {name}"))
    known = name if name in _OBJECT_LOADERS else _base_status_name(name)
    if not name.endswith(known):
        return value
    return _OBJECT_LOADERS[known](known, read_object(content, f"the fields of {known}"))


def _load_outgoing(name: str, fields: dict[str, Any]) -> OutgoingMessage:
    message = OutgoingMessage(
        read_text(fields.get("dst"), "dst"),
        read_text(fields.get("body"), "body"),
        read_name(fields.get("src"), "src"),
        read_name(fields.get("provider"), "provider"),
    )
    options = fields.get("provider_options")
    if isinstance(options, OutgoingMessageOptions):
        message.provider_options = options
    message.provider_params = read_object(fields.get("provider_params"), "provider_params")
    route = read_list(fields.get("routing_values"), "routing_values")
    message.routing_values = None if route is None else tuple(route)
    message.msgid, message.meta = read_scalar(fields.get("msgid"), "msgid"), fields.get("meta")
    return message


def _load_options(name: str, fields: dict[str, Any]) -> OutgoingMessageOptions:
    message = OutgoingMessage("", "")
    read_options(fields, _OPTIONS, message)
    return message.provider_options


def _load_incoming(name: str, fields: dict[str, Any]) -> IncomingMessage:
    message = IncomingMessage(
        read_text(fields.get("src"), "src"),
        read_text(fields.get("body"), "body"),
        read_scalar(fields.get("msgid"), "msgid"),
        read_name(fields.get("dst"), "dst"),
        _load_rtime(fields),
        read_object(fields.get("meta"), "meta"),
    )
    message.provider = read_name(fields.get("provider"), "provider")
    return message


def _load_status(name: str, fields: dict[str, Any]) -> MessageStatus:
    msgid = read_scalar(fields.get("msgid"), "msgid")
    meta = read_object(fields.get("meta"), "meta")
    status = STATUS_CLASSES[name](msgid, _load_rtime(fields), meta)
    set_status_fields(status, fields)
    return status


def _load_rtime(fields: dict[str, Any]) -> datetime | None:
    """The time of a message or report: smsframework writes UTC without a zone."""
    rtime = fields.get("rtime")
    if rtime is not None and not isinstance(rtime, datetime):
        raise ValueError("rtime is not a time")
    return None if rtime is None else to_utc(rtime)


_TIME_LOADERS: dict[str, Callable[[str], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
}
_OBJECT_LOADERS: dict[str, Callable[[str, dict[str, Any]], Any]] = {
    "OutgoingMessage": _load_outgoing,
    "OutgoingMessageOptions": _load_options,
    "IncomingMessage": _load_incoming,
    **dict.fromkeys(STATUS_CLASSES, _load_status),
}
