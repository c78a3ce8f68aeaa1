"""Receiving: the answer to a webhook beside a Flask view that does one LPUSH."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

from benchmarks.gateways import TOKEN
from benchmarks.measured_figures import Figure, alternate, compared
from benchmarks.stage import Stage, connected
from smsqueue.providers.simulator import SIGNATURE_HEADER, sign
from smsqueue.settings import Settings
from smsqueue.stack import Process, free_port

__all__ = ["measure_receiver"]

_PREFIX = "benchmark-prefix"


class _Client:
    """A client with no more work than writing and reading. It keeps its connection open as long as
    the server does."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._socket = self._connect()
        self._server_closes = False
        #: How often the server closed the connection.
        self.closed = 0
        self._head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json"

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def request(self, body: bytes) -> bytes:
        """The bytes of a request."""
        head = f"{self._head}\r\n{SIGNATURE_HEADER}: {sign(TOKEN, body)}"
        return f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def post(self, request: bytes) -> None:
        """Send a request and wait for its answer, which has no body."""
        if self._server_closes:
            self._socket.close()
            self._socket = self._connect()
        self._socket.sendall(request)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            piece = self._socket.recv(4096)
            if not piece:
                raise RuntimeError(f"the receiver hung up after {answer!r}")
            answer += piece
        if not answer.startswith(b"HTTP/1.1 20"):
            raise RuntimeError(f"the receiver answered {answer[:60]!r}")
        self._server_closes = b"\r\nconnection: close\r\n" in answer.lower()
        self.closed += self._server_closes

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def measure_receiver(stage: Stage) -> Iterator[Figure]:
    """Both under gunicorn with the same options; distinct webhooks, one at a time, in turn."""
    server = stage.redis()
    client = connected(server)
    ours_port = _gunicorn(stage, "receivers", server.url)
    bare_port = _gunicorn(stage, "benchmarks.bare_view", server.url)
    rounds, per_round = stage.size(9, 3), stage.size(400, 200)
    found: list[tuple[float, float]] = []
    for i in range(-1, rounds):  # the first one warms up
        stage.told(f"round {i + 1} of {rounds}")
        ours = _Client(ours_port, f"/{_PREFIX}/main/im")
        bare = _Client(bare_port, "/im")
        bodies = [_webhook(f"{i}-{n}") for n in range(per_round)]
        asked = [ours.request(body) for body in bodies], [bare.request(body) for body in bodies]
        pair = alternate(
            per_round,
            lambda n, ours=ours, asked=asked: ours.post(asked[0][n]),  # type: ignore[misc]
            lambda n, bare=bare, asked=asked: bare.post(asked[1][n]),  # type: ignore[misc]
        )
        recorded = client.zcard("sms:state:waiting"), client.llen("bare")
        if recorded != ((i + 2) * per_round,) * 2:
            raise RuntimeError(f"{recorded} webhooks are recorded")
        client.delete(Settings(redis_url=server.url).hook_key)
        closed = ours.closed, bare.closed
        ours.close()
        bare.close()
        found += [pair] if i >= 0 else []
    yield compared(
        "receiver",
        "webhook recorded",
        "p50 of its answer, beside a Flask view that does one LPUSH",
        "us",
        found,
        at_most=1.5,
        notes={
            "calls": rounds * per_round,
            "of a round, closed by the server: ours": closed[0],
            "bare": closed[1],
        },
    )


def _webhook(id: str) -> bytes:
    fields = {"id": id, "from": "+15550001234", "to": "+15550000000", "text": "STOP please"}
    return json.dumps(fields).encode()


def _gunicorn(stage: Stage, module: str, url: str) -> int:
    port = free_port()
    arguments = ["-m", "gunicorn", "-c", "python:receivers.server", "-b", f"127.0.0.1:{port}"]
    environment = {
        "SMSQUEUE_REDIS_URL": url,
        "SMSQUEUE_GATEWAY": "benchmarks.gateways:receiving",
        "SMSQUEUE_RECEIVER_PREFIX": _PREFIX,
    }

    def ready(process: Process) -> bool:
        return "Booting worker" in process.tail(1000)

    stage.python(
        module, [*arguments, f"{module}:create_app()"], environment=environment, ready=ready
    )
    return port
