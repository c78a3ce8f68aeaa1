"""HTTP calls in the calling thread, with requests.

Its connections tell when they begin to write, and bound a whole call, however slowly a server lets
its answer drip.
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

from smsqueue.providers import transport
from smsqueue.providers.transport import (
    Environment,
    Exchange,
    NoAnswer,
    Request,
    Timeouts,
    Watch,
    read_bounded,
)

__all__ = ["BlockingTransport"]


class _Call(NamedTuple):
    """The call that runs in this context."""

    watch: Watch
    #: When it must be over (monotonic).
    until: float


_call: ContextVar[_Call | None] = ContextVar("smsqueue_call", default=None)


def _left(most: float | None = None) -> float | None:
    """Seconds left for the running call, ``most`` if that is less; TimeoutError if none are."""
    call = _call.get()
    if call is None:
        return most
    left = call.until - time.monotonic()
    if left <= 0:
        raise TimeoutError("the call's time is over")
    return left if most is None else min(left, most)


def _begin() -> None:
    call = _call.get()
    if call is not None:
        call.watch.begin()


class _Reader(io.RawIOBase):
    """A socket's bytes, waited for no longer than what is left of the call."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._silence = sock.gettimeout()
        self._raw = cast(io.RawIOBase, sock.makefile("rb", buffering=0))
        #: The server has closed the connection, and everything before that is read.
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left(self._silence))
        number = self._raw.readinto(buffer)
        self.ended = number == 0
        return number

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer, status line and headers included, that is read within the call's time."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self._reader = _Reader(sock)
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        super().begin()
        if self._reader.ended:  # ``http.client`` takes that for the end of the headers
            raise http.client.IncompleteRead(b"")

    def _read_status(self) -> tuple[str, int, str]:
        """The status line, after those of interim answers (102, 103): ``http.client`` knows
        only 100 as one, and would take another for the answer."""
        while True:
            told: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if told[1] in (100, 101) or not 100 <= told[1] < 200:
                return told
            http.client.parse_headers(self.fp)


class _Watched(HTTPConnection):
    """Tells the running call when it begins to write."""

    response_class = _Response
    _connecting = False
    _used = 0.0

    @property
    def is_connected(self) -> bool:
        return super().is_connected and time.monotonic() - self._used < transport.IDLE

    def connect(self) -> None:
        self._connecting = True
        try:
            super().connect()
        finally:
            self._connecting = False

    def send(self, data: Any) -> None:
        # What is written while connecting is between us and a proxy.
        if not self._connecting:
            if self.sock is None and self.auto_open:
                self.connect()
            _left()  # connecting may have taken all the time: then nothing is written at all
            self._used = time.monotonic()
            _begin()
        super().send(data)


class _WatchedTls(_Watched, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Watched


class _PoolTls(HTTPSConnectionPool):
    ConnectionCls = _WatchedTls


_POOLS = {"http": _Pool, "https": _PoolTls}


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        if proxy.lower().startswith("socks"):
            _begin()  # these connections are not ours to watch: be careful
        else:
            manager.pool_classes_by_scheme = _POOLS
        return manager


def _session(environment: Environment, pool_size: int) -> requests.Session:
    session = requests.Session()
    session.proxies, session.verify = dict(environment.proxies), environment.verify
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    adapter = _Adapter(pool_connections=4, pool_maxsize=pool_size, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


class BlockingTransport:
    """Keeps the connections of one provider; shared by threads.

    Args:
        pool_size: Connections that are kept open at most.
    """

    def __init__(self, environment: Environment, pool_size: int) -> None:
        self._environment = environment
        self._pool_size = pool_size
        self._process = 0
        self._kept: requests.Session | None = None

    def exchange(self, request: Request, timeouts: Timeouts, watch: Watch) -> Exchange:
        """Make one exchange.

        Raises:
            NoAnswer: see ``watch`` for whether the provider may have the request.
        """
        try:
            with _bounded(watch, timeouts.deadline):
                return self._exchange(request, timeouts)
        except (requests.RequestException, HTTPError, http.client.HTTPException, OSError) as error:
            # ``from None``: what these errors say holds addresses with their queries.
            raise NoAnswer(_cause(error)) from None

    def _exchange(self, request: Request, timeouts: Timeouts) -> Exchange:
        with self._connections().request(
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
                body = b""  # a refusal is one, even if its reasons were cut off
            return Exchange(response.status_code, response.headers, body)

    def _connections(self) -> requests.Session:
        """The session of this process: one that came through a fork is the parent's."""
        if self._kept is None or self._process != os.getpid():
            self._kept = _session(self._environment, self._pool_size)
            self._process = os.getpid()
        return self._kept


@contextmanager
def _bounded(watch: Watch, seconds: float) -> Iterator[None]:
    running = _call.set(_Call(watch, time.monotonic() + seconds))
    try:
        yield
    finally:
        _call.reset(running)


def _cause(error: BaseException) -> str:
    """Name of the innermost error: requests and urllib3 wrap them several times."""
    while True:
        inner = [getattr(error, "reason", None), *error.args]
        if isinstance(error, NewConnectionError):
            inner.append(error.__cause__)
        found = next((e for e in inner if isinstance(e, BaseException)), None)
        if found is None:
            return type(error).__name__
        error = found


def _not_ours(record: logging.LogRecord) -> bool:
    return _call.get() is None


# urllib3 logs paths and queries, which hold numbers, and with some providers a password.
for _name in ("urllib3.connection", "urllib3.connectionpool"):
    logging.getLogger(_name).addFilter(_not_ours)
