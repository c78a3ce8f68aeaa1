"""Network errors of plugins: ambiguous unless nothing of the request can have been written."""

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


def call_requests(url: str) -> Any:
    response = requests.post(url, data={"text": "hi"}, timeout=0.3)
    response.raise_for_status()


def call_urllib(url: str) -> Any:
    try:
        urllib.request.urlopen(url, b"text=hi", timeout=0.3).close()
    except HTTPError as error:  # it has a socket
        error.close()
        raise


def call_urllib3(url: str) -> Any:
    with urllib3.PoolManager(retries=False, timeout=0.3) as pool:
        return pool.request("POST", url, body=b"text=hi")


def call_socket(url: str) -> Any:
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    with socket.create_connection((host, int(port or 80)), timeout=0.3) as connection:
        connection.sendall(b"hi")
        if not connection.recv(1):
            raise ConnectionResetError
        return None


CALLS = [call_requests, call_urllib, call_urllib3, call_socket]


def error_of(call: Callable[[], Any]) -> BaseException:
    """The error of a gateway whose plugin makes a call."""
    gateway = Gateway(eager=True)
    gateway.add_provider("main", Plugin, on_send=lambda message: call())
    with pytest.raises(Exception) as caught:  # noqa: PT011  the test checks its class
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
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


@pytest.fixture
def untrusted() -> Iterator[str]:
    """A TLS server with an untrusted certificate."""
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
def test_a_refused_connection_is_not_ambiguous(call: Call) -> None:
    assert ambiguous(error_of(lambda: call(f"http://127.0.0.1:{free_port()}/"))) is False


@pytest.mark.parametrize("call", CALLS)
def test_a_name_that_does_not_resolve_is_not_ambiguous(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert ambiguous(error_of(lambda: call("http://sms.invalid/"))) is False


@pytest.mark.parametrize("call", CALLS)
def test_a_connect_timeout_is_not_ambiguous(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(socket.socket):
        def connect(self, address: Any) -> None:
            raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "socket", Slow)
    assert ambiguous(error_of(lambda: call("http://127.0.0.1:9/"))) is False


@pytest.mark.parametrize("call", CALLS)
def test_a_read_timeout_is_ambiguous(call: Call, silent: str) -> None:
    assert ambiguous(error_of(lambda: call(silent))) is True


@pytest.mark.parametrize("call", CALLS)
def test_a_connection_closed_after_the_request_is_ambiguous(call: Call, carrier: Carrier) -> None:
    carrier.then(HANG_UP)
    assert ambiguous(error_of(lambda: call(f"http://{carrier.address}/"))) is True


@pytest.mark.parametrize("call", [call_requests, call_urllib])
def test_an_untrusted_certificate_is_not_ambiguous(call: Call, untrusted: str) -> None:
    assert ambiguous(error_of(lambda: call(untrusted))) is False


class OwnConstructor(ConnectionResetError):
    """An error whose constructor has other arguments, as libraries define them."""

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
        (URLError("a reason that is a text"), True),
        (http.client.RemoteDisconnected("gone"), True),
        (http.client.IncompleteRead(b"half"), True),
        (requests.exceptions.ChunkedEncodingError("half"), True),
        (requests.ConnectionError(), True),
        (ConnectionRefusedError(111, "refused"), False),
        (URLError(ConnectionRefusedError(111, "refused")), False),
    ],
    ids=repr,
)
def test_an_error_is_ambiguous_unless_it_is_a_refused_connection(
    error: Exception, expected: bool
) -> None:
    def raises() -> None:
        raise error

    translated = error_of(raises)
    assert ambiguous(translated) is expected
    # The application's own ``except`` still matches.
    assert isinstance(translated, type(error))
    assert str(translated) == str(error)
    assert getattr(translated, "errno", None) == getattr(error, "errno", None)


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError(2, "no key"), ValueError("no"), requests.exceptions.InvalidURL("no")],
    ids=repr,
)
def test_other_errors_are_not_translated(error: Exception) -> None:
    def raises() -> None:
        raise error

    assert error_of(raises) is error


def test_a_refused_connection_after_a_redirect_is_ambiguous(carrier: Carrier) -> None:
    carrier.then(Answer(status=307, location=f"http://127.0.0.1:{free_port()}/"))
    assert ambiguous(error_of(lambda: call_requests(f"http://{carrier.address}/"))) is True


@pytest.mark.parametrize("cause", ["refused", "reset"])
def test_the_cause_of_a_plugins_error_decides(cause: str) -> None:
    original = ConnectionRefusedError(111, "no") if cause == "refused" else ConnectionResetError()
    for kind in ("ConnectionError", "ServerError", "MessageSendError", "ProviderError"):

        def raises(kind: str = kind) -> None:
            try:
                raise original
            except OSError:
                raise getattr(smsframework.exc, kind)("failed") from None

        error = error_of(raises)
        assert isinstance(error, getattr(smsframework.exc, kind))
        assert isinstance(error, exc.ProviderError)
        assert error.ambiguous is (cause == "reset")


def test_a_plugin_may_set_ambiguous_itself() -> None:
    def raises() -> None:
        error: Any = smsframework.exc.ConnectionError("before anything was written")
        error.ambiguous = False
        raise error

    assert ambiguous(error_of(raises)) is False


@pytest.mark.parametrize("call", [call_requests, call_urllib])
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
def test_an_http_error_is_translated_by_its_status(
    carrier: Carrier, call: Call, status: int, kind: type[exc.ProviderError], expected: bool
) -> None:
    def wrapped() -> None:
        try:
            call(f"http://{carrier.address}/")
        except (HTTPError, requests.HTTPError) as error:
            raise smsframework.exc.MessageSendError("failed") from error

    carrier.then(Answer(status=status), Answer(status=status))
    for send in (lambda: call(f"http://{carrier.address}/"), wrapped):
        error = error_of(send)
        assert isinstance(error, kind)
        assert (error.http_status, error.ambiguous) == (status, expected)


@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, False), (401, False), (408, True), (500, True), (502, True), (503, True), (504, True)],
)
def test_a_status_that_a_published_plugin_hides_decides(
    carrier: Carrier, status: int, expected: bool
) -> None:
    """PSWin's raises AuthError for every status but 200, for a proxy's as well."""
    carrier.then(Answer('{"message": "no"}', status))
    with Gateway(eager=True) as gateway:
        gateway.add_provider(
            "main", PswinProvider, user="u", password="p", hostname=carrier.address
        )
        with pytest.raises(exc.AuthError) as caught:
            gateway.send(OutgoingMessage("15550001", "hi"))
    assert (caught.value.http_status, caught.value.ambiguous) == (status, expected)


@pytest.mark.parametrize("kind", ["AuthError", "LimitsError", "CreditError", "ServerError"])
def test_a_503_is_ambiguous_whatever_class_a_plugin_raises(carrier: Carrier, kind: str) -> None:
    def wrapped() -> None:
        try:
            call_urllib(f"http://{carrier.address}/")
        except HTTPError as error:
            raise getattr(smsframework.exc, kind)("failed") from error

    def examined() -> None:
        response = requests.post(f"http://{carrier.address}/", timeout=5)
        if response.status_code != 200:
            raise getattr(smsframework.exc, kind)("failed")

    carrier.then(Answer(status=503), Answer(status=503))
    for send in (wrapped, examined):
        error = error_of(send)
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
