"""HTTP calls on a loop, with aiohttp: one thread makes hundreds at once.

aiohttp repeats idempotent methods (GET, PUT, DELETE ...) by itself when a server has closed a kept
connection. So only POST, and requests that send no message, go through it.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.util.ssl_ import create_urllib3_context
from urllib3.util.wait import wait_for_read
from yarl import URL

from smsqueue.concurrency.greenlet_loop import Loop, wait
from smsqueue.providers.base import transport
from smsqueue.providers.base.transport import (
    MAX_ANSWER,
    MAX_HEADERS,
    MAX_LINE,
    NoAnswer,
    ProxySettings,
    RawResponse,
    Request,
    Timeouts,
    WriteTracker,
)

__all__ = ["AiohttpTransport"]


class _Call(NamedTuple):
    """A running call."""

    tracker: WriteTracker
    #: Monotonic time by which it must end.
    until: float


#: The call that the running asyncio task makes.
_call: ContextVar[_Call] = ContextVar("smsqueue_call")


class AiohttpTransport:
    """Makes the calls of one provider, for functions that run on one loop."""

    def __init__(self, proxy_settings: ProxySettings, loop: Loop) -> None:
        self._proxy_settings = proxy_settings
        self._session = _session_of(loop)
        self._tls: ssl.SSLContext | None = None
        self._timeouts: dict[Timeouts, aiohttp.ClientTimeout] = {}

    def supports(self, request: Request) -> bool:
        """May a request be made here? Not through proxies that aiohttp does not support, and not
        if aiohttp might repeat it."""
        proxy = self._proxy_settings.proxy(request.url)
        reachable = proxy is None or proxy.lower().startswith("http://")
        return reachable and (request.method == "POST" or request.safe)

    def exchange(self, request: Request, timeouts: Timeouts, tracker: WriteTracker) -> RawResponse:
        """Write one request and read its response.

        Raises:
            NoAnswer: ``tracker`` says whether the provider may have the request.
        """
        return wait(self._exchange(request, timeouts, tracker))

    async def _exchange(
        self, request: Request, timeouts: Timeouts, tracker: WriteTracker
    ) -> RawResponse:
        _call.set(_Call(tracker, time.monotonic() + timeouts.deadline))
        try:
            async with self._session.request(
                request.method,
                URL(request.url, encoded=True),
                headers=request.headers,
                data=request.body,
                timeout=self._client_timeout(timeouts),
                allow_redirects=False,
                ssl=self._tls_context() if request.url.startswith("https:") else True,
                **self._proxy(request.url),
            ) as response:
                try:
                    body = await _read(response)
                except (aiohttp.ClientError, OSError, TimeoutError, NoAnswer):
                    if response.status < 300:
                        raise
                    body = b""  # the status alone is a refusal
                return RawResponse(response.status, _join_repeated(response.headers), body)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # ``from None``: these errors quote URLs with their queries.
            raise NoAnswer(_innermost(error)) from None

    def _client_timeout(self, timeouts: Timeouts) -> aiohttp.ClientTimeout:
        if timeouts not in self._timeouts:
            self._timeouts[timeouts] = aiohttp.ClientTimeout(
                total=max(timeouts.deadline, 0.001),  # 0 means no limit
                sock_connect=timeouts.connect,
                sock_read=timeouts.read,
                # aiohttp rounds longer timeouts up to whole seconds by default.
                ceil_threshold=float("inf"),
            )
        return self._timeouts[timeouts]

    def _tls_context(self) -> ssl.SSLContext:
        """Trusts what requests trusts: its bundle of authorities, or the environment's."""
        if self._tls is None:
            verify = self._proxy_settings.verify
            self._tls = create_urllib3_context()
            if verify is False:
                self._tls.check_hostname = False
                self._tls.verify_mode = ssl.CERT_NONE
            else:
                trusted = DEFAULT_CA_BUNDLE_PATH if verify is True else verify
                is_folder = Path(trusted).is_dir()
                self._tls.load_verify_locations(**{"capath" if is_folder else "cafile": trusted})
        return self._tls

    def _proxy(self, url: str) -> dict[str, Any]:
        proxy = self._proxy_settings.proxy(url)
        return {"proxy": proxy} if proxy else {}


class _Request(aiohttp.ClientRequest):
    """A request that records when it begins to be written. aiohttp's tracing would say so, too, but
    costs a tenth of the whole call."""

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        # The connection exists, and nothing was written but CONNECT to a proxy, which has requests
        # of its own.
        call = _call.get()
        if time.monotonic() >= call.until:
            raise TimeoutError("the call's deadline has passed")
        call.tracker.begin()
        return await super().send(conn)


class _Connection(ResponseHandler):
    """A connection that is not used again once it received unrequested data: the next message
    would take that data for its own response."""

    kept = False
    _has_unrequested = False

    def set_response_params(self, **options: Any) -> None:
        self.kept = False
        super().set_response_params(**options)

    def data_received(self, data: bytes) -> None:
        if data and self.kept:  # aiohttp passes b"" to continue with earlier data
            self._has_unrequested = True
        super().data_received(data)

    def is_connected(self) -> bool:
        if not super().is_connected():
            return False
        return not self.kept or not (
            self._has_unrequested or self.should_close or self._is_readable()
        )

    def _is_readable(self) -> bool:
        """Is there data that the loop has not read yet?"""
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        return sock is not None and wait_for_read(sock, 0)


class _Connector(aiohttp.TCPConnector):
    """Uses :class:`_Connection`: aiohttp itself checks only that a kept connection is open."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(loop=loop, **options)
        factory: Any = partial(_Connection, loop=loop)
        self._factory = factory

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        protocol.kept = True
        super()._release(key, protocol, should_close=should_close)


#: One session, and so one pool of connections, for each loop.
_sessions: WeakKeyDictionary[Loop, aiohttp.ClientSession] = WeakKeyDictionary()


def _session_of(loop: Loop) -> aiohttp.ClientSession:
    """The loop's session. Call it from a function that the loop runs."""
    if loop not in _sessions:
        session = _sessions[loop] = aiohttp.ClientSession(
            connector=_Connector(
                limit=0,  # slots limit the number of calls
                keepalive_timeout=transport.IDLE,
                loop=loop.asyncio,
            ),
            loop=loop.asyncio,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            request_class=_Request,
            skip_auto_headers=["User-Agent", "Content-Type"],
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_HEADERS,
        )
        loop.at_close(session.close)
    return _sessions[loop]


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(16 * 1024):
        body += chunk
        if len(body) > MAX_ANSWER:
            raise NoAnswer("AnswerTooLong")
    return bytes(body)


def _join_repeated(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Headers with one value per name."""
    pairs = list(headers.items())
    if len({name.lower() for name, _ in pairs}) == len(pairs):
        return headers
    joined: CaseInsensitiveDict[str] = CaseInsensitiveDict()
    for name, value in pairs:
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def _innermost(error: BaseException) -> str:
    """Class name of the innermost error."""
    inner = getattr(error, "os_error", None) or error.__cause__
    use_inner = isinstance(inner, OSError) and not isinstance(error, asyncio.TimeoutError)
    return type(inner if use_inner else error).__name__
