"""The application that create_app returns."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from flask import Flask

from receivers import create_app
from receivers.logs import set_up_logs
from smsqueue.configuration.loader import LoaderError
from smsqueue.exc import QueueUnavailable
from smsqueue.gateway import Gateway
from smsqueue.message.messages import IncomingMessage
from smsqueue.settings import Settings, SettingsError
from tests.receivers.plugin import HELLO, PluginProvider


@pytest.fixture(autouse=True)
def _logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An environment without our variables, and loggers as they were."""
    for name in ("GATEWAY", "EAGER", "RECEIVER_PREFIX"):
        monkeypatch.delenv(f"SMSQUEUE_{name}", raising=False)
    loggers = [logging.getLogger(n) for n in ("gunicorn.access", "gunicorn.error", "werkzeug")]
    before = [logger.filters.copy() for logger in loggers]
    yield
    for logger, filters in zip(loggers, before, strict=True):
        logger.filters[:] = filters


def make_gateway(*prefixes: str, **settings: Any) -> Gateway:
    gateway = Gateway(Settings(**({"receiver_prefix": prefixes, "eager": True} | settings)))
    gateway.add_provider("main", PluginProvider)
    return gateway


def make(*prefixes: str) -> Flask:
    return create_app(gateway=make_gateway(*prefixes))


def test_a_prefix_is_required_and_a_random_one_suggested() -> None:
    texts = []
    for _ in range(2):
        with pytest.raises(SettingsError, match="SMSQUEUE_RECEIVER_PREFIX is not set") as caught:
            make()
        texts.append(str(caught.value))
        suggested = re.search(r"SMSQUEUE_RECEIVER_PREFIX=(\S{20,})$", texts[-1])
        assert suggested
        assert Settings(receiver_prefix=(suggested[1],)).receiver_prefix == (suggested[1],)
    assert texts[0] != texts[1]


def test_no_gateway() -> None:
    with pytest.raises(LoaderError, match="SMSQUEUE_GATEWAY is not set"):
        create_app(Settings(receiver_prefix=("a-prefix-for-tests",)))


def test_flasks_command_shows_one_line() -> None:
    with click.Context(click.Command("run")), pytest.raises(click.ClickException) as caught:
        create_app(Settings(receiver_prefix=("a-prefix-for-tests",)))
    assert caught.value.message.startswith("SMSQUEUE_GATEWAY is not set")


def test_the_named_gateway_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "receiver_app_sms.py").write_text(
        "from smsqueue.gateway import Gateway\n"
        "from tests.receivers.plugin import PluginProvider\n"
        "gateway = Gateway()\n"
        "gateway.add_provider('main', PluginProvider)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SMSQUEUE_GATEWAY", "receiver_app_sms:gateway")
    monkeypatch.setenv("SMSQUEUE_RECEIVER_PREFIX", "prefix1, prefix2")
    monkeypatch.setenv("SMSQUEUE_EAGER", "1")
    client = create_app().test_client()
    assert client.post("/prefix1/main/im", json=HELLO).status_code == 200
    assert client.post("/prefix2/main/im", json=HELLO).status_code == 200


def test_several_prefixes_are_served_while_one_is_replaced() -> None:
    gateway = make_gateway("older-one", "new/deep")
    heard: list[IncomingMessage] = []
    gateway.onReceive += heard.append
    client = create_app(gateway=gateway).test_client()
    assert client.post("/older-one/main/im", json=HELLO).status_code == 200
    assert client.post("/new/deep/main/im", json=HELLO).status_code == 200
    assert client.post("/main/im", json=HELLO).status_code == 404
    assert len(heard) == 2


def test_given_settings_go_before_the_gateways() -> None:
    app = create_app(Settings(receiver_prefix=("given-one",)), make_gateway("own-one"))
    assert app.test_client().post("/given-one/main/im", json=HELLO).status_code == 200
    assert app.test_client().post("/own-one/main/im", json=HELLO).status_code == 404


@pytest.mark.parametrize(
    "path", ["/", "/prefix", "/prefix/", "/q/main/im", "/prefix/none/im", "/static/x", "//"]
)
def test_an_unknown_url_reveals_nothing(path: str) -> None:
    client = make("prefix").test_client()
    answers = [client.get(path), client.post(path, json=HELLO)]
    for answer in answers:
        assert answer.status_code == 404
        assert answer.mimetype == "text/plain"
        assert answer.text == "not found\n"


def test_health() -> None:
    gateway = make_gateway("prefix")
    client = create_app(gateway=gateway).test_client()
    answer = client.get("/healthz")
    assert (answer.status_code, answer.text) == (200, "ok\n")
    answer = client.get("/readyz")
    assert (answer.status_code, answer.text) == (200, "ready\n")


def test_ready_while_redis_is_nearly_full(redis_server: Callable[..., Any]) -> None:
    """It stays in service: delivery reports are recorded even then."""
    gateway = make_gateway("prefix", eager=False, redis_url=redis_server("--maxmemory", "1gb").url)
    room = gateway.ledger.room()
    for part, trouble in (
        (0.5, ""),
        (0.9, "Redis is nearly full: webhooks are refused"),
        (0.96, "Redis is nearly full: webhooks are refused, and new messages soon will be"),
        (0.99, "Redis is nearly full: new messages are refused, and webhooks"),
    ):
        maxmemory = int((room.used + room.reserved) / part)
        gateway.ledger.redis.config_set("maxmemory", maxmemory)
        answer = create_app(gateway=gateway).test_client().get("/readyz")
        text = f"ready, but {trouble}\n" if trouble else "ready\n"
        assert (answer.status_code, answer.text) == (200, text)


