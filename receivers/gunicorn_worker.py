"""A worker type for gunicorn whose threads do not wait for slow clients.

gunicorn starts, monitors and stops the processes. In each of them waitress reads requests and
writes responses in one non-blocking thread, and passes whole requests to a pool of threads.
"""

from __future__ import annotations

import functools
import os
import resource
import time
from collections.abc import Callable
from typing import Any

from gunicorn.workers.base import Worker
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import BaseWSGIServer, create_server
from waitress.task import WSGITask
from waitress.utilities import RequestEntityTooLarge

from smsqueue.logs import get_logger

__all__ = ["WholeRequestWorker"]

#: Seconds for a client to send a whole request, or to read its response, if gunicorn's
#: ``--timeout`` (30 by default) is 0.
CLIENT_TIMEOUT = 30.0
#: The same while there are too many connections.
CROWDED_TIMEOUT = 1.0
#: Seconds to wait for the rest of a partial request when the process ends.
PARTIAL_REQUEST_WAIT = 3.0
#: Most requests that a client may send before it reads responses; providers and proxies send one.
MAX_PIPELINED = 8
#: Longest body, in bytes, for applications without ``SMSQUEUE_MAX_WEBHOOK`` in their config.
DEFAULT_MAX_WEBHOOK = 1024 * 1024
#: Files of a process that are not clients' connections: Redis, logs, Python's own.
_OTHER_FILES = 150

_log = get_logger("smsqueue.receivers")


class _Parser(HTTPRequestParser):
    """Refuses a long body by its Content-Length, before it is read."""

    max_webhook = DEFAULT_MAX_WEBHOOK

    def received(self, data: bytes) -> int:
        used: int = super().received(data)
        if self.headers_finished and not self.error and self.content_length > self.max_webhook:
            self.error = RequestEntityTooLarge("the body is too long")
            self.expect_continue = False
            self.completed = True
        return used


class _Task(WSGITask):
    """Keeps the connection open after a response without a body. waitress closes it, because such a
    response has no length. Most webhooks are answered 204, and proxies keep their connections."""

    def set_close_on_finish(self) -> None:
        request: Any = self.request
        asked_to_close = request.headers.get("CONNECTION", "").lower() == "close"
        if self.wrote_header or self.has_body or self.version != "1.1" or asked_to_close:
            super().set_close_on_finish()


class _Channel(HTTPChannel):
    """A connection that records since when we wait for its client."""

    parser_class = _Parser
    task_class = _Task

    #: Monotonic time at which the client connected, completed a request, or got its response.
    waiting_since: float

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.waiting_since = time.monotonic()
        super().__init__(*args, **kwargs)

    def received(self, data: bytes) -> bool:
        whole = super().received(data)
        if self.requests:
            self.waiting_since = time.monotonic()
        if len(self.requests) > MAX_PIPELINED:
            self.will_close = True
        return whole


class WholeRequestWorker(Worker):  # type: ignore[misc]  # gunicorn has no annotations
    """The worker class of gunicorn, ``receivers.gunicorn_worker.WholeRequestWorker``."""

    def run(self) -> None:
        self._connections: dict[int, Any] = {}
        self._limit = _connection_limit(self.cfg.worker_connections)
        self._client_timeout = self.cfg.timeout or CLIENT_TIMEOUT
        self._next_check = 0.0
        server = self._serve()
        while self.alive:
            self.notify()
            if self.ppid != os.getppid():
                self.log.info("Parent changed, shutting down: %s", self)
                break
            self._run_once()
            self._close_slow()
        self._drain(server)

    def _serve(self) -> Any:
        if self.cfg.is_ssl:
            self.log.error("The receivers serve plain HTTP: use a proxy for TLS")
            raise SystemExit(4)  # gunicorn exits, because another process would fail, too
        _Parser.max_webhook = max_webhook = getattr(self.wsgi, "config", {}).get(
            "SMSQUEUE_MAX_WEBHOOK", DEFAULT_MAX_WEBHOOK
        )
        server = create_server(
            self.wsgi,
            map=self._connections,
            sockets=[listener.sock for listener in self.sockets],
            threads=self.cfg.threads,
            backlog=self.cfg.backlog,
            # waitress stops accepting there; the slowest clients are closed before.
            connection_limit=2 * self._limit + _OTHER_FILES,
            channel_timeout=int(2 * self._client_timeout),
            # Includes the lengths of chunks; the application enforces the exact limit.
            max_request_body_size=2 * max_webhook + 65536,
            max_request_header_size=65536,
            # Longer bodies are buffered on disk.
            inbuf_overflow=65536,
            # The application evaluates the headers of proxies.
            clear_untrusted_proxy_headers=False,
            # select() is limited to 1024 connections.
            asyncore_use_poll=True,
            log_socket_errors=False,
            ident="",
        )
        for listener in self._listeners():
            listener.channel_class = _Channel
            listener.handle_accept = functools.partial(self._accept, listener.handle_accept)
        return server

    def _run_once(self, timeout: float = 0.5) -> None:
        wasyncore.loop(timeout=timeout, use_poll=True, map=self._connections, count=1)

    def _accept(self, accept_one: Callable[[], None]) -> None:
        """Accept all pending connections: with many connections the loop turns slowly."""
        for _ in range(100):
            before = len(self._connections)
            accept_one()
            if len(self._connections) == before:
                break

    def _listeners(self) -> list[Any]:
        return [c for c in self._connections.values() if isinstance(c, BaseWSGIServer)]

    def _channels(self) -> list[_Channel]:
        return [c for c in self._connections.values() if isinstance(c, _Channel)]

    def _close_slow(self) -> None:
        """Close clients that are too slow, and the slowest ones if there are too many."""
        now = time.monotonic()
        crowded = len(self._connections) > self._limit
        if not crowded and now < self._next_check:
            return
        self._next_check = now + 1.0
        waiting = []
        for channel in self._channels():
            if channel.requests:  # the client waits for us
                channel.waiting_since = now
            elif now - channel.waiting_since > self._client_timeout:
                channel.handle_close()
            elif now - channel.waiting_since > CROWDED_TIMEOUT:
                waiting.append(channel)
        if crowded:
            waiting.sort(key=lambda channel: channel.waiting_since)
            for channel in waiting[: max(1, self._limit // 10)]:
                channel.handle_close()

    def _drain(self, server: Any) -> None:
        """Stop accepting connections, and finish the pending requests."""
        for listener in self._listeners():
            # close() would also close the trigger by which threads wake the loop.
            listener.accepting = False
            listener.del_channel(self._connections)
            listener.socket.close()
        began = time.monotonic()
        while (waited := time.monotonic() - began) < self.cfg.graceful_timeout:
            self.notify()
            self._run_once(0.1)
            if not any(_is_busy(channel, waited) for channel in self._channels()):
                break
        server.task_dispatcher.shutdown(timeout=1)


def _is_busy(channel: _Channel, waited: float) -> bool:
    """Does the connection have a request or a response that must not be lost?"""
    if channel.requests or channel.total_outbufs_len:
        return True
    is_partial = channel.request is not None
    is_new = time.monotonic() - channel.waiting_since < 1.0
    return (is_partial or is_new) and waited < PARTIAL_REQUEST_WAIT


def _connection_limit(wanted: int) -> int:
    """The number of connections, limited by the number of files that the process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * (wanted + _OTHER_FILES)
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limit = min(wanted, soft // 2 - _OTHER_FILES)
    if limit < wanted:
        _log.warning("only %d concurrent connections: raise the limit of open files", max(limit, 1))
    return max(limit, 1)
