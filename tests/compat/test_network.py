"""Network errors that escape plugins: repeated only if nothing can have been written."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.error import HTTPError, URLError

import pytest
import requests
import smsframework.exc
import trustme
import urllib3
from smsframework_pswin import PswinProvider

from smsqueue import Gateway, OutgoingMessage, exc
from tests.compat.carrier import HANG_UP, Answer, Carrier
from tests.compat.plugin import Plugin
from tests.conftest import free_port

Call = Callable[[str], Any]


def with_requests(url: str) -> Any:
    response = requests.post(url, data={"text": "hi"}, timeout=0.3)
    response.raise_for_status()


def with_urllib(url: str) -> Any:
    try:
        urllib.request.urlopen(url, b"text=hi", timeout=0.3).close()
    except HTTPError as error:  # which is the answer, with a socket
        error.close()
        raise


def with_urllib3(url: str) -> Any:
    with urllib3.PoolManager(retries=False, timeout=0.3) as pool:
        return pool.request("POST", url, body=b"text=hi")


def with_socket(url: str) -> Any:
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    with socket.create_connection((host, int(port or 80)), timeout=0.3) as connection:
        connection.sendall(b"hi")
        if not connection.recv(1):
            raise ConnectionResetError
        return None


CALLS = [with_requests, with_urllib, with_urllib3, with_socket]


def error_of(call: Callable[[], Any]) -> BaseException:
    """What a gateway raises, whose plugin makes a call."""
    gateway = Gateway(eager=True)
    gateway.add_provider("main", Plugin, does=lambda message: call())
    with pytest.raises(Exception) as caught:  # noqa: PT011  which one is for the test to say
        gateway.send(OutgoingMessage("15550001", "hi"))
    return caught.value


def ambiguous(error: BaseException) -> bool:
    assert isinstance(error, exc.ConnectionError), repr(error)
    return error.ambiguous


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections, and nothing comes of them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


@pytest.fixture
def untrusted() -> Iterator[str]:
    """A TLS server whose certificate nobody knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = server.accept()
        with connection, suppress(OSError):
            context.wrap_socket(connection, server_side=True).close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"https://127.0.0.1:{server.getsockname()[1]}/"
    thread.join()
    server.close()


@pytest.mark.parametrize("call", CALLS)
def test_refused(call: Call) -> None:
    assert ambiguous(error_of(lambda: call(f"http://127.0.0.1:{free_port()}/"))) is False


@pytest.mark.parametrize("call", CALLS)
def test_a_name_that_does_not_resolve(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*args: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    assert ambiguous(error_of(lambda: call("http://sms.invalid/"))) is False


@pytest.mark.parametrize("call", CALLS)
def test_a_connection_that_does_not_come_about_in_time(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(socket.socket):
        def connect(self, address: Any) -> None:
            raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "socket", Slow)
    assert ambiguous(error_of(lambda: call("http://127.0.0.1:9/"))) is False


@pytest.mark.parametrize("call", CALLS)
def test_an_answer_that_does_not_come_in_time(call: Call, silent: str) -> None:
    assert ambiguous(error_of(lambda: call(silent))) is True


@pytest.mark.parametrize("call", CALLS)
def test_hung_up_after_the_request(call: Call, carrier: Carrier) -> None:
    carrier.then(HANG_UP)
    assert ambiguous(error_of(lambda: call(f"http://{carrier.address}/"))) is True


@pytest.mark.parametrize("call", [with_requests, with_urllib])
def test_a_certificate_that_nobody_knows(call: Call, untrusted: str) -> None:
    assert ambiguous(error_of(lambda: call(untrusted))) is False


class OwnConstructor(ConnectionResetError):
    """As libraries define them."""

    def __init__(self, host: str) -> None:
        super().__init__(104, f"{host} hung up")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionResetError(104, "reset"), True),
        (BrokenPipeError(32, "broken"), True),
        (OwnConstructor("sms.example"), True),
        (TimeoutError("timed out"), True),
        (OSError(113, "No route to host"), True),
        (URLError("no reason that one could look into"), True),
        (http.client.RemoteDisconnected("gone"), True),
        (http.client.IncompleteRead(b"half"), True),
        (requests.exceptions.ChunkedEncodingError("half"), True),
        (requests.ConnectionError(), True),
        (ConnectionRefusedError(111, "refused"), False),
        (URLError(ConnectionRefusedError(111, "refused")), False),
    ],
    ids=repr,
)
def test_when_in_doubt_it_may_have_been_sent(error: Exception, expected: bool) -> None:
    def raises() -> None:
        raise error

    told = error_of(raises)
    assert ambiguous(told) is expected
    # The application's own ``except`` still works, and finds what it looked for.
    assert isinstance(told, type(error))
    assert str(told) == str(error)
    assert getattr(told, "errno", None) == getattr(error, "errno", None)


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError(2, "no key"), ValueError("no"), requests.exceptions.InvalidURL("no")],
    ids=repr,
)
def test_what_is_not_the_network_stays_what_it_is(error: Exception) -> None:
    def raises() -> None:
        raise error

    assert error_of(raises) is error


