"""What the two HTTP transports have in common: how a request is written, and what it ends in.

:mod:`smsqueue.providers.blocking_transport` makes a call in the calling thread, with requests;
:mod:`smsqueue.providers.loop_transport` makes it on a loop (:mod:`smsqueue.concurrency.loop`), with
aiohttp.
Both get a request that is ready to be written, so providers see no difference, and both know what
an error alone does not tell: whether the request had begun to be written when it came. Neither
repeats a request, follows a redirect or keeps cookies.
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
    "Environment",
    "Exchange",
    "NoAnswer",
    "Request",
    "Timeouts",
    "Watch",
    "begin_attempt",
    "environment_of",
    "make_request",
    "written",
]

#: Seconds after which an idle connection is not used again. Servers close theirs after five
#: or more; a request that crosses with the closing would leave an attempt uncertain.
IDLE = 4.0
#: Longest answer that is read, in bytes.
MAX_ANSWER = 256 * 1024
#: Longest line of an answer's head, in bytes, and the most headers: the limits of ``http.client``.
MAX_LINE, MAX_HEADERS = 65536, 100

_USUAL_HEADERS = {
    "User-Agent": "smsqueue",
    "Accept-Encoding": "gzip, deflate",
    "Accept": "*/*",
}
#: What a header must not hold: it would end it, or be written in two ways.
_NOT_IN_HEADERS = re.compile(r"[^\t\x20-\x7e]")


class NoAnswer(Exception):
    """An exchange came to no answer; the argument is the class of the innermost error."""


class Exchange(NamedTuple):
    """What came back, read to its end."""

    status: int
    #: Case does not matter; headers that came several times are joined by ", ".
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Request:
    """A request that is ready to be written."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    #: It sends no message, so it may be written twice.
    safe: bool = False


class Timeouts(NamedTuple):
    """How long a call may take, in seconds."""

    #: For a connection (to each of the host's addresses), handshake included.
    connect: float
    #: That the provider may stay silent.
    read: float
    #: From connecting to the answer's last byte. Nothing is written after that.
    deadline: float


@dataclass
class _Attempt:
    """Requests that have begun to be written since :func:`begin_attempt`."""

    writes: int = 0


_attempt: ContextVar[_Attempt] = ContextVar("smsqueue_attempt")


def _running_attempt() -> _Attempt:
    try:
        return _attempt.get()
    except LookupError:
        return begin_attempt()


def begin_attempt() -> _Attempt:
    """Forget what was written before in this context: this thread, or this function on a loop."""
    attempt = _Attempt()
    _attempt.set(attempt)
    return attempt


def written() -> bool:
    """Has a request begun to be written in this context since :func:`begin_attempt`?"""
    return _running_attempt().writes > 0


class Watch:
    """Of one call: has it begun to write?

    Args:
        safe: What it writes does not count, as it can be repeated.
    """

    __slots__ = ("_attempt", "began")

    def __init__(self, *, safe: bool) -> None:
        self._attempt = None if safe else _running_attempt()
        self.began = False

    def begin(self) -> None:
        """A transport calls this before it writes the first byte, never after."""
        if self._attempt is not None:
            self.began = True
            self._attempt.writes += 1


def make_request(
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
    """A request, as :func:`requests.request` would write it.

    Args:
        params: Of the query; without those that are None, lists as repeated names.
        json: Sent as JSON, if there is no ``data``.
        data: A form, or a body as it is.
        auth: User and password of HTTP Basic.

    Raises:
        ValueError, TypeError: it cannot be written: NaN, a line end in a header ...
    """
    written_headers: dict[str, str] = dict(_USUAL_HEADERS)
    if isinstance(data, bytes):
        body: bytes | None = data
    elif isinstance(data, str):
        body = data.encode()
    elif data:
        body = _form(data).encode("ascii")
        written_headers["Content-Type"] = "application/x-www-form-urlencoded"
    elif json is not None:
        body = json_module.dumps(json, allow_nan=False).encode()
        written_headers["Content-Type"] = "application/json"
    else:
        body = None
    if auth is not None:
        user = b64encode(f"{auth[0]}:{auth[1]}".encode("latin-1")).decode()
        written_headers["Authorization"] = f"Basic {user}"
    for name, value in (headers or {}).items():
        text = value.decode("ascii") if isinstance(value, bytes) else str(value)
        if _NOT_IN_HEADERS.search(name) or _NOT_IN_HEADERS.search(text):
            raise ValueError(f"the header {name!r} holds what no header may hold")
        same = next((known for known in written_headers if known.lower() == name.lower()), name)
        written_headers[same] = text
    full_url = _url(url) if not params else _url_with(url, params)
    return Request(method, full_url, written_headers, body, safe)


def _form(values: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> str:
    pairs = values.items() if isinstance(values, Mapping) else values
    flat: list[tuple[str, Any]] = []
    for name, value in pairs:
        several = value if isinstance(value, list | tuple) else [value]
        flat += [(name, each) for each in several if each is not None]
    return urlencode(flat)


def _url_with(url: str, params: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> str:
    query = _form(params)
    ready = _url(url)
    if not query:
        return ready
    return f"{ready}{'&' if '?' in ready else '?'}{query}"


@lru_cache(maxsize=256)
def _url(url: str) -> str:
    """An address with everything quoted that has to be."""
    prepared = requests.models.PreparedRequest()
    prepared.prepare_url(url, None)
    return str(prepared.url)


class Environment(NamedTuple):
    """What the process's environment says of calls to an address."""

    #: By scheme or host, as requests has them.
    proxies: Mapping[str, str]
    #: Verify certificates, or the file or folder of the authorities that are trusted.
    verify: bool | str

    def proxy(self, url: str) -> str | None:
        """The proxy for an address; None: it is called directly."""
        if not self.proxies:
            return None
        found: str | None = select_proxy(url, dict(self.proxies))
        return found


def environment_of(url: str) -> Environment:
    """Proxies and certificates for an address. Read once for each provider: requests itself reads
    the environment again for each call."""
    around = requests.Session().merge_environment_settings(url, {}, None, None, None)
    verify = around["verify"]
    return Environment(around["proxies"], True if verify is None else verify)


def read_bounded(chunks: Iterable[bytes]) -> bytes:
    """All of an answer's body; NoAnswer if it is longer than :data:`MAX_ANSWER`."""
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > MAX_ANSWER:
            raise NoAnswer("AnswerTooLong")
    return bytes(body)
