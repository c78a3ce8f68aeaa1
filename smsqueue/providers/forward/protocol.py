"""The documents that the two sides exchange, and smsqueue's own format of them.

That format, version 1, is JSON with named fields. A reader ignores fields that it does not know,
and refuses other versions. smsframework's format is in :mod:`smsqueue.providers.forward.jsonex`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from smsqueue import exc
from smsqueue.message import statuses
from smsqueue.message.media import media_of
from smsqueue.message.messages import IncomingMessage, OutgoingMessage, OutgoingMessageOptions
from smsqueue.message.statuses import MessageStatus
from smsqueue.policy.retry import error_label
from smsqueue.providers.base.event_validation import nested_too_deeply
from smsqueue.providers.http import MAX_RETRY_AFTER

__all__ = [
    "MARK",
    "STATUS_CLASSES",
    "Format",
    "ForwardedEvent",
    "ForwardedMessage",
    "Payload",
    "SmsqueueFormat",
    "check_version",
    "error_class",
    "parse_document",
    "read_list",
    "read_name",
    "read_object",
    "read_options",
    "read_scalar",
    "read_text",
    "read_time",
    "set_status_fields",
    "status_class_name",
    "to_utc",
]

#: The field that marks a document of smsqueue's format, and the version in it.
MARK = "smsqueue"
VERSION = 1

Payload = IncomingMessage | MessageStatus

#: Classes of reports, by name.
STATUS_CLASSES: dict[str, type[MessageStatus]] = {
    name: getattr(statuses, name) for name in statuses.__all__
}
#: Flags of a report, and the values that each may have beside True and False.
_STATUS_FLAGS = {"accepted": (None,), "delivered": (None,), "expired": (), "error": ()}
_STATUS_FIELDS = (*_STATUS_FLAGS, "status_code", "status")
#: Options of a message that smsqueue's format has; ``send_at`` is written as a text.
_OPTIONS = (
    *("allow_reply", "status_report", "expires", "senderId", "escalate", "on_unknown"),
    "tag",
)
#: Fields that identify an accepted message at the server, or at its provider.
_ID_FIELDS = {"id", "msgid"}
#: Errors that may cross the connection. QueueUnavailable means a client's own ledger.
_ERROR_CLASSES: dict[str, type[exc.ProviderError]] = {
    cls.__name__: cls
    for cls in vars(exc).values()
    if isinstance(cls, type)
    and issubclass(cls, exc.ProviderError)
    and not issubclass(cls, exc.QueueUnavailable)
}
#: Characters of an error's text, of its code, and of a name or an id.
_MAX_ERROR_TEXT, _MAX_CODE, _MAX_NAME = 300, 64, 200


# --- What is forwarded ---------------------------------------------------------------------------


@dataclass(frozen=True)
class ForwardedMessage:
    """An outgoing message that a client forwards to its server."""

    message: OutgoingMessage
    #: The client's id of the message, and the number of the attempt; None without a ledger.
    id: str | None = None
    attempt: int = 1
    #: Names of the gateways that it has passed; the first one is where it was sent.
    hops: tuple[str, ...] = ()
    #: The answer to the same attempt was lost before: the server may have the message.
    repeated: bool = False
    #: Signature of the request; None: it was not signed.
    signature: str | None = None

    @property
    def reference(self) -> str | None:
        """The reference of the attempt in the client's ledger."""
        return None if self.id is None else f"{self.id}.{self.attempt}"


@dataclass(frozen=True)
class ForwardedEvent:
    """An incoming message or a report that a server forwards to a client."""

    #: With the names and ids of the server's provider.
    payload: Payload
    #: The server's own id: of the incoming message, or of the message reported on.
    id: str | None = None
    #: Names of the gateways that it has passed.
    hops: tuple[str, ...] = ()


