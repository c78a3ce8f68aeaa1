"""Messages and reports as JSON, as the ledger stores them; validation of outgoing messages."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

from smsqueue import exc
from smsqueue.lib import digits_only
from smsqueue.message import statuses
from smsqueue.message.masking import mask
from smsqueue.message.media import media_of
from smsqueue.message.messages import (
    IncomingMessage,
    OutgoingMessage,
    OutgoingMessageOptions,
    sender_text,
)
from smsqueue.message.numbers import destination, is_international, known_number, resolved
from smsqueue.message.smart_encoding import Replacement
from smsqueue.message.statuses import MessageStatus

__all__ = [
    "bounded_meta",
    "check_kind",
    "check_outgoing",
    "clean",
    "content_of",
    "dump_incoming",
    "dump_outgoing",
    "dump_status",
    "load_incoming",
    "load_outgoing",
    "load_status",
    "older_content_of",
    "to_json",
]

_STATUS_CLASSES: dict[str, type[MessageStatus]] = {
    name: getattr(statuses, name) for name in statuses.__all__
}
_STATUS_FIELDS = ("accepted", "delivered", "expired", "error", "status_code", "status")
#: Options that the ledger stores in fields of their own.
_LEDGER_OPTIONS = ("idempotency_key", "send_at", "expires")
#: Options that ``send()`` has applied.
_APPLIED_OPTIONS = ("smart_encoding",)
#: Bytes that are stored of a webhook's text, and of its other data: an SMS of ten parts has 3 kB.
#: The limit keeps forged webhooks from filling Redis quickly.
_MOST_TEXT = _MOST_META = 8 * 1024
#: Marks of text and data that were cut.
_CUT = " [cut by smsqueue]"
_CUT_META = {"smsqueue": "cut: it was too long"}
_SURROGATE = re.compile(r"[\ud800-\udfff]")


#: Reused, since json.dumps would make one for each text.
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, default=str)


def to_json(value: Any) -> str:
    """Compact JSON; values of other types are written as their ``str``."""
    text = _ENCODER.encode(value)
    # Unpaired surrogates, which a webhook's JSON may contain, cannot be encoded in UTF-8.
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def clean(text: str) -> str:
    """A text for Redis and its Lua JSON: unpaired surrogates become "?"."""
    return text.encode("utf-8", "replace").decode()


def _plain(what: str, value: Any) -> None:
    """Raise RequestError unless JSON preserves a value."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        same = json.loads(text) == value
    except (TypeError, ValueError, RecursionError) as error:
        raise exc.RequestError(f"{what} cannot be queued: {error}") from None
    if not same:
        raise exc.RequestError(
            f"{what} cannot be stored as JSON without changes: use lists, "
            "not tuples, and text as keys"
        )
    if _SURROGATE.search(text):
        raise exc.RequestError(f"{what} cannot be queued: it contains an unpaired surrogate")


def check_kind(message: object) -> None:
    """Raise TypeError for other objects, such as messages of smsframework."""
    if not isinstance(message, OutgoingMessage):
        kind = type(message)
        raise TypeError(
            f"send() takes smsqueue.OutgoingMessage, not {kind.__module__}.{kind.__qualname__}: "
            "make it with from smsqueue import OutgoingMessage"
        )


def check_outgoing(message: OutgoingMessage, max_body: int, region: str | None = None) -> None:
    """Raise RequestError if a message is invalid.

    Attributes are validated and converted as the arguments of the constructor and ``options()``.

    Args:
        region: Country whose national numbers get its country code; see
            :func:`smsqueue.message.numbers.resolved`.
    """
    _check_destination(message, region)
    _check_body(message, max_body)
    try:
        message.src = sender_text("src", message.src)
    except TypeError as error:
        raise exc.RequestError(f"src cannot be queued: {error}") from None
    _plain("src", message.src)
    if not isinstance(message.provider_params, dict):
        kind = type(message.provider_params).__name__
        raise exc.RequestError(f"params() cannot be queued: it must be a dict, not {kind}")
    _plain("params()", message.provider_params)
    if not isinstance(message.provider_options, OutgoingMessageOptions):
        kind = type(message.provider_options).__name__
        raise exc.RequestError(f"provider_options must be OutgoingMessageOptions, not {kind}")
    for name, option in [*vars(message.provider_options).items()]:
        try:
            message.provider_options.update(**{name: option})
        except (TypeError, ValueError) as error:
            raise exc.RequestError(f"the {name} option cannot be queued: {error}") from None
        if name not in ("send_at", "tag"):
            _plain(f"the {name} option", option)
    values = message.routing_values
    if values is not None and not isinstance(values, tuple | list):
        raise exc.RequestError(f"routing_values must be a tuple, not {type(values).__name__}")
    for value in values or ():
        _plain(f"the routing value {type(value).__name__}", value)


