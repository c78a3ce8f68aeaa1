"""A provider that takes every message and answers after 100 ms: ``python -m benchmarks.stub PORT``.

It runs in a process of its own and is written on bare asyncio, so that it costs little of the
machine that is measured; its CPU time is not counted. Its client is
:class:`benchmarks.stub_client.Provider`.

| request | answer |
|---|---|
| ``POST /messages`` | to smsqueue and to a bare task: JSON with an id |
| ``GET /kannel?...`` | to Kannel, as another Kannel answers |
| ``GET /state`` | numbers of requests, answers, repeated requests and requests of single messages |
| ``GET /times`` | when the requests came, in seconds of the monotonic clock |
| ``GET /singles`` | when the messages came whose text begins with ``single``, by text |
| ``DELETE /`` | forgets all of these |
| ``POST /hold``, ``POST /release`` | keeps the answers back until they are released |

A message whose text begins with ``single refused`` is refused the first time, with an error code of
the provider's own, and taken the second time.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field

__all__ = ["DELAY", "REFUSAL_CODE", "serve"]

#: Seconds between a request and its answer.
DELAY = 0.1
#: The provider's error code for "not now".
REFUSAL_CODE = "busy"
_REFUSAL = json.dumps({"error": {"code": REFUSAL_CODE}}).encode()


@dataclass
class _State:
    """What the provider has seen."""

    times: list[float] = field(default_factory=list)
    answered: int = 0
    repeated: int = 0
    #: Requests of single messages, refused ones too.
    single_requests: int = 0
    requests: set[bytes] = field(default_factory=set)
    singles: dict[str, float] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    #: Answers that are kept back; None: none are.
    held: list[tuple[_Connection, int, bytes]] | None = None


_state = _State()


class _Connection(asyncio.Protocol):
    """A kept connection; requests have a Content-Length or no body."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            _, has_length, length = head.lower().partition(b"content-length:")
            size = int(length.partition(b"\r\n")[0]) if has_length else 0
            if len(rest) < size:
                return
            self._buffer = rest[size:]
            method, target, _ = head.split(b" ", 2)
            self._handle(method, target, rest[:size])

    def _handle(self, method: bytes, target: bytes, body: bytes) -> None:
        if target == b"/messages":
            self._take(body, b'{"id":"stub-%d"}' % (len(_state.times) + 1), body)
        elif target.startswith(b"/kannel?"):
            self._take(target, b"Sent.", b"")
        else:
            self.answer(200, json.dumps(_command(method, target)).encode())

    def _take(self, request: bytes, answer: bytes, body: bytes) -> None:
        now, status = time.monotonic(), 202
        _state.times.append(now)
        if b'"single ' in body:
            _state.single_requests += 1
            text = json.loads(body)["text"]
            if text.startswith("single refused") and text not in _state.refused:
                _state.refused.add(text)
                status, answer = 500, _REFUSAL
            else:
                _state.repeated += text in _state.singles
                _state.singles[text] = now
        else:
            _state.repeated += request in _state.requests
            _state.requests.add(request)
        if _state.held is not None:
            _state.held.append((self, status, answer))
        else:
            asyncio.get_running_loop().call_later(DELAY, self.finish, status, answer)

    def finish(self, status: int, body: bytes) -> None:
        """Answer a message."""
        _state.answered += 1
        self.answer(status, body)

    def answer(self, status: int, body: bytes) -> None:
        """Write an answer, unless the client has closed the connection."""
        if not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 %d Stub\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (status, len(body), body)
            )


def _command(method: bytes, target: bytes) -> object:
    """Carry out a request of the benchmark; its answer."""
    global _state
    if target == b"/state":
        state = _state
        return {
            "requests": len(state.times),
            "answered": state.answered,
            "repeated": state.repeated,
            "single_requests": state.single_requests,
        }
    if target == b"/times":
        return _state.times
    if target == b"/singles":
        return _state.singles
    if target == b"/hold":
        _state.held = []
    elif target == b"/release":
        held, _state.held = _state.held, None
        for connection, status, answer in held or ():
            connection.finish(status, answer)
    elif method == b"DELETE":
        _state = _State()
    return {}


async def serve(port: int) -> None:
    """Serve on loopback until the process ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
