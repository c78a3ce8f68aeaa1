"""What the two HTTP transports share: requests, responses, timeouts and write tracking.

:mod:`smsqueue.providers.base.requests_transport` makes a call in the calling thread, with requests;
:mod:`smsqueue.providers.base.aiohttp_transport` makes it on a loop
(:mod:`smsqueue.concurrency.greenlet_loop`), with aiohttp.
Both get the same prepared request, so providers see no difference. Both record what an error alone
does not say: whether the request had begun to be written. Neither repeats a request, follows a
redirect or keeps cookies.
"""

from __future__ import annotations

import json as json_module
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlencode

import requests
from requests.utils import select_proxy

__all__ = [
    "IDLE",
    "MAX_ANSWER",
    "MAX_HEADERS",
    "MAX_LINE",
    "NoAnswer",
    "ProxySettings",
    "RawResponse",
    "Request",
    "Timeouts",
    "WriteTracker",
    "begin_attempt",
    "build_request",
    "read_proxy_settings",
    "written",
]

#: Seconds after which an idle connection is not used again. Servers close theirs after five
#: or more; a request that crosses with the closing would leave an attempt uncertain.
IDLE = 4.0
#: Longest response body that is read, in bytes.
MAX_ANSWER = 256 * 1024
#: Longest header line of a response, in bytes, and the most headers: the limits of ``http.client``.
MAX_LINE, MAX_HEADERS = 65536, 100

_DEFAULT_HEADERS = {
    "User-Agent": "smsqueue",
    "Accept-Encoding": "gzip, deflate",
    "Accept": "*/*",
}
#: Characters that no header may have: line ends, and what has more than one encoding.
_NOT_IN_HEADERS = re.compile(r"[^\t\x20-\x7e]")


class NoAnswer(Exception):
    """There was no response. The argument is the class name of the innermost error."""


class RawResponse(NamedTuple):
    """A complete response."""

    status: int
    #: Case-insensitive; the values of a repeated header are joined by ", ".
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Request:
    """A prepared request."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    #: It sends no message, so it may be repeated.
    safe: bool = False


class Timeouts(NamedTuple):
    """Limits of a call, in seconds."""

    #: To connect (to each of the host's addresses), TLS handshake included.
    connect: float
    #: Longest silence of the provider.
    read: float
    #: From connecting to the last byte of the response. Nothing is written after that.
    deadline: float


@dataclass
class _Attempt:
    """Counts the requests that have begun to be written since :func:`begin_attempt`."""

    writes: int = 0


_attempt: ContextVar[_Attempt] = ContextVar("smsqueue_attempt")


def _running_attempt() -> _Attempt:
    try:
        return _attempt.get()
    except LookupError:
        return begin_attempt()


def begin_attempt() -> _Attempt:
    """Start counting writes anew in this context: a thread, or a function on a loop."""
    attempt = _Attempt()
    _attempt.set(attempt)
    return attempt


def written() -> bool:
    """Has a request begun to be written in this context since :func:`begin_attempt`?"""
    return _running_attempt().writes > 0


class WriteTracker:
    """Records whether one call has begun to write its request.

    Args:
        safe: Do not count this call, because it can be repeated.
    """

    __slots__ = ("_attempt", "began")

    def __init__(self, *, safe: bool) -> None:
        self._attempt = None if safe else _running_attempt()
        self.began = False

    def begin(self) -> None:
        """Transports call this just before they write the first byte."""
        if self._attempt is not None:
            self.began = True
            self._attempt.writes += 1


def build_request(
    method: str,
    url: str,
    *,
    params: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
    json: Any = None,
    data: Mapping[str, Any] | Iterable[tuple[str, Any]] | bytes | str | None = None,
    headers: Mapping[str, str | bytes] | None = None,
    auth: tuple[str, str] | None = None,
    safe: bool = False,
) -> Request:
    """Prepare a request as :func:`requests.request` would write it.

    Args:
        params: The query. Values of None are left out, lists become repeated names.
        json: Sent as JSON, if there is no ``data``.
        data: The fields of a form, or the body itself.
        auth: User and password of HTTP Basic.

    Raises:
        ValueError, TypeError: it cannot be encoded: NaN, a line end in a header ...
    """
    all_headers: dict[str, str] = dict(_DEFAULT_HEADERS)
    if isinstance(data, bytes):
        body: bytes | None = data
    elif isinstance(data, str):
        body = data.encode()
    elif data:
        body = _form(data).encode("ascii")
        all_headers["Content-Type"] = "application/x-www-form-urlencoded"
    elif json is not None:
        body = json_module.dumps(json, allow_nan=False).encode()
        all_headers["Content-Type"] = "application/json"
    else:
        body = None
    if auth is not None:
        user = b64encode(f"{auth[0]}:{auth[1]}".encode("latin-1")).decode()
        all_headers["Authorization"] = f"Basic {user}"
    for name, value in (headers or {}).items():
        text = value.decode("ascii") if isinstance(value, bytes) else str(value)
        if _NOT_IN_HEADERS.search(name) or _NOT_IN_HEADERS.search(text):
            raise ValueError(f"the header {name!r} has a character that headers cannot have")
        existing = next((key for key in all_headers if key.lower() == name.lower()), name)
        all_headers[existing] = text
    full_url = _quoted_url(url) if not params else _url_with_query(url, params)
    return Request(method, full_url, all_headers, body, safe)


def _form(values: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> str:
    pairs = values.items() if isinstance(values, Mapping) else values
    flat: list[tuple[str, Any]] = []
    for name, value in pairs:
        values_of_name = value if isinstance(value, list | tuple) else [value]
        flat += [(name, item) for item in values_of_name if item is not None]
    return urlencode(flat)


def _url_with_query(url: str, params: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> str:
    query = _form(params)
    quoted = _quoted_url(url)
    if not query:
        return quoted
    return f"{quoted}{'&' if '?' in quoted else '?'}{query}"


@lru_cache(maxsize=256)
def _quoted_url(url: str) -> str:
    """A URL with its special characters percent-encoded."""
    prepared = requests.models.PreparedRequest()
    prepared.prepare_url(url, None)
    return str(prepared.url)


class ProxySettings(NamedTuple):
    """Proxies and trusted certificates for a URL, from the process's environment."""

    #: By scheme or host, as requests has them.
    proxies: Mapping[str, str]
    #: Verify certificates; or the file or folder of the trusted authorities.
    verify: bool | str

    def proxy(self, url: str) -> str | None:
        """The proxy for a URL; None for a direct connection."""
        if not self.proxies:
            return None
        proxy: str | None = select_proxy(url, dict(self.proxies))
        return proxy


def read_proxy_settings(url: str) -> ProxySettings:
    """Read the settings for a URL, once per provider: requests itself reads the environment again
    for each call."""
    settings = requests.Session().merge_environment_settings(url, {}, None, None, None)
    verify = settings["verify"]
    return ProxySettings(settings["proxies"], True if verify is None else verify)


def read_bounded(chunks: Iterable[bytes]) -> bytes:
    """The whole body of a response; NoAnswer if it is longer than :data:`MAX_ANSWER`."""
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > MAX_ANSWER:
            raise NoAnswer("AnswerTooLong")
    return bytes(body)
