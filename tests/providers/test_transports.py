"""Both transports write the same requests, and map every fault to the same error."""

from __future__ import annotations

import fcntl
import gzip
import json
import socket
import ssl
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from smsqueue import exc
from smsqueue.concurrency.greenlet_loop import Loop, blocking
from smsqueue.providers import http
from tests.providers.raw_server import (
    Call,
    Example,
    Handle,
    Post,
    RawServer,
    answering,
    example,
    read_request,
)

Serve = Callable[[Handle], RawServer]

REQUESTS: list[dict[str, Any]] = [
    {"json": {"to": "15550001234", "text": "Gr\u00fc\u00dfe, \U0001f600"}},
    {"data": {"to": ["1", "2"], "text": "a&b=c \u00fc", "none": None}},
    {"data": [("to", "1"), ("to", "2")]},
    {"data": b"\x00\xff", "headers": {"Content-Type": "application/octet-stream"}},
    {"data": "text"},
    {"params": {"q": "a b&c\u00fc", "list": [1, 2], "none": None}, "json": []},
    {"auth": ("user", "p\u00e4ss:word")},
    {"headers": {"authorization": "Bearer right", "X-Number": "7"}, "auth": ("a", "b")},
    {"headers": {"user-agent": "mine"}},
    {"path": "/a b/%2F/\u00fc?x=1", "params": {"y": "2"}},
    {},
]


def test_both_write_the_same_request(serve: Serve, loop: Loop) -> None:
    server = serve(answering(200, "{}"))
    provider = example(server)

    def parts(request: bytes) -> tuple[bytes, list[bytes], bytes]:
        head, _, body = request.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        kept = [line for line in lines if not line.lower().startswith(b"connection:")]
        return first, sorted(line.lower() for line in kept), body

    for each in REQUESTS:
        given = {"path": "/messages"} | each
        provider.call("POST", **given)
        loop.run(lambda given=given: provider.call("POST", **given)).result(10)  # type: ignore[misc]
        with_requests, with_aiohttp = map(parts, server.requests[-2:])
        assert with_requests == with_aiohttp, each


@pytest.mark.parametrize("method", ["POST", "PUT", "GET", "DELETE", "PATCH"])
def test_a_request_is_never_repeated(serve: Serve, call: Call, method: str) -> None:
    second = threading.Event()

    def handle(connection: socket.socket) -> None:
        answering(200, "{}")(connection)
        if read_request(connection):
            second.set()
            server.requests.append(b"second")
            connection.shutdown(socket.SHUT_RDWR)

    server = serve(handle)
    provider = example(server)
    call(provider, method)
    with pytest.raises(exc.ConnectionError) as caught:
        call(provider, method)
    assert caught.value.ambiguous
    assert second.is_set()
    assert len(server.requests) == 2


UNASKED = {
    "an answer": b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"id": "wrong"}',
    "a part of one": b"HTTP/1.1 200 ",
    "an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n",
}


def until_received(connection: socket.socket) -> None:
    """Until the other side's system has everything that was sent."""
    for _ in range(10_000):
        if not any(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4))):
            return
        time.sleep(0.001)
    raise AssertionError("what was sent does not arrive")


@pytest.mark.parametrize("unasked", UNASKED)
def test_unrequested_data_is_not_the_response_to_the_next_message(
    serve: Serve, post: Post, unasked: str
) -> None:
    taken, there = threading.Event(), threading.Event()

    def handle(connection: socket.socket) -> None:
        answering(200, json.dumps({"id": len(server.requests)}))(connection)
        if len(server.requests) == 2:
            taken.wait(10)
            connection.sendall(UNASKED[unasked])
            until_received(connection)
            there.set()

    server = serve(handle)
    provider = example(server)
    assert [post(provider).get("id") for _ in range(2)] == [1, 2]
    assert server.connections == 1
    taken.set()
    assert there.wait(10)
    assert post(provider).get("id") == 3
    assert server.connections == 2


@pytest.mark.parametrize("status", [102, 103, 199])
def test_an_interim_answer_is_not_the_answer(serve: Serve, post: Post, status: int) -> None:
    interim = f"HTTP/1.1 {status} Wait\r\nLink: </x>\r\n\r\n".encode()
    final = b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"id": "m"}'
    answer = post(example(serve(lambda connection: connection.sendall(interim * 2 + final))))
    assert (answer.status, answer.get("id")) == (200, "m")