def _check_destination(message: OutgoingMessage, region: str | None) -> None:
    if not isinstance(message.dst, str):
        kind = type(message.dst).__name__
        raise exc.RequestError(f"the destination number must be text, not {kind}")
    if message.dst_written[1] != message.dst:  # it was set as an attribute
        written = message.dst
        message.dst, message.dst_problem = destination(written)
        message.dst_written = (written, message.dst)
    if not message.dst:
        raise exc.RequestError(message.dst_problem or "the destination number has no digits")
    if len(message.dst) > 15:
        raise exc.RequestError(
            f"the destination number {mask(message.dst)} has {len(message.dst)} digits, and no "
            "number has more than 15: give one number, and write it with a plus if it has an "
            "extension"
        )
    written = message.dst_written[0]
    dst = message.dst
    if region and not is_international(written):
        dst = destination(written, region)[0]
        problem = resolved(written, region)[1]
    else:
        # A number with a plus was parsed, which takes time, when the message was made.
        problem = resolved(dst)[1] if dst[0] == "0" or not is_international(written) else None
    if problem:
        raise exc.RequestError(f"the destination {mask(message.dst)} cannot be called: {problem}")
    if dst != message.dst:
        message.dst, message.dst_written = dst, (f"+{dst}", dst)


def _check_body(message: OutgoingMessage, max_body: int) -> None:
    if not isinstance(message.body, str):
        raise exc.RequestError(f"the body must be text, not {type(message.body).__name__}")
    if not message.body and not message.provider_params:
        raise exc.RequestError(
            "the body is empty: only a message whose params() give its provider something else "
            "to send, such as a picture, has no text"
        )
    if len(message.body) > max_body:
        raise exc.RequestError(
            f"the body has {len(message.body)} characters, more than the {max_body} "
            "that SMSQUEUE_MAX_BODY allows"
        )
    try:
        message.body.encode()
    except UnicodeEncodeError as error:
        raise exc.RequestError(
            f"the body contains an unpaired surrogate at index {error.start}"
        ) from None


def dump_outgoing(message: OutgoingMessage) -> dict[str, Any]:
    """The stored form of an outgoing message: the values that are not defaults."""
    options = {
        name: value
        for name, value in vars(message.provider_options).items()
        if name not in (*_LEDGER_OPTIONS, *_APPLIED_OPTIONS)
        and value != getattr(OutgoingMessageOptions, name)
    }
    chosen = None if message.provider == message.routed_to else message.provider
    data: dict[str, Any] = {"dst": message.dst, "body": message.body}
    data |= {"replaced": message.replaced} if _is_encoded(message) else {}
    data |= {"redirected_from": message.redirected_from} if message.redirected_from else {}
    data |= {"src": message.src} if message.src is not None else {}
    data |= {"provider": chosen} if chosen is not None else {}
    data |= {"route": message.routing_values} if message.routing_values is not None else {}
    data |= {"params": message.provider_params} if message.provider_params else {}
    data |= {"options": options} if options else {}
    return data


def _is_encoded(message: OutgoingMessage) -> bool:
    """Is its text the result of smart encoding, and not changed since?"""
    return message.body_written is not None and message.body_written[1] == message.body


def content_of(message: OutgoingMessage) -> str:
    """The content that sends with one idempotency key must share: everything but the options.

    The text counts as it was written, before smart encoding.
    """
    data = dump_outgoing(message)
    data.pop("options", None)
    if data.pop("replaced", None) and message.body_written:
        data["body"] = message.body_written[0]
    return json.dumps(data, sort_keys=True)


def older_content_of(message: OutgoingMessage) -> str | None:
    """The content in older versions, which kept the 00 before a number; None: the same."""
    written = digits_only(message.dst_written[0])
    if not written.startswith("00") or message.dst_written[1] != message.dst:
        return None
    return json.dumps(json.loads(content_of(message)) | {"dst": written}, sort_keys=True)


