"""Slow clients, and clients that measure how webhooks are answered meanwhile."""

from __future__ import annotations

import contextlib
import json
import math
import select
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

__all__ = ["KINDS", "SlowClients", "call", "p99", "webhook"]

#: What a slow client has sent when it begins to be slow, and what it then sends byte by byte.
KINDS = {
    "idle": (b"", b""),
    "headers": (b"POST /x/main/im HTTP/1.1\r\nHost: x\r\n", b"X-A: " + b"a" * 60),
    "body": (b"POST /x/main/im HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n", b"{" * 60),
    # Reads no answer.
    "reader": (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * 8, b""),
}


class SlowClients:
    """Some clients of each kind, connected as long as the context lasts.

    Args:
        url: Of the server.
        count: How many in all.
        pause: Seconds between two bytes of a client.
    """

    def __init__(self, url: str, count: int, pause: float = 0.5) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._count, self._pause = count, pause
        self._sockets: list[socket.socket] = []
        self._rest: list[Iterator[int]] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._drip)

    def __enter__(self) -> SlowClients:
        kinds = list(KINDS.values())
        for number in range(self._count):
            self.add(*kinds[number % len(kinds)])
        self._thread.start()
        return self

    def add(self, start: bytes, slowly: bytes = b"") -> None:
        """Connect one more."""
        client = socket.create_connection(self._address, timeout=60)
        client.setblocking(False)
        with contextlib.suppress(OSError):
            client.send(start)
        self._rest.append(iter(slowly))
        self._sockets.append(client)

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join()
        for client in self._sockets:
            client.close()

    def _drip(self) -> None:
        while not self._stopped.wait(self._pause):
            for client, rest in zip(self._sockets, self._rest, strict=False):
                byte = next(rest, None)
                if byte is not None:
                    with contextlib.suppress(OSError):
                        client.send(bytes([byte]))

    def closed(self) -> int:
        """How many of them the server has closed."""
        poll = select.poll()
        for client in self._sockets:
            poll.register(client, select.POLLRDHUP)  # and errors, which need no asking
        return len(poll.poll(0))


def webhook(path: str, **fields: str) -> bytes:
    """A genuine webhook."""
    body = json.dumps(fields).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def call(url: str, request: bytes, timeout: float) -> tuple[int, float]:
    """Status and seconds of a request on a connection of its own; status 0 without an answer."""
    parts = urlsplit(url)
    began = time.monotonic()
    answer = b""
    try:
        with socket.create_connection((parts.hostname, parts.port), timeout=timeout) as connection:
            connection.sendall(request)
            while part := connection.recv(65536):
                answer += part
    except OSError:
        answer = b""
    return int(answer.split(b" ", 2)[1]) if answer else 0, time.monotonic() - began


def p99(times: list[float]) -> float:
    """The time that 99 of 100 do not exceed."""
    return sorted(times)[math.ceil(0.99 * len(times)) - 1]
