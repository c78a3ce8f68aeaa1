"""The connections under the HTTP providers.

They know what an error alone does not tell: whether a request had begun to be written when it
came. And they bound a whole call, however slowly a server lets its answer drip.
"""

from __future__ import annotations

import http.client
import io
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from typing import Any, cast

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

__all__ = ["begin_attempt", "bounded", "make_session", "written"]

#: Seconds after which an idle connection is not used again. Servers close theirs after five
#: or more; a request that crosses with the closing would leave an attempt uncertain.
IDLE = 4.0


class _State(threading.local):
    """What this thread is doing."""

    #: Pieces of requests written since the attempt began.
    writes = 0
    #: When the running call must be over (monotonic); None outside of calls.
    until: float | None = None


_state = _State()


def begin_attempt() -> None:
    """Forget what this thread has written before."""
    _state.writes = 0


def written() -> bool:
    """Has this thread begun to write a request since :func:`begin_attempt`?"""
    return _state.writes > 0


@contextmanager
def bounded(seconds: float, *, safe: bool = False) -> Iterator[Callable[[], bool]]:
    """A call that is over after ``seconds``; gives a function that tells if it began to write.

    What a ``safe`` call writes does not count: it can be repeated.
    """
    before = _state.writes
    _state.until = time.monotonic() + seconds
    try:
        yield lambda: not safe and _state.writes > before
    finally:
        _state.until = None
        if safe:
            _state.writes = before


def _left(most: float | None = None) -> float | None:
    """Seconds left for the running call, ``most`` if that is less; TimeoutError if none are."""
    if _state.until is None:
        return most
    left = _state.until - time.monotonic()
    if left <= 0:
        raise TimeoutError("the call's time is over")
    return left if most is None else min(left, most)


class _Reader(io.RawIOBase):
    """A socket's bytes, waited for no longer than what is left of the call."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._silence = sock.gettimeout()
        self._raw = cast(io.RawIOBase, sock.makefile("rb", buffering=0))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left(self._silence))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer, status line and headers included, that is read within the call's time."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_Reader(sock))


class _Watched(HTTPConnection):
    """Remembers for its thread that it wrote."""

    response_class = _Response
    _connecting = False
    _used = 0.0

    @property
    def is_connected(self) -> bool:
        return super().is_connected and time.monotonic() - self._used < IDLE

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
            _state.writes += 1
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
            _state.writes += 1  # these connections are not ours to watch: be careful
        else:
            manager.pool_classes_by_scheme = _POOLS
        return manager


def make_session(url: str, pool_size: int) -> requests.Session:
    """A session that keeps up to ``pool_size`` connections, repeats nothing, takes no cookies.

    Args:
        url: Where it will call. What the environment says of proxies and certificates for this
            address is read here, once: requests itself reads it again for each call.
    """
    session = requests.Session()
    around = session.merge_environment_settings(url, {}, None, None, None)
    session.proxies, session.verify = around["proxies"], around["verify"]
    session.trust_env = False
    session.headers["User-Agent"] = "smsqueue"
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    adapter = _Adapter(pool_connections=4, pool_maxsize=pool_size, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _not_ours(record: logging.LogRecord) -> bool:
    return _state.until is None


# urllib3 logs paths and queries, which hold numbers, and with some providers a password.
for _name in ("urllib3.connection", "urllib3.connectionpool"):
    logging.getLogger(_name).addFilter(_not_ours)
