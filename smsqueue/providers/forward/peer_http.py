"""HTTP between the two sides: requests to the peer (the other side), and our responses to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from smsqueue import exc
from smsqueue.message import serialization
from smsqueue.providers.forward.auth import Signer, split_credentials
from smsqueue.providers.forward.jsonex import SmsframeworkFormat
from smsqueue.providers.forward.protocol import (
    MARK,
    Format,
    SmsqueueFormat,
    check_version,
    parse_document,
)
from smsqueue.providers.http import Answer, HttpProvider
from smsqueue.settings import SettingsError

if TYPE_CHECKING:
    from flask import Response

__all__ = [
    "SMSQUEUE_FORMAT",
    "PeerProvider",
    "as_provider_error",
    "document_format",
    "error_response",
    "json_response",
    "peer_format",
]

SMSQUEUE_FORMAT: Format = SmsqueueFormat()
_FORMATS: dict[str, Format] = {"smsqueue": SMSQUEUE_FORMAT, "smsframework": SmsframeworkFormat()}
#: Longest request that is sent, in bytes: receivers read this much by default.
_MAX_REQUEST = 256 * 1024
#: The HTTP status of an error's class, for callers that cannot read the document.
_STATUS_BY_CLASS: list[tuple[type[exc.ProviderError], int]] = [
    (exc.RequestError, 400),
    (exc.UnsupportedError, 501),
    (exc.CreditError, 402),
    (exc.AuthError, 403),
    (exc.LimitsError, 429),
]


# --- Formats -------------------------------------------------------------------------------------


def peer_format(speak: str) -> Format:
    """The format for a peer, by the option ``speak``."""
    if speak not in _FORMATS:
        raise SettingsError(f"speak is {speak!r}: use {' or '.join(map(repr, _FORMATS))}")
    return _FORMATS[speak]


def document_format(document: dict[str, Any]) -> Format:
    """The format that a document is written in.

    Raises:
        UnsupportedError: smsqueue's format in a version that we do not know.
    """
    if MARK not in document:
        return _FORMATS["smsframework"]
    check_version(document)
    return SMSQUEUE_FORMAT


# --- Requests ------------------------------------------------------------------------------------


class PeerProvider(HttpProvider):
    """A provider that posts documents to one peer.

    Args:
        url: May hold user and password of HTTP Basic, percent-encoded.
        role: The peer's role, ``server`` or ``client``; it is a part of what is signed.
        config: As :class:`~smsqueue.providers.http.HttpProvider` has it.
    """

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        url: str,
        role: str,
        signer: Signer | None,
        format: Format,
        **config: Any,
    ) -> None:
        bare_url, self._authorization = split_credentials(url)
        super().__init__(gateway, name, url=bare_url, **config)
        self._role = role
        self._signer = signer
        self.format = format

    def post(
        self, view: str, document: dict[str, Any], load_answer: Callable[[dict[str, Any]], None]
    ) -> None:
        """Post a document to one of the peer's views (``im``, ``status``).

        Args:
            load_answer: Raises ValueError if an answer does not confirm the document.

        Raises:
            RequestError: the document is too long to be sent.
            ProviderError: the peer's error, or as ``HttpProvider.call`` has it.
        """
        body = serialization.to_json(document).encode()
        if len(body) > _MAX_REQUEST:
            raise exc.RequestError(
                f"the request would have {len(body)} bytes, the limit is {_MAX_REQUEST}",
                provider=self.name,
            )
        headers = {"Content-Type": "application/json"}
        if self._authorization:
            headers["Authorization"] = self._authorization
        if self._signer is not None:
            headers |= self._signer.headers(f"{self._role}/{view}", body)
        answer = self.call("POST", f"/{view}", data=body, headers=headers)
        if isinstance(answer.json, dict) and "error" in answer.json:
            raise self.error(answer)
        try:
            load_answer(parse_document(answer.body))
        except ValueError:
            # A proxy or another application may answer 200 to everything.
            raise exc.ServerError(
                f"the other side answered {answer.status} but did not confirm the request",
                code="not taken",
                provider=self.name,
                http_status=answer.status,
                ambiguous=True,
            ) from None

    def error(self, answer: Answer) -> exc.ProviderError:
        """The peer's own error, else the meaning of the HTTP status."""
        try:
            error = self.format.load_error(parse_document(answer.body))
        except ValueError:
            error = None
        error = error or _configuration_error(answer.status)
        if error is None and answer.status < 300:
            error = exc.ServerError("the other side answered with an unknown error", ambiguous=True)
        elif error is None:
            error = super().error(answer)
        error.provider, error.http_status = self.name, answer.status
        return error


def _configuration_error(status: int) -> exc.ProviderError | None:
    """The error of a status that means a wrong address or secret, if the answer has no document.

    It is not the message's fault: the message waits until the configuration is right.
    """
    if status in (401, 403):
        return exc.AuthError(
            f"the other side refused our credentials ({status}): the secret, or user and password, "
            "must be the same on both sides, and both clocks right",
            code="not let in",
        )
    if status in (404, 405, 410) or (300 <= status < 400 and status != 303):
        return exc.ConnectionError(
            f"no forward provider at this address ({status}): use the other side's receiver "
            "prefix, then the name of its forward provider",
            code="no forward provider",
        )
    return None


# --- Responses -----------------------------------------------------------------------------------


def json_response(status: int, document: dict[str, Any]) -> Response:
    from flask import Response

    return Response(serialization.to_json(document), status, mimetype="application/json")


def error_response(format: Format, error: exc.ProviderError) -> Response:
    """An error in the caller's format, with the HTTP status of its class."""
    status = next((code for cls, code in _STATUS_BY_CLASS if isinstance(error, cls)), 503)
    return json_response(502 if error.ambiguous else status, format.dump_error(error))


def as_provider_error(error: BaseException) -> exc.ProviderError:
    """An error as the peer may see it.

    An error of any other class (a plugin's KeyError) leaves open whether the message was sent.
    """
    if isinstance(error, exc.QueueUnavailable):
        return exc.ServerError(
            "the server could not record it", code="QueueUnavailable", retry_after=10.0,
            ambiguous=error.ambiguous,
        )  # fmt: skip
    if isinstance(error, exc.ProviderError):
        return error
    return exc.ServerError(f"the server failed: {type(error).__name__}", ambiguous=True)
