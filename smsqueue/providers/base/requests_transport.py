"""HTTP calls in the calling thread, with requests.

Its connections record when they begin to write, and limit the time of the whole call, however
slowly the server sends its response.
"""

from __future__ import annotations

import http.client
import io
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NamedTuple, cast

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, NewConnectionError

from smsqueue.providers.base import transport
from smsqueue.providers.base.transport import (
    NoAnswer,
    ProxySettings,
    RawResponse,
    Request,
    Timeouts,
    WriteTracker,
    read_bounded,
)

__all__ = ["RequestsTransport"]


class _Call(NamedTuple):
    """The running call of this context."""

    tracker: WriteTracker
    #: Monotonic time by which it must end.
    until: float


_call: ContextVar[_Call | None] = ContextVar("smsqueue_call", default=None)


def _seconds_left(most: float | None = None) -> float | None:
    """Seconds left for the running call, at most ``most``; TimeoutError if there are none."""
    call = _call.get()
    if call is None:
        return most
    left = call.until - time.monotonic()
    if left <= 0:
        raise TimeoutError("the call's deadline has passed")
    return left if most is None else min(left, most)


def _track_write() -> None:
    call = _call.get()
    if call is not None:
        call.tracker.begin()


class _Reader(io.RawIOBase):
    """Reads a socket within the time left for the call."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._read_timeout = sock.gettimeout()
        self._raw = cast(io.RawIOBase, sock.makefile("rb", buffering=0))
        #: The server closed the connection, and everything before that was read.
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_seconds_left(self._read_timeout))
        count = self._raw.readinto(buffer)
        self.ended = count == 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """Reads a response, status line and headers included, within the call's time."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self._reader = _Reader(sock)
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        super().begin()
        if self._reader.ended:  # to ``http.client`` that is the end of the headers
            raise http.client.IncompleteRead(b"")

    def _read_status(self) -> tuple[str, int, str]:
        """The status line of the final response. Interim ones (102, 103) are skipped:
        ``http.client`` skips only 100, and would return another as the response."""
        while True:
            line: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if line[1] in (100, 101) or not 100 <= line[1] < 200:
                return line
            http.client.parse_headers(self.fp)


class _TrackedConnection(HTTPConnection):
    """Records in the running call that it begins to write."""

    response_class = _Response
    _connecting = False
    _last_used = 0.0

    @property
    def is_connected(self) -> bool:
        return super().is_connected and time.monotonic() - self._last_used < transport.IDLE

    def connect(self) -> None:
        self._connecting = True
        try:
            super().connect()
        finally:
            self._connecting = False

    def send(self, data: Any) -> None:
        # Bytes written while connecting go to a proxy only.
        if not self._connecting:
            if self.sock is None and self.auto_open:
                self.connect()
            _seconds_left()  # connecting may have taken all the time: then write nothing
            self._last_used = time.monotonic()
            _track_write()
        super().send(data)


class _TrackedTlsConnection(_TrackedConnection, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _TrackedConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TrackedTlsConnection


_POOLS = {"http": _Pool, "https": _TlsPool}


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        if proxy.lower().startswith("socks"):
            _track_write()  # these connections cannot be tracked: assume a write
        else:
            manager.pool_classes_by_scheme = _POOLS
        return manager


def _new_session(proxy_settings: ProxySettings, pool_size: int) -> requests.Session:
    session = requests.Session()
    session.proxies, session.verify = dict(proxy_settings.proxies), proxy_settings.verify
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    adapter = _Adapter(pool_connections=4, pool_maxsize=pool_size, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


class RequestsTransport:
    """Makes the calls of one provider over kept connections; shared by threads.

    Args:
        pool_size: Most connections kept open.
    """

    def __init__(self, proxy_settings: ProxySettings, pool_size: int) -> None:
        self._proxy_settings = proxy_settings
        self._pool_size = pool_size
        self._session_pid = 0
        self._session: requests.Session | None = None

    def exchange(self, request: Request, timeouts: Timeouts, tracker: WriteTracker) -> RawResponse:
        """Write one request and read its response.

        Raises:
            NoAnswer: ``tracker`` says whether the provider may have the request.
        """
        try:
            with _running_call(tracker, timeouts.deadline):
                return self._exchange(request, timeouts)
        except (requests.RequestException, HTTPError, http.client.HTTPException, OSError) as error:
            # ``from None``: these errors quote URLs with their queries.
            raise NoAnswer(_innermost(error)) from None

    def _exchange(self, request: Request, timeouts: Timeouts) -> RawResponse:
        with self._session_of_process().request(
            request.method,
            request.url,
            headers=dict(request.headers),
            data=request.body,
            timeout=(timeouts.connect, timeouts.read),
            stream=True,
            allow_redirects=False,
        ) as response:
            try:
                body = read_bounded(response.iter_content(16 * 1024))
            except (requests.RequestException, HTTPError, OSError, NoAnswer):
                if response.status_code < 300:
                    raise
                body = b""  # the status alone is a refusal
            return RawResponse(response.status_code, response.headers, body)

    def _session_of_process(self) -> requests.Session:
        """The session of this process, not one that was inherited through a fork."""
        if self._session is None or self._session_pid != os.getpid():
            self._session = _new_session(self._proxy_settings, self._pool_size)
            self._session_pid = os.getpid()
        return self._session


@contextmanager
def _running_call(tracker: WriteTracker, seconds: float) -> Iterator[None]:
    token = _call.set(_Call(tracker, time.monotonic() + seconds))
    try:
        yield
    finally:
        _call.reset(token)


def _innermost(error: BaseException) -> str:
    """Class name of the innermost error: requests and urllib3 wrap errors several times."""
    while True:
        candidates = [getattr(error, "reason", None), *error.args]
        if isinstance(error, NewConnectionError):
            candidates.append(error.__cause__)
        inner = next((each for each in candidates if isinstance(each, BaseException)), None)
        if inner is None:
            return type(error).__name__
        error = inner


def _is_foreign(record: logging.LogRecord) -> bool:
    """Does the record come from outside of our calls?"""
    return _call.get() is None


# urllib3 logs paths and queries, which hold numbers and, for some providers, a password.
for _name in ("urllib3.connection", "urllib3.connectionpool"):
    logging.getLogger(_name).addFilter(_is_foreign)
