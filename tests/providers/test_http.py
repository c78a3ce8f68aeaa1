"""Results of HTTP calls, against a server on a real socket that misbehaves."""

from __future__ import annotations

import gzip
import logging
import os
import socket
import struct
import threading
import traceback
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

import pytest

from smsqueue import exc
from smsqueue.providers import http
from smsqueue.providers.base import transport
from smsqueue.providers.http import Answer
from tests.providers.raw_server import (
    Call,
    Example,
    Handle,
    Post,
    RawServer,
    answering,
    example,
    refused_port,
)


def test_answer(serve: Callable[[Handle], RawServer], post: Post) -> None:
    server = serve(answering(201, '{"id": "m1", "parts": [{"n": 1}]}'))
    answer = post(example(server))
    assert (answer.status, answer.require("id"), answer.get("parts", 0, "n")) == (201, "m1", 1)
    assert answer.get("parts", 7, "n") is None
    assert http.written()
    assert server.requests[0].startswith(b"POST /messages HTTP/1.1\r\n")
    assert "m1" not in repr(answer)


def test_connection_is_kept(serve: Callable[[Handle], RawServer], post: Post) -> None:
    server = serve(answering(200, "{}"))
    provider = example(server)
    for _ in range(3):
        post(provider)
    assert server.connections == 1


def test_idle_connection_is_not_used_again(
    serve: Callable[[Handle], RawServer], monkeypatch: pytest.MonkeyPatch, post: Post
) -> None:
    server = serve(answering(200, "{}"))
    provider = example(server)
    monkeypatch.setattr(transport, "IDLE", 0.0)
    post(provider)
    post(provider)
    assert server.connections == 2


def test_connection_that_the_server_closed_is_opened_again(
    serve: Callable[[Handle], RawServer], post: Post
) -> None:
    closed = threading.Event()

    def answer_and_close(connection: socket.socket) -> None:
        answering(200, "{}")(connection)
        connection.shutdown(socket.SHUT_RDWR)
        closed.set()

    server = serve(answer_and_close)
    provider = example(server)
    for _ in range(3):
        post(provider)
        assert closed.wait(5)
        closed.clear()
    assert server.connections == 3


def test_nothing_written_when_refused(post: Post) -> None:
    with pytest.raises(exc.ConnectionError) as caught:
        post(example(f"http://127.0.0.1:{refused_port()}"))
    assert not caught.value.ambiguous
    assert not http.written()
    assert caught.value.provider == "example"
    assert "ConnectionRefusedError" in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)


