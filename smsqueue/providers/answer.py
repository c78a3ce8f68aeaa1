"""What a provider answered to an HTTP call."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

from smsqueue import exc

__all__ = ["Answer"]

#: Longest wait that a provider may ask for, in seconds.
MAX_RETRY_AFTER = 86400.0


@dataclass(frozen=True)
class Answer:
    """What a provider answered, read to its end."""

    provider: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    #: The request sends no message, so nothing about its answer is ambiguous.
    safe: bool = False

    @cached_property
    def json(self) -> Any:
        """The body's JSON value; None if it is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def get(self, *path: str | int) -> Any:
        """What stands at a path of keys and indexes in the JSON body; None if nothing does."""
        value = self.json
        for step in path:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def require(self, *path: str | int) -> Any:
        """What stands at a path in the JSON body.

        Raises:
            ServerError: nothing, or an empty text; ambiguous (unless the call was ``safe``), as the
                provider said that it did accept something.
        """
        value = self.get(*path)
        if value is None or value == "":
            raise exc.ServerError(
                f"the provider answered {self.status} without what its answer must hold",
                provider=self.provider,
                http_status=self.status,
                ambiguous=not self.safe,
            )
        return value

    def objects(self, *path: str | int) -> list[dict[str, Any]]:
        """The JSON objects in the list at a path, of an answer that confirms nothing.

        Raises:
            ServerError: there is no such list, or something else is in it.
        """
        value = self.get(*path) if path else self.json
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise exc.ServerError(
                f"the provider answered {self.status} with a list that cannot be read",
                provider=self.provider,
                http_status=self.status,
            )
        return value

    def amount(self, *path: str | int) -> Decimal:
        """The amount of money at a path in the JSON body.

        Raises:
            ServerError: there is none.
        """
        found = str(self.require(*path))
        if not re.fullmatch(r"-?[0-9]{1,30}(\.[0-9]{1,30})?([eE][-+]?[0-9]{1,2})?", found):
            raise exc.ServerError(
                "the provider tells an amount that is no number",
                provider=self.provider,
                http_status=self.status,
            )
        return Decimal(found)

    def seconds(self, header: str, per_second: int = 1) -> float | None:
        """The wait that a header asks for; None if there is none, or if it is longer than a day."""
        text = self.headers.get(header, "").strip()
        if not re.fullmatch("[0-9]{1,9}", text):
            return None
        wait = int(text) / per_second
        return wait if wait <= MAX_RETRY_AFTER else None

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait, by the Retry-After header (seconds or a date), between 0 and a day.

        A date is compared with the answer's own: no clock of ours needs to be right.
        """
        text = self.headers.get("Retry-After", "").strip()
        try:
            seconds = float(text)
        except ValueError:
            date = _date(text)
            if date is None:
                return None
            now = _date(self.headers.get("Date", "")) or datetime.now(UTC)
            seconds = (date - now).total_seconds()
        return None if math.isnan(seconds) else min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _date(text: str) -> datetime | None:
    """A header's date; None if it is none."""
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
