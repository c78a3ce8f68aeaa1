"""HTTP calls on a loop, with aiohttp: hundreds at once take one thread.

aiohttp repeats by itself what it holds for harmless (GET, PUT, DELETE ...) when a server has closed
a kept connection. Only POST, and what sends no message, goes through it.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.client_proto import ResponseHandler
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.util.ssl_ import create_urllib3_context
from urllib3.util.wait import wait_for_read
from yarl import URL

from smsqueue.concurrency.loop import Loop, wait
from smsqueue.providers import transport
from smsqueue.providers.transport import (
    MAX_ANSWER,
    MAX_HEADERS,
    MAX_LINE,
    Environment,
    Exchange,
    NoAnswer,
    Request,
    Timeouts,
    Watch,
)

__all__ = ["LoopTransport"]


class _Call(NamedTuple):
    """A call that runs."""

    watch: Watch
    #: When it must be over (monotonic).
    until: float


class LoopTransport:
    """Makes the calls of one provider on one loop, for functions that the loop runs."""

    def __init__(self, environment: Environment, loop: Loop) -> None:
        self._environment = environment
        self._session = _session_of(loop)
        self._tls: ssl.SSLContext | None = None
        self._timeouts: dict[Timeouts, aiohttp.ClientTimeout] = {}

    def takes(self, request: Request) -> bool:
        """Can this transport make a request? Not through proxies that aiohttp does not know, nor
        what it might repeat by itself."""
        proxy = self._environment.proxy(request.url)
        through = proxy is None or proxy.lower().startswith("http://")
        return through and (request.method == "POST" or request.safe)

    def exchange(self, request: Request, timeouts: Timeouts, watch: Watch) -> Exchange:
        """Make one exchange.

        Raises:
            NoAnswer: see ``watch`` for whether the provider may have the request.
        """
        return wait(self._exchange(request, timeouts, watch))

    async def _exchange(self, request: Request, timeouts: Timeouts, watch: Watch) -> Exchange:
        call = _Call(watch, time.monotonic() + timeouts.deadline)
        try:
            async with self._session.request(
                request.method,
                URL(request.url, encoded=True),
                headers=request.headers,
                data=request.body,
                timeout=self._limits(timeouts),
                allow_redirects=False,
                ssl=self._tls_context() if request.url.startswith("https:") else True,
                trace_request_ctx=call,
                **self._proxy(request.url),
            ) as response:
                try:
                    body = await _read(response)
                except (aiohttp.ClientError, OSError, TimeoutError, NoAnswer):
                    if response.status < 300:
                        raise
                    body = b""  # a refusal is one, even if its reasons were cut off
                return Exchange(response.status, _joined(response.headers), body)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # ``from None``: what these errors say holds addresses with their queries.
            raise NoAnswer(_cause(error)) from None

    def _limits(self, timeouts: Timeouts) -> aiohttp.ClientTimeout:
        if timeouts not in self._timeouts:
            self._timeouts[timeouts] = aiohttp.ClientTimeout(
                total=max(timeouts.deadline, 0.001),  # 0 would be no limit
                sock_connect=timeouts.connect,
                sock_read=timeouts.read,
                # aiohttp would round longer ones up to whole seconds.
                ceil_threshold=float("inf"),
            )
        return self._timeouts[timeouts]

    def _tls_context(self) -> ssl.SSLContext:
        """As requests trusts: its own bundle of authorities, or the environment's."""
        if self._tls is None:
            verify = self._environment.verify
            self._tls = create_urllib3_context()
            if verify is False:
                self._tls.check_hostname = False
                self._tls.verify_mode = ssl.CERT_NONE
            else:
                trusted = DEFAULT_CA_BUNDLE_PATH if verify is True else verify
                folder = Path(trusted).is_dir()
                self._tls.load_verify_locations(**{"capath" if folder else "cafile": trusted})
        return self._tls

    def _proxy(self, url: str) -> dict[str, Any]:
        proxy = self._environment.proxy(url)
        return {"proxy": proxy} if proxy else {}


class _Connection(ResponseHandler):
    """A connection that is not used again once something came that nobody had asked for: the next
    message would take that for its own answer."""

    kept = False
    _unasked = False

    def set_response_params(self, **options: Any) -> None:
        self.kept = False
        super().set_response_params(**options)

    def data_received(self, data: bytes) -> None:
        if data and self.kept:  # without data, aiohttp goes on with what came before
            self._unasked = True
        super().data_received(data)

    def is_connected(self) -> bool:
        if not super().is_connected():
            return False
        return not self.kept or not (self._unasked or self.should_close or self._waits())

    def _waits(self) -> bool:
        """Is there something to read that the loop has not come to?"""
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        return sock is not None and wait_for_read(sock, 0)


class _Connector(aiohttp.TCPConnector):
    """aiohttp asks a kept connection only whether it is still open."""

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
    """To be called by a function that the loop runs."""
    if loop not in _sessions:
        watching = aiohttp.TraceConfig()
        watching.on_request_headers_sent.append(_begin)
        session = _sessions[loop] = aiohttp.ClientSession(
            connector=_Connector(
                limit=0,  # slots say how many calls there are at once
                keepalive_timeout=transport.IDLE,
                loop=loop.asyncio,
            ),
            loop=loop.asyncio,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            trace_configs=[watching],
            skip_auto_headers=["User-Agent", "Content-Type"],
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_HEADERS,
        )
        loop.at_close(session.close)
    return _sessions[loop]


async def _begin(session: Any, context: Any, params: Any) -> None:
    """aiohttp calls this before it writes the first byte of a request, not of one to a proxy."""
    call: _Call = context.trace_request_ctx
    if time.monotonic() >= call.until:
        raise TimeoutError("the call's time is over")
    call.watch.begin()


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(16 * 1024):
        body += chunk
        if len(body) > MAX_ANSWER:
            raise NoAnswer("AnswerTooLong")
    return bytes(body)


def _joined(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Headers, each name once."""
    pairs = list(headers.items())
    if len({name.lower() for name, _ in pairs}) == len(pairs):
        return headers
    joined: CaseInsensitiveDict[str] = CaseInsensitiveDict()
    for name, value in pairs:
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def _cause(error: BaseException) -> str:
    """Name of the innermost error."""
    inner = getattr(error, "os_error", None) or error.__cause__
    known = isinstance(inner, OSError) and not isinstance(error, asyncio.TimeoutError)
    return type(inner if known else error).__name__