def test_nothing_written_when_the_name_is_unknown(
    monkeypatch: pytest.MonkeyPatch, post: Post
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(exc.ConnectionError) as caught:
        post(example("http://carrier.example"))
    assert not caught.value.ambiguous
    assert not http.written()


def test_nothing_written_when_connecting_times_out(post: Post) -> None:
    # A full backlog: the kernel takes no further connection and refuses none.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        waiting = []
        for _ in range(4):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(server.getsockname())
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(exc.ConnectionError) as caught:
            post(example(url, connect_timeout=0.2))
        for one in waiting:
            one.close()
    assert not caught.value.ambiguous
    assert not http.written()


def test_nothing_written_when_tls_fails(serve: Callable[[Handle], RawServer], post: Post) -> None:
    server = serve(answering(200))
    with pytest.raises(exc.ConnectionError) as caught:
        # The server waits for the end of a request that never comes, as it is no HTTP.
        post(example(server.url.replace("http:", "https:"), connect_timeout=0.2))
    assert not caught.value.ambiguous
    assert not http.written()


def test_nothing_written_when_connecting_took_all_the_time(
    serve: Callable[[Handle], RawServer], monkeypatch: pytest.MonkeyPatch, post: Post
) -> None:
    server = serve(answering(200, "{}"))
    monkeypatch.setattr(Example, "deadline", 0.0)
    with pytest.raises(exc.ConnectionError) as caught:
        post(example(server))
    assert not caught.value.ambiguous
    assert not http.written()
    assert server.requests == []


def test_proxy_that_refuses_a_tunnel(
    serve: Callable[[Handle], RawServer], monkeypatch: pytest.MonkeyPatch, post: Post
) -> None:
    proxy = serve(answering(407, "no"))
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    with pytest.raises(exc.ConnectionError) as caught:
        post(example("https://carrier.example"))
    assert proxy.requests[0].startswith(b"CONNECT carrier.example:443")
    assert not caught.value.ambiguous
    assert not http.written()


def cut(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def truncate(connection: socket.socket) -> None:
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"id"')
    cut(connection)


def garble(connection: socket.socket) -> None:
    connection.sendall(b"220 this is no web server\r\n\r\n")
    cut(connection)


def badly_chunk(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n")
    cut(connection)


@pytest.mark.parametrize("handle", [cut, reset, truncate, garble, badly_chunk])
def test_ambiguous_when_the_answer_is_lost(
    serve: Callable[[Handle], RawServer], handle: Handle, post: Post
) -> None:
    server = serve(handle)
    with pytest.raises(exc.ConnectionError) as caught:
        post(example(server))
    assert caught.value.ambiguous
    assert http.written()
    assert len(server.requests) == 1


def test_ambiguous_when_the_answer_is_too_long(
    serve: Callable[[Handle], RawServer], post: Post
) -> None:
    with pytest.raises(exc.ConnectionError) as caught:
        post(example(serve(answering(200, "x" * 300_000))))
    assert caught.value.ambiguous


@pytest.mark.parametrize("times", [1, 2])
def test_a_compressed_answer_is_not_unpacked_beyond_the_limit(
    serve: Callable[[Handle], RawServer], post: Post, times: int
) -> None:
    body = b"0" * 64_000_000
    for _ in range(times):
        body = gzip.compress(body)

    def bomb(connection: socket.socket) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nContent-Encoding: gzip"
        connection.sendall(f"{head}{', gzip' * (times - 1)}\r\n\r\n".encode() + body)

    tracemalloc.start()
    try:
        with pytest.raises(exc.ProviderError) as caught:
            # aiohttp unpacks nothing that was packed twice: what is left is no JSON
            post(example(serve(bomb))).require("id")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.ambiguous
    assert most < 8_000_000


def test_ambiguous_when_the_provider_is_silent(
    serve: Callable[[Handle], RawServer], post: Post
) -> None:
    server = serve(lambda connection: None)
    with pytest.raises(exc.ConnectionError) as caught:
        post(example(server, read_timeout=0.2))
    assert caught.value.ambiguous


def test_ambiguous_when_writing_breaks_off(
    serve: Callable[[Handle], RawServer], call: Call
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def reset_while_reading() -> None:
        connection, _ = listener.accept()
        connection.recv(10)
        reset(connection)

    thread = threading.Thread(target=reset_while_reading)
    thread.start()
    provider = example(f"http://127.0.0.1:{listener.getsockname()[1]}")
    with pytest.raises(exc.ConnectionError) as caught:
        call(provider, "POST", data=b"x" * 50_000_000)
    thread.join()
    listener.close()
    assert caught.value.ambiguous


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_dripping_answer_is_over_at_the_deadline(
    serve: Callable[[Handle], RawServer], monkeypatch: pytest.MonkeyPatch, start: bytes, post: Post
) -> None:
    dripped = 0

    def drip(connection: socket.socket) -> None:
        nonlocal dripped
        connection.sendall(start)
        while not server.released.wait(0.02):  # until the test has ended
            connection.sendall(b"x")
            dripped += 1

    server = serve(drip)
    monkeypatch.setattr(Example, "deadline", 0.4)
    with pytest.raises(exc.ConnectionError) as caught:
        post(example(server))
    assert caught.value.ambiguous
    assert dripped > 0


ERROR = '{"error": {"code": "%s"}}'


@pytest.mark.parametrize(
    ("status", "body", "kind", "ambiguous"),
    [
        (302, "", exc.RequestError, False),
        (400, "", exc.RequestError, False),
        (401, "", exc.AuthError, False),
        (402, "", exc.CreditError, False),
        (403, "", exc.AuthError, False),
        (403, ERROR % "no_money", exc.CreditError, False),
        (404, "", exc.RequestError, False),
        (408, "", exc.ServerError, True),
        (422, ERROR % "bad_number", exc.RequestError, False),
        (429, "", exc.LimitsError, False),
        (500, "", exc.ServerError, True),
        (500, "<h1>proxy</h1>", exc.ServerError, True),
        (500, ERROR % "broken", exc.ServerError, False),
        (303, "", exc.ServerError, True),
        (407, "", exc.AuthError, False),
        (425, "", exc.ServerError, False),
        (499, "", exc.ServerError, True),
        (501, "", exc.UnsupportedError, True),
        (501, ERROR % "broken", exc.UnsupportedError, False),
        (505, "", exc.UnsupportedError, True),
        (502, "", exc.ServerError, True),
        (502, ERROR % "upstream", exc.ServerError, True),
        (502, ERROR % "again", exc.ServerError, False),
        (503, "", exc.ServerError, True),
        (503, "upstream connect error or disconnect/reset before headers", exc.ServerError, True),
        (503, ERROR % "broken", exc.ServerError, False),
        (503, ERROR % "no_money", exc.CreditError, False),
        (504, "", exc.ServerError, True),
        (520, "", exc.ServerError, True),
        (599, ERROR % "broken", exc.ServerError, False),
    ],
)
def test_error_answers(
    serve: Callable[[Handle], RawServer],
    status: int,
    body: str,
    kind: type[exc.ProviderError],
    ambiguous: bool,
    post: Post,
) -> None:
    with pytest.raises(exc.ProviderError) as caught:
        post(example(serve(answering(status, body, Location="/elsewhere"))))
    error = caught.value
    assert type(error) is kind
    assert error.ambiguous is ambiguous
    assert (error.http_status, error.provider) == (status, "example")
    assert (error.code is None) == (not body.startswith("{"))


def test_a_code_that_only_repeats_the_status_is_not_the_providers(
    serve: Callable[[Handle], RawServer], post: Post
) -> None:
    with pytest.raises(exc.ServerError) as caught:
        post(example(serve(answering(503, ERROR % "503"))))
    assert (caught.value.code, caught.value.ambiguous) == (None, True)


def test_a_provider_may_declare_that_its_bare_503_is_a_refusal(
    serve: Callable[[Handle], RawServer], post: Post
) -> None:
    class Declared(Example):
        bare_503_is_refusal = "https://docs.example.com/errors#503"

    def error_of(status: int) -> exc.ProviderError:
        provider = Declared(None, "example", url=serve(answering(status)).url)
        with pytest.raises(exc.ProviderError) as caught:
            post(provider)
        return caught.value

    assert not error_of(503).ambiguous
    assert all(error_of(status).ambiguous for status in (500, 501, 502, 504))


def test_the_declaration_of_a_bare_503_names_its_source() -> None:
    with pytest.raises(TypeError, match="the page of the provider's documentation"):

        class Declared(Example):
            bare_503_is_refusal = True  # type: ignore[assignment]


def test_nothing_about_a_call_that_sends_no_message_is_ambiguous(
    serve: Callable[[Handle], RawServer], call: Call
) -> None:
    for status in (303, 408, 500, 503, 504):
        with pytest.raises(exc.ProviderError) as caught:
            call(example(serve(answering(status))), "GET", safe=True)
        assert not caught.value.ambiguous
    answer = call(example(serve(answering(200, "{}"))), "GET", safe=True)
    with pytest.raises(exc.ServerError) as caught:
        answer.require("id")
    assert not caught.value.ambiguous


def test_refusal_counts_even_if_its_body_is_cut_off(
    serve: Callable[[Handle], RawServer], post: Post
) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 400 Bad\r\nContent-Length: 100\r\n\r\n{")
        cut(connection)

    with pytest.raises(exc.RequestError) as caught:
        post(example(serve(refuse)))
    assert not caught.value.ambiguous


@pytest.mark.parametrize("body", ["", "ok", "[]", "{}", '{"id": null}', "[" * 100_000])
def test_success_without_an_id_is_ambiguous(
    serve: Callable[[Handle], RawServer], body: str, post: Post
) -> None:
    answer = post(example(serve(answering(200, body))))
    with pytest.raises(exc.ServerError) as caught:
        answer.require("id")
    assert caught.value.ambiguous
    assert (caught.value.provider, caught.value.http_status) == ("example", 200)


@pytest.mark.parametrize(
    ("told", "wanted"), [(b"12.50", "12.50"), (b'"-3"', "-3"), (b"1e2", "100"), (b"0", "0")]
)
def test_an_amount(told: bytes, wanted: str) -> None:
    assert Answer("example", 200, {}, b'{"left": %s}' % told).amount("left") == Decimal(wanted)


@pytest.mark.parametrize("told", [b'"much"', b"null", b"[]", b"NaN", b"Infinity", b'""', b'" 1"'])
def test_no_amount(told: bytes) -> None:
    with pytest.raises(exc.ServerError):
        Answer("example", 200, {}, b'{"left": %s}' % told).amount("left")


def test_retry_after() -> None:
    def seconds(text: str) -> float | None:
        return Answer("example", 429, {"Retry-After": text}, b"").retry_after

    assert seconds("7") == 7
    assert seconds("1.5") == 1.5
    assert seconds("-3") == 0
    assert seconds("1e9") == 86400
    assert [seconds(text) for text in ("", "soon", "nan")] == [None] * 3
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 55 < (seconds(in_a_minute) or 0) <= 60
    assert seconds("Wed, 21 Oct 2015 07:28:00 -0000") == 0


def test_a_date_to_retry_after_is_read_by_the_clock_of_the_provider() -> None:
    dates = {
        "Date": "Wed, 21 Oct 2015 07:28:00 GMT",
        "Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT",
    }
    assert Answer("example", 429, dates, b"").retry_after == 30


@pytest.mark.parametrize(
    "date", ["Wed, 21 Oct 99999999999 07:28:00 GMT", "32 Foo 2015", "9" * 5000]
)
def test_a_retry_after_that_cannot_be_read(date: str) -> None:
    answer = Answer("example", 429, {"Retry-After": date, "Date": date}, b"")
    assert answer.retry_after in (None, 86400)


def test_waits_in_other_headers() -> None:
    def seconds(text: str, per_second: int = 1) -> float | None:
        return Answer("example", 429, {"x-reset": text}, b"").seconds("x-reset", per_second)

    assert (seconds("12"), seconds("1500", 1000), seconds("0")) == (12, 1.5, 0)
    assert seconds("86400") == 86400
    # A time of day, seconds since 1970, rubbish
    for text in ("86401", "1450000000", "-1", "1.5", "soon", "", "\u0663", "9" * 5000):
        assert seconds(text) is None


def test_lists_of_objects() -> None:
    def objects(body: bytes, *path: str) -> list[dict[str, Any]]:
        return Answer("example", 200, {}, body).objects(*path)

    assert objects(b'{"data": [{"a": 1}, {}]}', "data") == [{"a": 1}, {}]
    assert objects(b"[]") == []
    for body in (b"", b"[]", b'{"data": null}', b'{"data": {}}', b'{"data": [1]}', b"[" * 99999):
        with pytest.raises(exc.ServerError) as caught:
            objects(body, "data")
        assert not caught.value.ambiguous


def test_retry_after_of_an_error(serve: Callable[[Handle], RawServer], post: Post) -> None:
    with pytest.raises(exc.LimitsError) as caught:
        post(example(serve(answering(429, Retry_After="3"))))
    assert caught.value.retry_after == 3


def test_safe_call_is_never_ambiguous(serve: Callable[[Handle], RawServer], call: Call) -> None:
    provider = example(serve(cut))
    with pytest.raises(exc.ConnectionError) as caught:
        call(provider, "GET", "/balance", safe=True)
    assert not caught.value.ambiguous
    assert not http.written()
    with pytest.raises(exc.ServerError) as answered:
        call(example(serve(answering(502))), "GET", safe=True)
    assert not answered.value.ambiguous


def test_a_request_that_cannot_be_built(call: Call) -> None:
    provider = example(f"http://127.0.0.1:{refused_port()}")
    for request in ({"json": float("nan")}, {"headers": {"X": "a\nb"}}, {"json": object()}):
        with pytest.raises(exc.RequestError):
            call(provider, "POST", **request)  # type: ignore[arg-type]
    assert not http.written()


def test_errors_and_logs_contain_no_secret(
    serve: Callable[[Handle], RawServer], caplog: pytest.LogCaptureFixture, call: Call
) -> None:
    caplog.set_level(logging.DEBUG)
    for handle in (cut, answering(400, '{"error": {"code": 1, "text": "secret text"}}')):
        provider = example(serve(handle))
        with pytest.raises(exc.ProviderError) as caught:
            call(provider, "POST", "/send", params={"key": "hush"}, json="secret text")
        shown = traceback.format_exception(caught.value, limit=0)
        assert len(shown) <= 2  # no chained error
        assert "hush" not in "".join(shown)
        assert "secret" not in "".join(shown)
    assert "hush" not in caplog.text


def test_netrc_is_not_asked(
    serve: Callable[[Handle], RawServer],
    tmp_path: object,
    monkeypatch: pytest.MonkeyPatch,
    call: Call,
) -> None:
    netrc = os.path.join(str(tmp_path), "netrc")
    with open(netrc, "w") as file:
        file.write("machine 127.0.0.1 login me password hush\n")
    monkeypatch.setenv("NETRC", netrc)
    server = serve(answering(200, "{}"))
    call(example(server), "POST", headers={"Authorization": "Bearer right"})
    assert b"Authorization: Bearer right" in server.requests[0]


def test_cookies_are_not_kept(serve: Callable[[Handle], RawServer], post: Post) -> None:
    server = serve(answering(200, "{}", Set_Cookie="a=b; Path=/"))
    provider = example(server)
    post(provider)
    post(provider)
    assert b"cookie" not in server.requests[1].lower()


def test_session_is_not_shared_through_a_fork(serve: Callable[[Handle], RawServer]) -> None:
    server = serve(answering(200, "{}"))
    provider = example(server)
    provider.call("POST")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            provider.call("POST")
            os.write(write, b"sent")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    assert os.read(read, 10) == b"sent"
    os.close(read)
    provider.call("POST")
    assert server.connections == 2


def test_threads_track_their_own_writes(serve: Callable[[Handle], RawServer]) -> None:
    provider = example(serve(answering(200, "{}")))
    thread = threading.Thread(target=provider.call, args=("POST",))
    thread.start()
    thread.join()
    assert not http.written()


def test_url_must_be_one() -> None:
    odd = ("https://user:secret-word@h\u2100/", "https://[secret-word")
    for url in ("carrier.example", "ftp://carrier.example", "https://", "", *odd):
        with pytest.raises(ValueError, match="must begin with") as caught:
            example(url)
        assert "secret-word" not in f"{caught.value!r}{caught.value.__context__!r}"


def test_a_time_of_nothing_would_refuse_every_message() -> None:
    for config in ({"connect_timeout": 0}, {"read_timeout": -1.0}, {"pool_size": 0}):
        with pytest.raises(ValueError, match="must be more than 0"):
            example("http://127.0.0.1:9", **config)
