"""A server on a real socket that misbehaves as a test asks, and a provider that calls it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from smsqueue import exc
from smsqueue.providers.http import Answer, HttpProvider

Handle = Callable[[socket.socket], None]
Call = Callable[..., Answer]
Post = Callable[[HttpProvider], Answer]


class RawServer:
    """Reads a request from each connection and lets ``handle`` do what it likes with it."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.requests: list[bytes] = []
        self.connections = 0
        self.released = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while request := read_request(connection):
                    self.requests.append(request)
                    self.handle(connection)
            except OSError:
                pass

    def close(self) -> None:
        self.released.set()
        self._socket.close()


def read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def answering(status: int, body: str = "", **headers: str) -> Handle:
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    text = "\r\n".join(lines) + "\r\n\r\n" + body
    return lambda connection: connection.sendall(text.encode())


class Example(HttpProvider):
    """Its own errors look like {"error": {"code": ...}}."""

    codes = {"no_money": exc.CreditError, "again": exc.ServerError}  # noqa: RUF012

    def error_code(self, answer: Answer) -> str | int | None:
        code: str | int | None = answer.get("error", "code")
        return code


def example(server: RawServer | str, **config: float) -> Example:
    url = server if isinstance(server, str) else server.url
    return Example(None, "example", url=url, **config)  # type: ignore[arg-type]


def refused_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


@contextmanager
def serving() -> Iterator[Callable[[Handle], RawServer]]:
    """Starts servers, which end with the block."""
    servers: list[RawServer] = []

    def start(handle: Handle) -> RawServer:
        servers.append(RawServer(handle))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
