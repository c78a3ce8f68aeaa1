"""Reading what webhooks hold: strictly, as anybody may have written it."""

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
from smsqueue.providers.checked import ADDRESS, Malformed, checked

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

#: Recipients of one message.
_MOST_RECIPIENTS = 100


_Event = IncomingMessage | MessageStatus
#: What reading something of the wrong form ends in.
_MALFORMED = (LookupError, TypeError, AttributeError, ArithmeticError, ValueError)


def read_each(
    entries: Iterable[Any], read: Callable[[Any], _Event]
) -> Iterator[_Event | Malformed]:
    """What each entry of a webhook with several tells, for :func:`event_views`: one that is
    malformed costs the others nothing."""
    for entry in entries:
        try:
            yield read(entry)
        except PermissionError:
            raise
        except _MALFORMED as error:
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
    """The webhooks of a provider that may have one address for everything: both take both.

    Args:
        read: What the running request tells, once it was found to be genuine. What cannot be
            understood is answered 400, when all else that the request tells was recorded.
        status: The answer's, if all went well.
    """
    from flask import Blueprint

    views = Blueprint(type(provider).__name__, __name__)

    @views.post("/im", endpoint="im")
    @views.post("/status", endpoint="status")
    def events() -> ResponseReturnValue:
        try:
            told = list(read())
        except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
            raise _malformed(error) from error
        validated = getattr(provider, "validated", checked)
        good = [each for each in told if not isinstance(each, Malformed)]
        read_again = list(read_each(good, validated))
        for each in read_again:
            if isinstance(each, IncomingMessage):
                provider._receive_message(each)
            elif isinstance(each, MessageStatus):
                provider._receive_status(each)
        for each in told + read_again:
            if isinstance(each, Malformed):
                raise each
        return "", status

    return views


# --- Where the fields of a webhook are -------------------------------------------------------
#
# A signature covers the query, or the form, or the body: these three functions are the only ones
# that read fields, so that nothing counts that stands where the signature does not reach. They
# never mix places: beside a form or JSON, a query is not read.

_FORM = "application/x-www-form-urlencoded"


def query_fields(*repeatable: str) -> MultiDict[str, str]:
    """The fields of a webhook that is a GET request: those of its query.

    Args:
        repeatable: Names that may have several values; any other may not.

    Raises:
        Malformed: it is another method, has a body, or has a field twice.
    """
    from flask import request

    if request.method != "GET":
        raise Malformed("fields of a query come with GET only")
    if request.get_data():
        raise Malformed("a GET request has a body")
    return _once(request.args, repeatable)


def form_fields(*repeatable: str) -> MultiDict[str, str]:
    """The fields of a webhook that is a POST request with a form: those of its body.

    Raises:
        Malformed: it is another method or another content type, or has a field twice.
    """
    from flask import request

    if request.method != "POST":
        raise Malformed("fields of a form come with POST only")
    if request.mimetype != _FORM:
        raise Malformed(f"the content type is not {_FORM}")
    return _once(request.form, repeatable)


def json_body(*also: str) -> bytes:
    """The body of a webhook that is a POST request with JSON.

    Args:
        also: Other content types that the provider gives JSON.

    Raises:
        Malformed: it is another method or another content type. None at all is taken for JSON.
    """
    from flask import request

    if request.method != "POST":
        raise Malformed("JSON comes with POST only")
    if request.mimetype and not request.is_json and request.mimetype not in also:
        raise Malformed("the content type is not application/json")
    return request.get_data()


def _once(fields: MultiDict[str, str], repeatable: Iterable[str]) -> MultiDict[str, str]:
    several = {name for name, values in fields.lists() if len(values) > 1}
    if not several.issubset(repeatable):
        raise Malformed("a field is there more than once")
    return fields


# --- What the fields hold --------------------------------------------------------------------


def json_object(body: bytes) -> dict[str, Any]:
    """A body that is a JSON object.

    Raises:
        Malformed: it is none.
    """
    try:
        value = json.loads(body)
    except RecursionError:
        raise Malformed("nested too deeply") from None
    except ValueError:
        raise Malformed("not JSON") from None  # the error has the text in it
    if not isinstance(value, dict):
        raise Malformed("not a JSON object")
    return value


def text_of(fields: dict[str, Any], *names: str) -> str:
    """The first of these fields that is a text.

    Raises:
        Malformed: none is.
    """
    for name in names:
        value = fields.get(name)
        if isinstance(value, str):
            return value
    raise Malformed(f"{names[0]} is not a text")


def id_of(fields: dict[str, Any], name: str = "id") -> int | str:
    """A provider's id.

    Raises:
        Malformed: there is none.
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
    name = next((each for each in names if fields.get(each) is not None), names[0])
    value = fields.get(name)
    if numeric and isinstance(value, int) and value is not True and 0 < value < 10**20:
        return str(value)
    if isinstance(value, str) and ADDRESS.fullmatch(value):
        return value
    raise Malformed(f"{name} is neither a number nor another address")


def listed(value: Any) -> list[dict[str, Any]]:
    """The objects of a list, or the only one; none if it is neither.

    For what comes beside a text, and must not lose it when it is malformed.
    """
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, dict)]


def numbered(fields: Mapping[str, str], name: str) -> list[tuple[int, str]]:
    """Fields that are counted, as ``MediaUrl0``, ``MediaUrl1``: their numbers and values."""
    pattern = re.compile(rf"{name}([0-9]{{1,3}})")
    found = ((pattern.fullmatch(each), each) for each in fields)
    numbers = {int(match[1]): each for match, each in found if match}
    return [(n, fields[numbers[n]]) for n in sorted(numbers)]


def recipients_of(*values: Any) -> dict[str, list[str]]:
    """For ``meta``: all recipients of a group message; nothing if there is only one."""
    texts = [str(v) for v in values if v and isinstance(v, str | int) and v is not True]
    texts = [text for text in texts if ADDRESS.fullmatch(text)]
    found = list(dict.fromkeys(map(incoming_address, texts)))[:_MOST_RECIPIENTS]
    return {"recipients": found} if len(found) > 1 else {}


def time_of(value: Any, per_second: int = 1) -> datetime | None:
    """A time: ISO 8601 with its offset, or a number since 1970; None if it is neither.

    Args:
        per_second: 1000 for a number of milliseconds.
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
