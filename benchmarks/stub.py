"""A provider that answers every POST after 100 ms: ``python -m benchmarks.stub PORT``.

``GET /times`` answers when requests came in since the last ``DELETE``, in seconds. It is
written on bare asyncio so that it costs little of the machine that is measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

__all__ = ["serve"]

DELAY = 0.1

_times: list[float] = []


class _Connection(asyncio.Protocol):
    """One connection, kept open; requests have a Content-Length or no body."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        while True:
            head, end, rest = self._read.partition(b"\r\n\r\n")
            if not end:
                return
            _, named, length = head.lower().partition(b"content-length:")
            size = int(length.partition(b"\r\n")[0]) if named else 0
            if len(rest) < size:
                return
            self._read = rest[size:]
            self._request(head)

    def _request(self, head: bytes) -> None:
        if head.startswith(b"POST"):
            _times.append(time.monotonic())
            body = b'{"id":"stub-%d"}' % time.monotonic_ns()
            asyncio.get_running_loop().call_later(DELAY, self._answer, body)
            return
        if head.startswith(b"DELETE"):
            _times.clear()
        self._answer(json.dumps(_times).encode())

    def _answer(self, body: bytes) -> None:
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )


async def serve(port: int) -> None:
    """Serve on loopback until the process ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", port, backlog=512)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