class Format(Protocol):
    """A format of documents. Each ``load_...`` raises ValueError if a document is malformed."""

    #: Whether documents have an id by which the server recognizes a repeated message.
    has_message_ids: bool

    # A client's message, and the server's answer.
    def dump_message(self, forwarded: ForwardedMessage) -> dict[str, Any]: ...
    def load_message(self, document: dict[str, Any]) -> ForwardedMessage: ...
    def dump_accepted(self, message: OutgoingMessage, name: str | None) -> dict[str, Any]: ...
    def load_accepted(self, document: dict[str, Any], message: OutgoingMessage) -> None: ...

    # A server's event, and the client's answer. The field is ``message`` or ``status``.
    def dump_event(self, event: ForwardedEvent) -> dict[str, Any]: ...
    def load_event(self, field: str, document: dict[str, Any]) -> ForwardedEvent: ...
    def dump_received(self, event: ForwardedEvent) -> dict[str, Any]: ...
    def load_received(self, field: str, document: dict[str, Any]) -> None: ...

    def dump_error(self, error: exc.ProviderError) -> dict[str, Any]: ...
    def load_error(self, document: dict[str, Any]) -> exc.ProviderError | None: ...


# --- smsqueue's format ---------------------------------------------------------------------------


class SmsqueueFormat:
    """Writes and reads documents of version 1."""

    has_message_ids = True

    def dump_message(self, forwarded: ForwardedMessage) -> dict[str, Any]:
        message = forwarded.message
        options_set = vars(message.provider_options)
        options = {name: options_set[name] for name in _OPTIONS if name in options_set}
        if message.provider_options.send_at is not None:
            options["send_at"] = message.provider_options.send_at.isoformat()
        return {
            MARK: VERSION,
            "id": forwarded.id,
            "attempt": forwarded.attempt,
            "repeated": forwarded.repeated,
            "hops": forwarded.hops,
            "message": {
                "dst": message.dst,
                "body": message.body,
                "src": message.src,
                "route": message.routing_values,
                "params": message.provider_params,
                "options": options,
            },
        }

    def load_message(self, document: dict[str, Any]) -> ForwardedMessage:
        fields = read_object(document.get("message"), "message")
        message = OutgoingMessage(
            read_text(fields.get("dst"), "dst"),
            read_text(fields.get("body"), "body"),
            read_name(fields.get("src"), "src"),
        )
        # The client has normalized the number, by its own region.
        message.dst_written = (f"+{message.dst}", message.dst)
        route = read_list(fields.get("route"), "route")
        message.routing_values = None if route is None else tuple(route)
        message.provider_params = read_object(fields.get("params"), "params")
        read_options(read_object(fields.get("options"), "options"), _OPTIONS, message)
        attempt = _read_number(document.get("attempt"), "attempt", 1e9)
        return ForwardedMessage(
            message,
            read_name(document.get("id"), "id"),
            int(attempt or 1),
            _read_names(document.get("hops"), "hops"),
            bool(_read_flag(document.get("repeated", False), "repeated")),
        )

    def dump_accepted(self, message: OutgoingMessage, name: str | None) -> dict[str, Any]:
        fields = {"id": message.id, "msgid": message.msgid, "meta": message.meta}
        fields |= {"duplicate": message.duplicate, "provider": message.provider}
        return {MARK: VERSION, "taken": fields}

    def load_accepted(self, document: dict[str, Any], message: OutgoingMessage) -> None:
        fields = document.get("taken")
        if not isinstance(fields, dict) or not _is_current(document):
            raise ValueError("the server does not confirm the message")
        if not fields.keys() & _ID_FIELDS:
            raise ValueError("the server gives no id of the message")
        id = read_name(fields.get("id"), "id")
        message.msgid = read_scalar(fields.get("msgid"), "msgid") if id is None else id
        forwarded = {name: fields.get(name) for name in ("provider", "msgid", "duplicate")}
        message.meta = read_object(fields.get("meta"), "meta") | {"forwarded": forwarded}

    def dump_event(self, event: ForwardedEvent) -> dict[str, Any]:
        payload = event.payload
        fields = {"msgid": payload.msgid, "provider": payload.provider, "meta": payload.meta}
        has_time = isinstance(payload.rtime, datetime)
        fields["rtime"] = to_utc(payload.rtime).isoformat() if has_time else None
        if isinstance(payload, IncomingMessage):
            fields |= {"src": payload.src, "dst": payload.dst, "body": payload.body}
            fields |= {"media": payload.media, "channel": payload.channel}
        else:
            fields |= {name: getattr(payload, name) for name in _STATUS_FIELDS}
            fields |= {"class": status_class_name(payload), "reference": payload.reference}
        field = "message" if isinstance(payload, IncomingMessage) else "status"
        return {MARK: VERSION, "id": event.id, "hops": event.hops, field: fields}

    def load_event(self, field: str, document: dict[str, Any]) -> ForwardedEvent:
        fields = read_object(document.get(field), field)
        msgid = read_scalar(fields.get("msgid"), "msgid")
        payload: Payload
        if field == "message":
            dst = read_name(fields.get("dst"), "dst")
            src, body = read_text(fields.get("src"), "src"), read_text(fields.get("body"), "body")
            payload = IncomingMessage(src, body, msgid, dst)
            payload.media = media_of(fields.get("media"))
            payload.channel = read_name(fields.get("channel"), "channel")
            payload.provider = read_name(fields.get("provider"), "provider")
        else:
            status_class = STATUS_CLASSES.get(read_text(fields.get("class"), "class"))
            if status_class is None:
                raise ValueError("an unknown class of reports")
            payload = status = status_class(msgid)
            set_status_fields(status, fields)
            status.reference = read_name(fields.get("reference"), "reference")
        payload.meta = read_object(fields.get("meta"), "meta")
        if fields.get("rtime") is not None:
            payload.rtime = read_time(fields["rtime"], "rtime")
        hops = _read_names(document.get("hops"), "hops")
        return ForwardedEvent(payload, read_name(document.get("id"), "id"), hops)

    def dump_received(self, event: ForwardedEvent) -> dict[str, Any]:
        return {MARK: VERSION, "heard": True}

    def load_received(self, field: str, document: dict[str, Any]) -> None:
        if MARK not in document and field in document:
            raise _speaks_smsframework()  # it returns the object that it read
        if not _is_current(document) or document.get("heard") is not True:
            raise ValueError("the client does not confirm the event")

    def dump_error(self, error: exc.ProviderError) -> dict[str, Any]:
        code = error.code
        fields = {
            "class": error_label(error),
            "code": code if code is None or isinstance(code, int) else str(code)[:_MAX_CODE],
            "retry_after": error.retry_after,
            "ambiguous": bool(error.ambiguous),
            "text": str(error)[:_MAX_ERROR_TEXT],
        }
        return {MARK: VERSION, "error": fields}

    def load_error(self, document: dict[str, Any]) -> exc.ProviderError | None:
        """The error in a document; None if it has none, or one that is malformed."""
        fields = document.get("error")
        if not isinstance(fields, dict):
            return None
        if "?E" in fields:
            return _speaks_smsframework()
        cls, code = error_class(fields.get("class")), fields.get("code")
        if MARK not in document or cls is None or not isinstance(fields.get("ambiguous"), bool):
            return None
        try:
            retry_after = _read_number(fields.get("retry_after"), "retry_after", MAX_RETRY_AFTER)
        except ValueError:
            return None
        return cls(
            str(fields.get("text") or "the other side refused it")[:_MAX_ERROR_TEXT],
            code=code if isinstance(code, str | int) and len(str(code)) <= _MAX_CODE else None,
            retry_after=retry_after,
            ambiguous=fields["ambiguous"],
        )


