"""Reading what webhooks hold: strictly, as anybody may have written it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from smsqueue.messages import IncomingMessage
from smsqueue.providers.base import IProvider
from smsqueue.statuses import MessageStatus

if TYPE_CHECKING:
    from flask import Blueprint
    from flask.typing import ResponseReturnValue

__all__ = ["event_views", "id_of", "json_object", "text_of", "time_of"]


def event_views(
    provider: IProvider,
    read: Callable[[], Iterable[IncomingMessage | MessageStatus]],
    *,
    status: int = 204,
) -> Blueprint:
    """The webhooks of a provider that may have one address for everything: both take both.

    Args:
        read: What the running request tells, once it was found to be genuine. All of it is read
            before any is reported; whatever it stumbles over is answered 400.
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
            raise ValueError("malformed") from error
        for each in told:
            if isinstance(each, IncomingMessage):
                provider._receive_message(each)
            else:
                provider._receive_status(each)
        return "", status

    return views


def json_object(body: bytes) -> dict[str, Any]:
    """A body that is a JSON object.

    Raises:
        ValueError: it is none.
    """
    try:
        value = json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def text_of(fields: dict[str, Any], *names: str) -> str:
    """The first of these fields that is a text.

    Raises:
        ValueError: none is.
    """
    for name in names:
        value = fields.get(name)
        if isinstance(value, str):
            return value
    raise ValueError(f"{names[0]} is not a text")


def id_of(fields: dict[str, Any], name: str = "id") -> int | str:
    """A provider's id.

    Raises:
        ValueError: there is none.
    """
    value = fields.get(name)
    if isinstance(value, int | str) and not isinstance(value, bool) and value != "":
        return value
    raise ValueError(f"{name} is no id")


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
