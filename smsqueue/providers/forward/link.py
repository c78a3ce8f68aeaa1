"""Calls to the other side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smsqueue import exc
from smsqueue.message import serialization
from smsqueue.providers.answer import Answer
from smsqueue.providers.forward.address import split
from smsqueue.providers.forward.failing import misplaced
from smsqueue.providers.forward.fields import parse
from smsqueue.providers.forward.parts import Format
from smsqueue.providers.forward.signing import Signer
from smsqueue.providers.http import HttpProvider

__all__ = ["Link"]

#: Longest request that is written, in bytes: what receivers read by default.
MAX_REQUEST = 256 * 1024


class Link(HttpProvider):
    """One address of the other side.

    Args:
        url: With user and password of HTTP Basic, percent-encoded, if there are some.
        side: Whom the address belongs to, ``server`` or ``client``; a part of what is signed.
        config: As :class:`~smsqueue.providers.http.HttpProvider` has it.
    """

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        url: str,
        side: str,
        signer: Signer | None,
        format: Format,
        **config: Any,
    ) -> None:
        bare, self._authorization = split(url)
        super().__init__(gateway, name, url=bare, **config)
        self._side = side
        self._signer = signer
        self.format = format

    def ask(
        self, view: str, document: dict[str, Any], read: Callable[[dict[str, Any]], None]
    ) -> None:
        """Post a document to one of the other side's views (``im``, ``status``).

        Args:
            read: Takes the answer; ValueError if that does not say that the other side took it.

        Raises:
            RequestError: the document is too long to be sent.
            ProviderError: the other side's error, or as ``HttpProvider.call`` has it.
        """
        body = serialization.to_json(document).encode()
        if len(body) > MAX_REQUEST:
            raise exc.RequestError(
                f"the request would have {len(body)} bytes, more than {MAX_REQUEST}",
                provider=self.name,
            )
        headers = {"Content-Type": "application/json"}
        if self._authorization:
            headers["Authorization"] = self._authorization
        if self._signer is not None:
            headers |= self._signer.headers(f"{self._side}/{view}", body)
        answer = self.call("POST", f"/{view}", data=body, headers=headers)
        if isinstance(answer.json, dict) and "error" in answer.json:
            raise self.error(answer)
        try:
            read(parse(answer.body))
        except ValueError:
            # Whoever stands before the other side may answer 200 to all that comes.
            raise exc.ServerError(
                f"the other side answered {answer.status} without saying that it took it",
                code="not taken",
                provider=self.name,
                http_status=answer.status,
                ambiguous=True,
            ) from None

    def error(self, answer: Answer) -> exc.ProviderError:
        """The other side's own error, else what the HTTP status means."""
        try:
            found = self.format.load_error(parse(answer.body))
        except ValueError:
            found = None
        found = found or misplaced(answer.status)
        if found is None and answer.status < 300:
            found = exc.ServerError("the other side answered with no known error", ambiguous=True)
        elif found is None:
            found = super().error(answer)
        found.provider, found.http_status = self.name, answer.status
        return found