def check_version(document: dict[str, Any]) -> None:
    """Raise UnsupportedError unless a document of smsqueue's format has our version."""
    if document[MARK] is True or document[MARK] != VERSION:
        raise exc.UnsupportedError(
            f"the receiver knows version {VERSION} of the format only: upgrade smsqueue there first"
        )


def _is_current(document: dict[str, Any]) -> bool:
    return document.get(MARK) == VERSION


def _speaks_smsframework() -> exc.ProviderError:
    return exc.UnsupportedError(
        "the other side runs smsframework: add its provider with speak='smsframework'",
        code="speaks smsframework",
    )


# --- Fields of any format ------------------------------------------------------------------------


def parse_document(body: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: it is something else, or nested too deeply.
    """
    try:
        document = json.loads(body, parse_constant=_refuse_constant)
    except (RecursionError, UnicodeDecodeError):
        raise ValueError("not JSON, or nested too deeply") from None
    if nested_too_deeply(document):
        raise ValueError("nested too deeply")
    return read_object(document, "the document")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def read_object(value: Any, name: str) -> dict[str, Any]:
    """An object; None counts as an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not an object")
    return value


def read_list(value: Any, name: str) -> list[Any] | None:
    """A list, or None."""
    if value is not None and not isinstance(value, list):
        raise ValueError(f"{name} is not a list")
    return value


def _read_names(value: Any, name: str) -> tuple[str, ...]:
    """A list of at most 64 short strings; None counts as an empty one."""
    items = read_list(value, name) or []
    if len(items) > 64:
        raise ValueError(f"{name} is too long")
    return tuple(str(read_name(item, name)) for item in items)


def read_text(value: Any, name: str) -> str:
    """A string of any length."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is not a string")
    return value


def read_name(value: Any, name: str) -> str | None:
    """A short string, or None."""
    if value is None or (isinstance(value, str) and len(value) <= _MAX_NAME):
        return value
    raise ValueError(f"{name} is not a string of at most {_MAX_NAME} characters")


def read_scalar(value: Any, name: str) -> Any:
    """A string, a number, a boolean, or None."""
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"{name} is a list or an object")


def _read_flag(value: Any, name: str, others: Sequence[Any] = ()) -> bool | None:
    """A boolean, or None if ``others`` has it."""
    if isinstance(value, bool) or (value is None and None in others):
        return value
    raise ValueError(f"{name} is neither true nor false")


def _read_number(value: Any, name: str, maximum: float) -> float | None:
    """A number, limited to 0 ... ``maximum``; or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ValueError(f"{name} is not a number")
    # min() before float(): an int may be too large for a float.
    return float(min(max(value, 0), maximum))


def to_utc(time: datetime) -> datetime:
    """A time in UTC; one without a zone is UTC, as smsframework's plugins have it.

    Raises:
        ValueError: the year is below 1 or above 9999 in UTC.
    """
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time before year 1, or after year 9999") from None


def read_time(value: Any, name: str) -> datetime:
    """A time in ISO format, in UTC."""
    return to_utc(datetime.fromisoformat(read_text(value, name)))


def read_options(
    fields: dict[str, Any], allowed: tuple[str, ...], message: OutgoingMessage
) -> None:
    """Set those options of a message that are allowed; ValueError if one is invalid."""
    options = {name: fields[name] for name in allowed if name in fields}
    for name, value in options.items():
        if isinstance(getattr(OutgoingMessageOptions, name), bool):
            _read_flag(value, name)
    read_name(options.get("senderId"), "senderId")
    if fields.get("send_at") is not None:
        options["send_at"] = datetime.fromisoformat(read_text(fields["send_at"], "send_at"))
    try:
        message.options(**options)
    except TypeError as error:
        raise ValueError(str(error)) from None


def status_class_name(status: MessageStatus) -> str:
    """The name of the nearest class of reports that the other side knows."""
    names = [cls.__name__ for cls in type(status).__mro__]
    return next(name for name in names if name in STATUS_CLASSES)


def set_status_fields(status: MessageStatus, fields: dict[str, Any]) -> None:
    """Set the fields of a report that are present; unknown ones are ignored."""
    for name, others in _STATUS_FLAGS.items():
        if name in fields:
            setattr(status, name, _read_flag(fields[name], name, others))
    for name in ("status_code", "status"):
        if name in fields:
            setattr(status, name, read_scalar(fields[name], name))
    status.provider = read_name(fields.get("provider"), "provider")


def error_class(name: Any) -> type[exc.ProviderError] | None:
    """The class of an error from the other side; None if the name is unknown."""
    return _ERROR_CLASSES.get(name) if isinstance(name, str) else None
