"""The wrapper around every provider's views, on a user's own application."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Blueprint, Flask, abort, request
from flask.testing import FlaskClient

from smsqueue import exc
from smsqueue.gateway import Gateway
from smsqueue.message.messages import IncomingMessage
from smsqueue.providers.base import IProvider
from smsqueue.providers.base.webhook_blueprints import wrap
from tests.receivers.plugin import HELLO, NUMBER, TEXT, Heard

SECRETS = (NUMBER, TEXT, "s3cret")
LIMIT = 1000


@pytest.fixture
def client(gateway: Gateway) -> FlaskClient:
    return own_app(gateway).test_client()


def own_app(gateway: Gateway) -> Flask:
    app = Flask(__name__)
    for name in ("main", "other"):
        app.register_blueprint(
            wrap(gateway.get_provider(name), LIMIT), url_prefix=f"/s3cret/{name}"
        )
    return app


def refuse(error: Exception) -> Callable[[Any], None]:
    def hook(_: Any) -> None:
        raise error

    return hook


def test_views_of_a_shared_blueprint_get_their_own_provider(
    client: FlaskClient, heard: Heard
) -> None:
    assert client.post("/s3cret/main/im", json=HELLO).text == "taken"
    left = {"X-Key": "left"}
    assert client.post("/s3cret/other/im", json=HELLO, headers=left).status_code == 200
    assert client.post("/s3cret/main/im", json=HELLO, headers=left).status_code == 403
    assert heard == [("main", "hunter2"), ("other", "hunter2")]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("im", b"{", 400),
        ("im", b"\xff\xfe\xfa", 400),
        ("status", b"nothing=1", 400),
        ("blind", b"x" * LIMIT, 200),
        ("blind", b"x" * (LIMIT + 1), 413),
        ("crash", b"+15551234567 hunter2", 500),
        ("full", b"", 429),
    ],
)
def test_a_bad_webhook_is_answered_in_one_line(
    client: FlaskClient, path: str, body: bytes, status: int
) -> None:
    form = {"content_type": "application/x-www-form-urlencoded"}
    answer = client.post(f"/s3cret/main/{path}", data=body, **form)
    assert answer.status_code == status
    assert answer.text.count("\n") <= 1
    if status != 200:
        assert answer.mimetype == "text/plain"
        assert len(answer.text) < 40


@pytest.mark.parametrize(("size", "status"), [(LIMIT, 200), (LIMIT + 1, 413), (10 * LIMIT, 413)])
def test_a_body_of_unknown_length_is_limited_too(
    client: FlaskClient, size: int, status: int
) -> None:
    stream = io.BytesIO(b"x" * size)
    answer = client.post(
        "/s3cret/main/blind", input_stream=stream, environ_overrides={"wsgi.input_terminated": True}
    )
    assert answer.status_code == status


def test_a_large_form_is_one_webhook_like_any_other(gateway: Gateway) -> None:
    app = Flask(__name__)
    app.register_blueprint(wrap(gateway.get_provider("main"), 2_000_000), url_prefix="/x")
    answer = app.test_client().post("/x/status", data={"id": "1", "pad": "x" * 1_000_000})
    assert answer.status_code == 200


@pytest.mark.parametrize("terminated", [True, False])
def test_a_truncated_body_reaches_no_view(
    client: FlaskClient, heard: Heard, terminated: bool
) -> None:
    body = b'{"from": "1", "text": "half"}'
    overrides: dict[str, Any] = {"CONTENT_LENGTH": str(len(body) + 10)}
    if terminated:
        overrides["wsgi.input_terminated"] = True
    stream = io.BytesIO(body)
    answer = client.post("/s3cret/main/im", input_stream=stream, environ_overrides=overrides)
    assert answer.status_code == 400
    assert heard == []


def test_invalid_chunks_are_malformed(client: FlaskClient) -> None:
    class Broken(io.BytesIO):
        def readinto(self, buffer: Any) -> int:
            raise RuntimeError("invalid chunk size")

    overrides = {"wsgi.input_terminated": True}
    answer = client.post("/s3cret/main/im", input_stream=Broken(), environ_overrides=overrides)
    assert answer.status_code == 400


def test_a_webhook_that_is_not_recorded_is_answered_503(
    gateway: Gateway, client: FlaskClient
) -> None:
    gateway.onReceive += refuse(exc.QueueUnavailable("no answer"))
    answer = client.post("/s3cret/main/im", json=HELLO)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "repeat" in answer.text


@pytest.mark.parametrize(
    "error", [ValueError("x"), PermissionError("x"), exc.ServerError("x"), KeyError("x")]
)
def test_an_error_of_a_handler_is_answered_500(
    gateway: Gateway, client: FlaskClient, error: Exception
) -> None:
    # Providers drop what is answered 4xx, and repeat what is answered 5xx.
    gateway.onReceive += refuse(error)
    assert client.post("/s3cret/main/im", json=HELLO).status_code == 500


def test_the_applications_own_error_pages_do_not_interfere(gateway: Gateway) -> None:
    app = own_app(gateway)
    for code in (400, 403, 413, 500):
        app.register_error_handler(code, lambda error: ("<h1>Oh no</h1>", 200))
    app.register_error_handler(Exception, lambda error: ("<h1>Oh no</h1>", 200))
    client = app.test_client()
    assert client.post("/s3cret/main/im", data=b"{").status_code == 400
    assert client.post("/s3cret/main/status").status_code == 400
    assert client.post("/s3cret/main/blind", data=b"x" * 2000).status_code == 413
    assert client.post("/s3cret/main/crash").status_code == 500
    assert client.get("/elsewhere").text == "<h1>Oh no</h1>"


def test_an_application_that_refuses_before_we_begin(gateway: Gateway) -> None:
    app = own_app(gateway)
    app.before_request(lambda: abort(418))
    assert app.test_client().post("/s3cret/main/im").status_code == 418


def test_the_access_log_has_provider_route_status_and_time(
    client: FlaskClient, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "smsqueue.access")
    client.post("/s3cret/main/im", json=HELLO)
    client.get("/s3cret/main/status?id=7&from=15551234567&text=hunter2")
    client.post("/s3cret/other/im", json=HELLO)
    lines = [r.getMessage() for r in caplog.records if r.name == "smsqueue.access"]
    assert [line.split()[:3] for line in lines] == [
        ["POST", "main/im", "200"],
        ["GET", "main/status", "200"],
        ["POST", "other/im", "403"],
    ]
    assert all(line.endswith(" ms") for line in lines)


@pytest.mark.parametrize("path", ["im", "status", "crash", "full", "blind"])
@pytest.mark.parametrize(
    "error", [None, exc.QueueUnavailable("hunter2"), ValueError("+15551234567")]
)
def test_no_log_holds_number_text_or_prefix(
    gateway: Gateway,
    client: FlaskClient,
    caplog: pytest.LogCaptureFixture,
    path: str,
    error: Exception | None,
) -> None:
    caplog.set_level(logging.DEBUG)
    if error:
        gateway.onReceive += refuse(error)
        gateway.onStatus += refuse(error)
    query = {"id": "hunter2", "from": "+15551234567"}
    client.post(f"/s3cret/main/{path}", query_string=query, json=HELLO)
    client.post(f"/s3cret/other/{path}", query_string=query, json=HELLO)
    client.post(f"/s3cret/main/{path}", query_string=query, data=b"hunter2" * LIMIT)
    logged = "\n".join(logging.Formatter().format(record) for record in caplog.records)
    assert "main/" in logged
    for secret in SECRETS:
        assert secret not in logged


def test_an_error_is_logged_with_class_and_place(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    client.post("/s3cret/main/crash")
    client.post("/s3cret/main/im", data=b"{")
    crash, malformed = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    place = r"receivers/plugin\.py:\d+"
    assert re.fullmatch(rf"webhook of main failed: RuntimeError at {place}", crash)
    assert re.fullmatch(
        rf"webhook of main refused: JSONDecodeError at {place} > json/decoder\.py:\d+", malformed
    )


def test_an_incoming_message_has_the_fields_of_the_webhook(
    gateway: Gateway, client: FlaskClient
) -> None:
    got: list[IncomingMessage] = []
    gateway.onReceive += got.append
    client.post("/s3cret/main/im", json=HELLO)
    assert (got[0].src, got[0].body, got[0].provider) == ("15551234567", "hunter2", "main")


def test_a_document_that_is_nested_too_deeply_is_malformed() -> None:
    gateway = Gateway(eager=True)
    gateway.add_provider("main", _Deep)
    client = gateway.receiver_blueprints_register(Flask("app")).test_client()
    assert client.post("/main/im", data=b"[" * 100_000).status_code == 400


class _Deep(IProvider):
    def make_receiver_blueprint(self) -> Blueprint:
        views = Blueprint("deep", __name__)
        views.post("/im")(lambda: str(request.get_json(force=True)))
        return views