@pytest.mark.parametrize("status", [100, 101, 103])
def test_ambiguous_after_only_an_interim_response(serve: Serve, post: Post, status: int) -> None:
    def handle(connection: socket.socket) -> None:
        connection.sendall(f"HTTP/1.1 {status} Wait\r\n\r\n".encode())
        connection.shutdown(socket.SHUT_RDWR)

    with pytest.raises(exc.ProviderError) as caught:
        post(example(serve(handle)))
    assert caught.value.ambiguous


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end


def packed(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


ANSWERS = {
    "chunks": chunked(b'{"id"', b': "m"}'),
    "trailers": chunked(b'{"id": "m"}', end=b"0\r\nX-Sum: 1\r\n\r\n"),
    "gzip": packed(gzip.compress(b'{"id": "m"}')),
    "until the end": b'HTTP/1.0 200 OK\r\n\r\n{"id": "m"}',
    "long header": b"HTTP/1.1 200 OK\r\nX-Long: %s\r\nContent-Length: 11\r\n\r\n" % (b"x" * 60_000)
    + b'{"id": "m"}',
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_is_read(serve: Serve, post: Post, answer: str) -> None:
    def handle(connection: socket.socket) -> None:
        connection.sendall(ANSWERS[answer])
        connection.shutdown(socket.SHUT_WR)

    assert post(example(serve(handle))).get("id") == "m"


@pytest.mark.parametrize(("status", "body"), [(204, b""), (200, b"")])
def test_an_empty_answer(serve: Serve, post: Post, status: int, body: bytes) -> None:
    text = b"HTTP/1.1 %d OK\r\nContent-Length: 0\r\n\r\n" % status
    answer = post(example(serve(lambda connection: connection.sendall(text))))
    assert (answer.status, answer.body) == (status, b"")


BROKEN = {
    "chunks that end early": chunked(b'{"id": "m"}', end=b""),
    "a chunk that is cut off": chunked(b'{"id"', end=b"10\r\n123"),
    "gzip that is none": packed(b'{"id": "m"}'),
    "endless chunks": chunked(*[b"x" * 1000] * 300),
    "too long a header": b"HTTP/1.1 200 OK\r\nX: %s\r\n\r\n" % (b"x" * 70_000),
    "too many headers": b"HTTP/1.1 200 OK\r\n%s\r\n" % (b"X: y\r\n" * 500),
    "no version": b"OK 200\r\n\r\n",
    "nothing": b"",
    "half a status line": b"HTTP/1.1 2",
    "half of the headers": b"HTTP/1.1 200 OK\r\nContent-",
}


@pytest.mark.parametrize("answer", BROKEN)
def test_ambiguous_when_an_answer_cannot_be_read(serve: Serve, post: Post, answer: str) -> None:
    def handle(connection: socket.socket) -> None:
        connection.sendall(BROKEN[answer])
        connection.shutdown(socket.SHUT_RDWR)

    server = serve(handle)
    with pytest.raises(exc.ProviderError) as caught:
        post(example(server))
    assert caught.value.ambiguous
    assert http.written()
    assert len(server.requests) == 1


def test_repeated_headers_are_joined(serve: Serve, post: Post) -> None:
    head = b"HTTP/1.1 200 OK\r\nX-Reset: 1\r\nx-reset: 2\r\nContent-Length: 2\r\n\r\n{}"
    answer = post(example(serve(lambda connection: connection.sendall(head))))
    assert answer.headers["X-RESET"] == "1, 2"


def test_a_redirect_is_not_followed(serve: Serve, post: Post) -> None:
    other = serve(answering(200, "{}"))
    server = serve(answering(307, Location=other.url))
    with pytest.raises(exc.RequestError) as caught:
        post(example(server))
    assert not caught.value.ambiguous
    assert other.requests == []


# --- proxies and TLS -------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    return made


class TlsServer(RawServer):
    """A server over TLS."""

    def __init__(self, handle: Handle, authority: trustme.CA, host: str = "localhost") -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(host).configure_cert(self._context)
        super().__init__(handle)
        self.url = f"https://localhost:{self.url.rpartition(':')[2]}"

    def _serve(self, connection: socket.socket) -> None:
        try:
            with self._context.wrap_socket(connection, server_side=True) as encrypted:
                super()._serve(encrypted)
        except OSError:
            pass


@pytest.fixture
def serve_tls() -> Iterator[Callable[..., TlsServer]]:
    servers: list[TlsServer] = []

    def start(*args: Any, **options: Any) -> TlsServer:
        servers.append(TlsServer(*args, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def trusting(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names the private authority."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))


@pytest.mark.usefixtures("trusting")
def test_a_private_authority(
    authority: trustme.CA, serve_tls: Callable[..., TlsServer], post: Post
) -> None:
    server = serve_tls(answering(200, '{"id": "m"}'), authority)
    assert post(example(server)).get("id") == "m"
    assert http.written()


@pytest.mark.parametrize("wrong", ["authority", "host"])
def test_nothing_written_to_a_server_that_is_not_trusted(
    authority: trustme.CA,
    serve_tls: Callable[..., TlsServer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    post: Post,
    wrong: str,
) -> None:
    host = "other.example" if wrong == "host" else "localhost"
    server = serve_tls(answering(200, '{"id": "m"}'), authority, host)
    if wrong == "host":
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with pytest.raises(exc.ConnectionError) as caught:
        post(example(server))
    assert not caught.value.ambiguous
    assert not http.written()
    assert server.requests == []


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("lost", [True, False])
def test_an_answer_over_tls_that_is_lost(
    authority: trustme.CA, serve_tls: Callable[..., TlsServer], post: Post, lost: bool
) -> None:
    def cut(connection: socket.socket) -> None:
        connection.shutdown(socket.SHUT_RDWR)

    server = serve_tls(cut if lost else answering(503, ""), authority)
    with pytest.raises(exc.ProviderError) as caught:
        post(example(server))
    assert caught.value.ambiguous
    assert len(server.requests) == 1


def test_a_proxy(serve: Serve, post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = serve(answering(200, '{"id": "m"}'))
    monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//user:word@"))
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert post(example("http://carrier.example")).get("id") == "m"
    assert proxy.requests[0].startswith(b"POST http://carrier.example/messages HTTP/1.1")
    assert b"Proxy-Authorization: Basic dXNlcjp3b3Jk" in proxy.requests[0]


def test_a_host_that_is_called_without_the_proxy(
    serve: Serve, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, server = serve(answering(500)), serve(answering(200, "{}"))
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    post(example(server))
    assert proxy.requests == []


@pytest.mark.usefixtures("trusting")
def test_a_tunnel_through_a_proxy(
    authority: trustme.CA,
    serve: Serve,
    serve_tls: Callable[..., TlsServer],
    post: Post,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = serve_tls(answering(200, '{"id": "m"}'), authority)
    port = int(server.url.rpartition(":")[2])

    def tunnel(connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as behind:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(behind, connection), daemon=True)
            back.start()
            pump(connection, behind)
            back.join(5)

    proxy = serve(tunnel)
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    assert post(example(server)).get("id") == "m"
    assert proxy.requests[0].startswith(b"CONNECT localhost:")
    assert len(server.requests) == 1


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass


def test_nothing_written_when_a_proxy_is_away(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(exc.ConnectionError) as caught:
        post(example("http://carrier.example"))
    assert not caught.value.ambiguous
    assert not http.written()


# --- the loop --------------------------------------------------------------------------------


def test_calls_on_a_loop_are_concurrent(serve: Serve, loop: Loop) -> None:
    everybody = threading.Barrier(20)

    def handle(connection: socket.socket) -> None:
        everybody.wait(20)  # nobody is answered before all have asked
        answering(200, "{}")(connection)

    provider = example(serve(handle))
    running = [loop.run(lambda: provider.call("POST")) for _ in range(20)]
    assert all(each.result(20).status == 200 for each in running)


def test_functions_on_a_loop_track_their_own_writes(serve: Serve, loop: Loop) -> None:
    server = serve(answering(200, "{}"))

    def attempt(url: str) -> bool:
        http.begin_attempt()
        with suppress(exc.ConnectionError):
            Example(None, "example", url=url).call("POST")
        return http.written()

    urls = [server.url, "http://127.0.0.1:9"] * 5
    running = [loop.run(lambda url=url: attempt(url)) for url in urls]  # type: ignore[misc]
    assert [each.result(10) for each in running] == [True, False] * 5


def test_what_blocks_runs_in_a_thread_beside_the_loop(loop: Loop) -> None:
    lock = threading.Lock()
    lock.acquire()
    waiting = loop.run(lambda: blocking(lock.acquire, timeout=10))
    assert loop.run(lambda: 7).result(10) == 7  # the loop goes on
    lock.release()
    assert waiting.result(10)


def test_how_long_functions_blocked_the_loop_is_known(loop: Loop) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        go_on.wait(10)

    running = loop.run(block)
    entered.wait(10)
    time.sleep(0.05)
    assert loop.blocked() >= 0.05  # while it lasts
    behind = loop.run(lambda: 7)
    assert behind.cancel()  # what waits behind it can be called elsewhere
    go_on.set()
    running.result(10)
    assert loop.blocked() >= 0.05
