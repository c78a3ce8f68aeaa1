"""Strict parsers for the content of webhooks, which anybody may have written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from smsqueue.message.messages import IncomingMessage
from smsqueue.message.numbers import incoming_address
from smsqueue.message.statuses import MessageStatus
from smsqueue.providers.base import IProvider
from smsqueue.providers.base.event_validation import ADDRESS, validate_event
from smsqueue.providers.base.webhook_errors import Malformed

if TYPE_CHECKING:
    from flask import Blueprint
    from flask.typing import ResponseReturnValue
    from werkzeug.datastructures import MultiDict

__all__ = [
    "address_of",
    "event_views",
    "form_fields",
    "id_of",
    "json_body",
    "json_object",
    "listed",
    "numbered",
    "query_fields",
    "read_each",
    "recipients_of",
    "text_of",
    "time_of",
]

#: Most recipients of a group message that are kept.
_MAX_RECIPIENTS = 100


_Event = IncomingMessage | MessageStatus
#: Errors of code that reads fields of other types than it expects.
_READ_ERRORS = (LookupError, TypeError, AttributeError, ArithmeticError, ValueError)


def read_each(
    entries: Iterable[Any], read: Callable[[Any], _Event]
) -> Iterator[_Event | Malformed]:
    """Read each entry of a webhook with several, for :func:`event_views`. A malformed entry becomes
    a :class:`Malformed` and does not affect the others."""
    for entry in entries:
        try:
            yield read(entry)
        except PermissionError:
            raise
        except _READ_ERRORS as error:
            yield _malformed(error)


def _malformed(error: Exception) -> Malformed:
    if isinstance(error, Malformed):
        return error
    return Malformed("a field is missing or of another type")


def event_views(
    provider: IProvider,
    read: Callable[[], Iterable[_Event | Malformed]],
    *,
    status: int = 204,
) -> Blueprint:
    """Views for a provider that may post messages and reports to one URL: ``/im`` and ``/status``
    accept both.

    Args:
        read: Authenticates the running request and returns its events. If some are malformed, the
            others are recorded, and the response is 400.
        status: HTTP status of the response on success.
    """
    from flask import Blueprint

    views = Blueprint(type(provider).__name__, __name__)

    @views.post("/im", endpoint="im")
    @views.post("/status", endpoint="status")
    def receive() -> ResponseReturnValue:
        try:
            events = list(read())
        except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
            raise _malformed(error) from error
        validate = getattr(provider, "validated", validate_event)
        readable = [event for event in events if not isinstance(event, Malformed)]
        validated = list(read_each(readable, validate))
        for event in validated:
            if isinstance(event, IncomingMessage):
                provider._receive_message(event)
            elif isinstance(event, MessageStatus):
                provider._receive_status(event)
        for event in events + validated:
            if isinstance(event, Malformed):
                raise event
        return "", status

    return views


# --- Fields of a request ---------------------------------------------------------------------
#
# A signature covers either the query, the form or the body. Only these three functions read
# fields, and each reads one of the three, so that no unsigned field is used.

_FORM = "application/x-www-form-urlencoded"


def query_fields(*repeatable: str) -> MultiDict[str, str]:
    """The fields in the query of a GET request.

    Args:
        repeatable: Names that may have several values; others may not.

    Raises:
        Malformed: the request has another method, a body, or a repeated field.
    """
    from flask import request

    if request.method != "GET":
        raise Malformed("the method is not GET")
    if request.get_data():
        raise Malformed("a GET request has a body")
    return _reject_repeated(request.args, repeatable)


def form_fields(*repeatable: str) -> MultiDict[str, str]:
    """The fields of the form in a POST request.

    Raises:
        Malformed: the request has another method, another content type, or a repeated field.
    """
    from flask import request

    if request.method != "POST":
        raise Malformed("the method is not POST")
    if request.mimetype != _FORM:
        raise Malformed(f"the content type is not {_FORM}")
    return _reject_repeated(request.form, repeatable)


def json_body(*other_types: str) -> bytes:
    """The body of a POST request with JSON.

    Args:
        other_types: Other content types that the provider declares for JSON.

    Raises:
        Malformed: the request has another method or content type. A missing one means JSON.
    """
    from flask import request

    if request.method != "POST":
        raise Malformed("the method is not POST")
    if request.mimetype and not request.is_json and request.mimetype not in other_types:
        raise Malformed("the content type is not application/json")
    return request.get_data()


def _reject_repeated(fields: MultiDict[str, str], repeatable: Iterable[str]) -> MultiDict[str, str]:
    repeated = {name for name, values in fields.lists() if len(values) > 1}
    if not repeated.issubset(repeatable):
        raise Malformed("a field is repeated")
    return fields


# --- Values of fields ------------------------------------------------------------------------


def json_object(body: bytes) -> dict[str, Any]:
    """Parse a body that must be a JSON object.

    Raises:
        Malformed: it is not a JSON object.
    """
    try:
        value = json.loads(body)
    except RecursionError:
        raise Malformed("nested too deeply") from None
    except ValueError:
        raise Malformed("not JSON") from None  # the error quotes the body
    if not isinstance(value, dict):
        raise Malformed("not a JSON object")
    return value


def text_of(fields: dict[str, Any], *names: str) -> str:
    """The first of these fields that is a string.

    Raises:
        Malformed: none is a string.
    """
    for name in names:
        value = fields.get(name)
        if isinstance(value, str):
            return value
    raise Malformed(f"{names[0]} is not a string")


def id_of(fields: dict[str, Any], name: str = "id") -> int | str:
    """An id: a string that is not empty, or an integer.

    Raises:
        Malformed: the field is missing or has another type.
    """
    value = fields.get(name)
    if isinstance(value, int | str) and not isinstance(value, bool) and value != "":
        return value
    raise Malformed(f"{name} is no id")


def address_of(fields: Mapping[str, Any], *names: str, numeric: bool = False) -> str:
    """A number or another address as it came: the first of these fields that there is.

    Args:
        numeric: The provider may write a number as a JSON number.

    Raises:
        Malformed: there is none, or it has characters that no address has.
    """
    name = next((key for key in names if fields.get(key) is not None), names[0])
    value = fields.get(name)
    if numeric and isinstance(value, int) and value is not True and 0 < value < 10**20:
        return str(value)
    if isinstance(value, str) and ADDRESS.fullmatch(value):
        return value
    raise Malformed(f"{name} is neither a number nor another address")


def listed(value: Any) -> list[dict[str, Any]]:
    """The objects in a list, or a single object as a list; [] for anything else.

    For optional fields: if they are malformed, the text of the message is not lost.
    """
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, dict)]


def numbered(fields: Mapping[str, str], name: str) -> list[tuple[int, str]]:
    """Numbers and values of numbered fields, such as ``MediaUrl0``, ``MediaUrl1``."""
    pattern = re.compile(rf"{name}([0-9]{{1,3}})")
    matches = ((pattern.fullmatch(field), field) for field in fields)
    by_number = {int(match[1]): field for match, field in matches if match}
    return [(n, fields[by_number[n]]) for n in sorted(by_number)]


def recipients_of(*values: Any) -> dict[str, list[str]]:
    """For ``meta``: all recipients of a group message; {} if there is only one."""
    texts = [str(v) for v in values if v and isinstance(v, str | int) and v is not True]
    texts = [text for text in texts if ADDRESS.fullmatch(text)]
    recipients = list(dict.fromkeys(map(incoming_address, texts)))[:_MAX_RECIPIENTS]
    return {"recipients": recipients} if len(recipients) > 1 else {}


def time_of(value: Any, per_second: int = 1) -> datetime | None:
    """Parse ISO 8601 with an offset, or a number since 1970; None for anything else.

    Args:
        per_second: 1000 for milliseconds.
    """
    try:
        if isinstance(value, str):
            time = datetime.fromisoformat(value)
            return time if time.tzinfo else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / per_second, UTC)
    except (OverflowError, OSError, ValueError):
        pass
    return None
