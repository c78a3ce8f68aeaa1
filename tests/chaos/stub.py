"""A provider in a process of its own. Each message's text tells it what to do, one word a
request (the last word goes on); it writes every request down before it answers.

    python -m tests.chaos.stub PORT FILE

``PUT /<account>`` with a word: all messages at this account get that one, until the word is "".

The file is what the tests count by: one JSON line a request, with ``took`` (the SMS goes out)
and ``refused`` (an answer of its own that says that it does not).
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: Seconds that "steady" and "slow" take, and "late", which no deadline of the tests waits for.
STEADY, SLOW, LATE = 0.5, 0.3, 3.0


class _Cut(Exception):
    """The connection is to be cut now."""


class _Book:
    """What was asked for, in a file that outlives whoever reads or writes it."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._lock = threading.Lock()
        self._seen: Counter[str] = Counter()
        #: The word for everything at an account.
        self.told: dict[str, str] = {}

    def word(self, id: str, text: str) -> str:
        with self._lock:
            self._seen[id] += 1
            words = text.split() or ["accept"]
            return words[min(self._seen[id], len(words)) - 1]

    def note(self, **line: Any) -> None:
        os.write(self._file, json.dumps(line | {"at": time.time()}).encode() + b"\n")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    book: _Book

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(200, b"{}")

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def do_PUT(self) -> None:
        self.book.told[self.path.split("/")[1]] = self.body().decode()
        self.answer(200, b"{}")

    def do_POST(self) -> None:
        asked, account = json.loads(self.body()), self.path.split("/")[1]
        id, _, attempt = asked["reference"].rpartition(".")
        word = self.book.told.get(account) or self.book.word(id, asked["text"])
        took, act = _WORDS.get(word, _WORDS["accept"])
        refused = word in _REFUSALS
        self.book.note(
            id=id, attempt=int(attempt), account=account, word=word, took=took, refused=refused,
        )  # fmt: skip
        self.msgid = f"{account}-{asked['reference']}"
        try:
            act(self)
        except (_Cut, OSError):
            self.close_connection = True
            with_linger(self.connection)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def accept(self) -> None:
        self.answer(200, json.dumps({"id": self.msgid}).encode())

    def refuse(self, status: int, code: str = "", **headers: str) -> None:
        body = {"error": {"code": code}} if code else {}
        self.answer(status, json.dumps(body).encode(), **headers)

    def after(self, seconds: float, status: int = 200) -> None:
        time.sleep(seconds)
        self.accept() if status == 200 else self.refuse(status)

    def hang(self) -> None:
        self.rfile.read(1)  # until the other side gives up
        raise _Cut

    def cut(self, answered: bytes = b"") -> None:
        self.wfile.write(answered)
        raise _Cut

    def huge(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(50 * 1024 * 1024))
        self.end_headers()
        for _ in range(50):
            self.wfile.write(b" " * 1024 * 1024)

    def drip(self, start: bytes, rest: bytes) -> None:
        self.wfile.write(start)
        for byte in rest:
            self.wfile.write(bytes([byte]))
            time.sleep(1)
        raise _Cut


def with_linger(connection: socket.socket) -> None:
    """Close so that the other side sees a reset, not an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


_MOVED = {"301", "302", "307", "308"}
_REFUSALS = {"busy", "broken", "no", "503", "429", "limit", "401", "402"} | _MOVED
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n"

#: Word: does the SMS go out, and what is answered.
_WORDS: dict[str, tuple[bool, Callable[[_Handler], None]]] = {
    "accept": (True, _Handler.accept),
    "steady": (True, lambda h: h.after(STEADY)),
    "slow": (True, lambda h: h.after(SLOW)),
    "slow502": (True, lambda h: h.after(SLOW, 502)),
    "late": (True, lambda h: h.after(LATE)),
    "hang": (False, _Handler.hang),
    "busy": (False, lambda h: h.refuse(422, "busy")),
    "broken": (False, lambda h: h.refuse(500, "busy")),
    "no": (False, lambda h: h.refuse(400, "bad")),
    "503": (False, lambda h: h.refuse(503, "overloaded")),
    "took503": (True, lambda h: h.refuse(503)),  # as Envoy does, when the connection breaks
    "429": (False, lambda h: h.refuse(429, Retry_After="0.2")),
    "limit": (False, lambda h: h.after(STEADY, 429)),
    "401": (False, lambda h: h.refuse(401)),
    "402": (False, lambda h: h.refuse(402)),
    **{word: (False, lambda h, s=int(word): h.refuse(s, Location="/elsewhere")) for word in _MOVED},
    "took303": (True, lambda h: h.refuse(303, Location="/elsewhere")),
    "took500": (True, lambda h: h.refuse(500)),
    "took502": (True, lambda h: h.refuse(502)),
    "cut": (False, lambda h: h.cut()),
    "cutafter": (True, lambda h: h.cut()),
    "half": (True, lambda h: h.cut(_HEAD + b'{"id"')),
    "rubbish": (True, lambda h: h.answer(200, b"<html>all is well</html>")),
    "huge": (True, _Handler.huge),
    "driphead": (True, lambda h: h.drip(b"", _HEAD)),
    "dripbody": (True, lambda h: h.drip(_HEAD, b'{"id": "dripped"}            ')),
}


class _Server(ThreadingHTTPServer):
    request_queue_size = 256

    def handle_error(self, *args: Any) -> None:
        pass  # its clients are killed all the time


if __name__ == "__main__":
    _Handler.book = _Book(sys.argv[2])
    _Server(("127.0.0.1", int(sys.argv[1])), _Handler).serve_forever()