def load_outgoing(id: str, data: dict[str, Any]) -> OutgoingMessage:
    """A new object for a stored message."""
    src = data.get("src")  # older versions accepted numbers and other types
    src = src if src is None else str(src)
    message = OutgoingMessage("", data["body"], src, data.get("provider"))
    message.dst, message.dst_problem = data["dst"], None
    message.dst_written = (f"+{message.dst}", message.dst)  # it has its country code
    message.id = id
    message.replaced = tuple(Replacement(*item) for item in data.get("replaced", ()))
    message.redirected_from = data.get("redirected_from")
    message.routing_values = tuple(data["route"]) if "route" in data else None
    message.provider_params = data.get("params", {})
    # Ignore options of newer versions.
    known = data.get("options", {}).items()
    options = vars(message.provider_options)
    options.update((name, value) for name, value in known if hasattr(OutgoingMessageOptions, name))
    if options.get("senderId") is not None:
        options["senderId"] = str(options["senderId"])
    if "tag" in options:
        options["tag"] = tuple(options["tag"])
    return message


def dump_incoming(message: IncomingMessage) -> dict[str, Any]:
    """The stored form of an incoming message."""
    data = {"src": message.src, "body": _bounded_text(message.body), "msgid": message.msgid}
    data |= {"dst": message.dst, "meta": bounded_meta(message.meta), "provider": message.provider}
    media = media_of(message.media)
    while media and _size(media) > _MOST_META:
        media = media[: len(media) // 2]
    data |= {"media": media} if media else {}
    data |= {"channel": message.channel} if message.channel is not None else {}
    data |= {"keyword": message.keyword} if message.keyword is not None else {}
    return data | {"rtime": _dump_time(message.rtime)}


def _bounded_text(text: str) -> str:
    """A text, cut with a mark if it is longer than any message."""
    if len(text) * 4 <= _MOST_TEXT or len(clean(text).encode()) <= _MOST_TEXT:
        return text
    return clean(text).encode()[: _MOST_TEXT - len(_CUT)].decode("utf-8", "ignore") + _CUT


def bounded_meta(meta: Any) -> Any:
    """A provider's other data, or a mark that it was too long."""
    return meta if meta is None or _size(meta) <= _MOST_META else dict(_CUT_META)


def _size(value: Any) -> int:
    return len(to_json(value).encode())


def load_incoming(id: str, data: dict[str, Any]) -> IncomingMessage:
    """The incoming message of an event."""
    message = IncomingMessage("", data["body"], data["msgid"])
    # Not parsed again: any version may have recorded them.
    message.src = known_number(data["src"])
    message.dst = None if data["dst"] is None else known_number(data["dst"])
    media = media_of(data.get("media"))
    if media:
        message.media = media
    if "channel" in data:
        message.channel = data["channel"]
    if data.get("keyword") in ("stop", "start", "help"):
        message.keyword = data["keyword"]
    message.id, message.provider, message.meta = id, data["provider"], data["meta"]
    message.rtime = _load_time(data["rtime"])
    return message


def dump_status(status: MessageStatus) -> dict[str, Any]:
    """The stored form of a report: the nearest known class, and its fields."""
    known = next(c.__name__ for c in type(status).__mro__ if c.__name__ in _STATUS_CLASSES)
    data = {name: getattr(status, name) for name in _STATUS_FIELDS}
    data |= {"class": known, "msgid": status.msgid, "meta": bounded_meta(status.meta)}
    data |= {"provider": status.provider, "reference": status.reference}
    for name in ("status", "status_code"):
        data[name] = _bounded_text(data[name]) if isinstance(data[name], str) else data[name]
    if status.of_part:
        data["of_part"] = True
    return data | {"rtime": _dump_time(status.rtime)}


def load_status(data: dict[str, Any]) -> MessageStatus:
    """A stored report of a provider, or of a message that ended without one."""
    status = _STATUS_CLASSES.get(data["class"], MessageStatus)(data.get("msgid"))
    for name in (*_STATUS_FIELDS, "provider", "reference", "meta", "of_part"):
        if name in data:
            setattr(status, name, data[name])
    if "rtime" in data:
        status.rtime = _load_time(data["rtime"])
    return status


def _dump_time(value: Any) -> Any:
    if isinstance(value, str):  # of a plugin
        return value[:64]
    return {"iso": value.isoformat()} if isinstance(value, datetime) else value


def _load_time(value: Any) -> Any:
    return datetime.fromisoformat(value["iso"]) if isinstance(value, dict) else value