@pytest.mark.parametrize(
    ("cause", "shown"), [(TimeoutError("x"), "TimeoutError"), (None, "QueueUnavailable")]
)
def test_not_ready_without_redis(
    monkeypatch: pytest.MonkeyPatch, cause: Exception | None, shown: str
) -> None:
    def ping() -> None:
        raise QueueUnavailable("redis://:hunter2@127.0.0.1 does not answer") from cause

    gateway = make_gateway("prefix")
    client = create_app(gateway=gateway).test_client()
    monkeypatch.setattr(gateway, "ping", ping)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, f"not ready: {shown}\n")
    assert client.get("/healthz").status_code == 200


def test_what_is_wrong_at_the_start_is_a_warning(
    redis_server: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    gateway = make_gateway("prefix", eager=False, redis_url=redis_server("--appendonly", "no").url)
    create_app(gateway=gateway)
    assert "has no AOF: accepted messages are lost when it stops" in caplog.text


def test_redis_away_at_the_start_does_not_stop_the_receivers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def ping() -> None:
        raise QueueUnavailable("hunter2") from TimeoutError("hunter2")

    gateway = make_gateway("prefix")
    monkeypatch.setattr(gateway, "ping", ping)
    client = create_app(gateway=gateway).test_client()
    assert client.post("/prefix/main/im", json=HELLO).status_code == 200
    assert "Redis does not answer (TimeoutError)" in caplog.text
    assert "hunter2" not in caplog.text


def test_no_error_reaches_the_server(caplog: pytest.LogCaptureFixture) -> None:
    app = make("p3cret")
    app.testing = True
    # A view that returns nothing fails outside of the views' own error handling.
    answer = app.test_client().post("/p3cret/main/nothing?text=hunter2", json=HELLO)
    assert answer.status_code == 500
    assert answer.mimetype == "text/plain"
    assert "request failed: TypeError" in caplog.text
    for secret in ("p3cret", "hunter2", "15551234567"):
        assert secret not in caplog.text


def test_every_request_but_health_has_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "smsqueue.access")
    client = make("prefix").test_client()
    client.post("/prefix/main/im", json=HELLO)
    client.get("/prefix/main/im?text=hunter2")
    client.get("/wrong/main/status?text=hunter2")
    client.open("/p", method="+15551234567")
    client.get("/healthz")
    client.get("/readyz")
    lines = [r.getMessage() for r in caplog.records if r.name == "smsqueue.access"]
    assert [line.split()[:3] for line in lines] == [
        ["POST", "main/im", "200"],
        ["GET", "-", "405"],
        ["GET", "-", "404"],
        ["-", "-", "404"],
    ]
    levels = [r.levelname for r in caplog.records if r.name == "smsqueue.access"]
    assert levels == ["DEBUG", "INFO", "INFO", "INFO"]


def emit(name: str, level: int, text: str, *args: Any, error: Exception | None = None) -> list[str]:
    """What a server's logger makes of a line, as the handlers would show it."""
    shown: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            shown.append(logging.Formatter().format(record))

    logger, handler = logging.getLogger(name), Handler()
    logger.addHandler(handler)
    try:
        if error is None:
            logger.log(level, text, *args)
        else:
            try:
                raise error
            except Exception:
                logger.log(level, text, *args, exc_info=True)
    finally:
        logger.removeHandler(handler)
    return shown


def test_the_servers_do_not_log_request_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    set_up_logs(as_json=False)
    set_up_logs(as_json=False)
    url, error = "/p?text=hunter2", ValueError("hunter2")
    assert emit("gunicorn.access", logging.INFO, '"%(r)s"', {"r": url}) == []
    assert emit(
        "gunicorn.error", logging.ERROR, "Error handling request %s %s", "GET", url, error=error
    ) == ["Error handling request: ValueError"]
    assert emit(
        "gunicorn.error", logging.WARNING, f"Invalid request from ip=::1: Invalid line '{url}'"
    ) == ["Invalid request from ip=::1"]
    logging.getLogger("gunicorn.error").setLevel(logging.DEBUG)
    assert emit("gunicorn.error", logging.DEBUG, "%s %s", "GET", url) == []
    assert emit("gunicorn.error", logging.DEBUG, "Closing connection. %s", url) == [
        "Closing connection."
    ]
    assert emit("gunicorn.error", logging.DEBUG, "Ignoring EPIPE") == ["Ignoring EPIPE"]
    assert emit("gunicorn.error", logging.INFO, "Booting worker with pid: %s", 7) == [
        "Booting worker with pid: 7"
    ]
    assert emit("werkzeug", logging.INFO, '::1 - - [now] "%s" %s %s', f"GET {url}", 200, "-") == []
    assert emit("werkzeug", logging.ERROR, "::1 - - [now] code %d, message %s", 400, url) == [
        "a request failed"
    ]
    assert emit("werkzeug", logging.INFO, " * Running on http://127.0.0.1:5000") == [
        " * Running on http://127.0.0.1:5000"
    ]


def test_importing_the_package_loads_nothing() -> None:
    code = "import sys, receivers; print(sys.modules.keys() & {'flask', 'smsqueue.gateway'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