def test_a_refusal_after_a_redirect_is_in_doubt(carrier: Carrier) -> None:
    carrier.then(Answer(status=307, location=f"http://127.0.0.1:{free_port()}/"))
    assert ambiguous(error_of(lambda: with_requests(f"http://{carrier.address}/"))) is True


@pytest.mark.parametrize("cause", ["refused", "reset"])
def test_what_is_behind_an_error_that_the_plugin_made_of_it(cause: str) -> None:
    behind = ConnectionRefusedError(111, "no") if cause == "refused" else ConnectionResetError()
    for kind in ("ConnectionError", "ServerError", "MessageSendError", "ProviderError"):

        def raises(kind: str = kind) -> None:
            try:
                raise behind
            except OSError:
                raise getattr(smsframework.exc, kind)("failed") from None

        error = error_of(raises)
        assert isinstance(error, getattr(smsframework.exc, kind))
        assert isinstance(error, exc.ProviderError)
        assert error.ambiguous is (cause == "reset")


def test_a_plugin_that_knows_is_believed() -> None:
    def raises() -> None:
        error: Any = smsframework.exc.ConnectionError("before anything was written")
        error.ambiguous = False
        raise error

    assert ambiguous(error_of(raises)) is False


@pytest.mark.parametrize("call", [with_requests, with_urllib])
@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (400, exc.RequestError, False),
        (401, exc.AuthError, False),
        (402, exc.CreditError, False),
        (408, exc.ServerError, True),
        (429, exc.LimitsError, False),
        (500, exc.ServerError, True),
        (502, exc.ServerError, True),
        (407, exc.AuthError, False),
        (499, exc.ServerError, True),
        (501, exc.UnsupportedError, True),
        (503, exc.ServerError, True),
        (505, exc.UnsupportedError, True),
    ],
)
def test_an_answer_that_escapes_as_an_error_is_judged_by_its_status(
    carrier: Carrier, call: Call, status: int, kind: type[exc.ProviderError], expected: bool
) -> None:
    def wrapped() -> None:
        try:
            call(f"http://{carrier.address}/")
        except (HTTPError, requests.HTTPError) as error:
            raise smsframework.exc.MessageSendError("failed") from error

    carrier.then(Answer(status=status), Answer(status=status))
    for each in (lambda: call(f"http://{carrier.address}/"), wrapped):
        error = error_of(each)
        assert isinstance(error, kind)
        assert (error.http_status, error.ambiguous) == (status, expected)


@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, False), (401, False), (408, True), (500, True), (502, True), (503, True), (504, True)],
)
def test_a_published_plugin_that_calls_every_answer_a_refusal(
    carrier: Carrier, status: int, expected: bool
) -> None:
    """PSWin's makes an AuthError of all that is not 200: what a proxy answers says nothing."""
    carrier.then(Answer('{"message": "no"}', status))
    with Gateway(eager=True) as gateway:
        gateway.add_provider(
            "main", PswinProvider, user="u", password="p", hostname=carrier.address
        )
        with pytest.raises(exc.AuthError) as caught:
            gateway.send(OutgoingMessage("15550001", "hi"))
    assert (caught.value.http_status, caught.value.ambiguous) == (status, expected)


@pytest.mark.parametrize("kind", ["AuthError", "LimitsError", "CreditError", "ServerError"])
def test_whatever_a_plugin_makes_of_a_503_it_is_no_refusal(carrier: Carrier, kind: str) -> None:
    def wrapped() -> None:
        try:
            with_urllib(f"http://{carrier.address}/")
        except HTTPError as error:
            raise getattr(smsframework.exc, kind)("failed") from error

    def looked_at() -> None:
        response = requests.post(f"http://{carrier.address}/", timeout=5)
        if response.status_code != 200:
            raise getattr(smsframework.exc, kind)("failed")

    carrier.then(Answer(status=503), Answer(status=503))
    for each in (wrapped, looked_at):
        error = error_of(each)
        assert isinstance(error, getattr(exc, kind))
        assert (error.http_status, error.ambiguous) == (503, True)


def test_a_plugin_may_declare_that_its_503_is_a_refusal(carrier: Carrier) -> None:
    class Declared(PswinProvider):  # type: ignore[misc]
        bare_503_is_refusal = "https://docs.example.com/errors#503"

    carrier.then(Answer(status=503), Answer(status=502))
    with Gateway(eager=True) as gateway:
        gateway.add_provider("main", Declared, user="u", password="p", hostname=carrier.address)
        for expected in (False, True):
            with pytest.raises(exc.AuthError) as caught:
                gateway.send(OutgoingMessage("15550001", "hi"))
            assert caught.value.ambiguous is expected
