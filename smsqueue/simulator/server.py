"""The simulator's HTTP server, in a process of its own or in a thread.

POST /messages    {"to", "from", "text", "reference", "report", "allow_reply", "validity"}
                  HTTP Basic: account and token; answers 202 {"id": ...}
POST /2010-04-01/Accounts/<account>/Messages.json   the same in Twilio's dialect
GET  /accepted    the accepted messages
GET  /numbers     the magic numbers
GET  /healthz
"""

from __future__ import annotations

import hmac
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

from flask import Flask, Response, jsonify, request
from werkzeug.serving import WSGIRequestHandler, make_server

from smsqueue.simulator import twilio
from smsqueue.simulator.carrier import Answer, Carrier, error
from smsqueue.simulator.magic_numbers import NUMBERS
from smsqueue.simulator.webhook_delivery import WebhookDelivery

__all__ = ["Simulator", "serve"]

_MAX_REQUEST_BYTES = 64 * 1024


class Simulator:
    """A carrier simulator. As a context manager it serves in a thread.

    Args:
        webhooks: Base URL of each account's webhooks, for example
            ``{"main": "http://127.0.0.1:8000/PREFIX/main"}``.
        token: The password of all accounts, and the key of the webhooks' signatures.
        port: 0: a free port.

    Raises:
        OSError: the port is in use.
    """

    def __init__(
        self,
        webhooks: Mapping[str, str],
        token: str = "simulator",  # noqa: S107  a simulator protects nothing
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._webhooks = WebhookDelivery(webhooks, token, {twilio.DIALECT: twilio.webhook})
        self.carrier = Carrier(self._webhooks)
        app = _make_app(self.carrier, token)
        try:
            self._server = make_server(host, port, app, threaded=True, request_handler=_Handler)
        except BaseException:
            self._webhooks.close()
            raise
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        self.url = f"http://{host}:{self._server.port}"

    def serve_forever(self) -> None:
        """Serve in this thread until it is interrupted."""
        try:
            self._server.serve_forever()
        finally:
            self._webhooks.close()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._webhooks.close()


def serve(
    webhooks: Mapping[str, str],
    token: str = "simulator",  # noqa: S107  a simulator protects nothing
    *,
    host: str = "127.0.0.1",
    port: int = 0,
) -> None:
    """Print the URL of a simulator and run it until it is interrupted."""
    simulator = Simulator(webhooks, token, host=host, port=port)
    print(f"carrier simulator on {simulator.url}", flush=True)
    simulator.serve_forever()


class _Handler(WSGIRequestHandler):
    """Keeps connections open and logs no requests."""

    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        pass


def _make_app(carrier: Carrier, token: str) -> Flask:
    """Return the Flask application; all accounts have the same token."""
    app = Flask("smsqueue.simulator", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = _MAX_REQUEST_BYTES

    @app.post("/messages")
    def messages() -> Response:
        basic = request.authorization
        account, password = (basic.username, basic.password) if basic else (None, None)
        if not account or not hmac.compare_digest((password or "").encode(), token.encode()):
            return _response(error(401, "bad_token", "Account or token is wrong."))
        message: Any = request.get_json(force=True, silent=True)
        if not isinstance(message, dict):
            return _response(error(400, "malformed", "A message is a JSON object."))
        answer = carrier.submit(account, message)
        if answer.lost:
            _cut_connection()
        return _response(answer)

    @app.post("/2010-04-01/Accounts/<account>/Messages.json")
    def twilio_messages(account: str) -> Response:
        basic = request.authorization
        same_account = basic is not None and basic.username == account
        password = ((basic.password or "") if basic and same_account else "").encode()
        if not hmac.compare_digest(password, token.encode()):
            return _response(twilio.translate(error(401, "bad_token", "Authenticate")))
        answer = carrier.submit(account, twilio.parse(request.form, account))
        if answer.lost:
            _cut_connection()
        return _response(twilio.translate(answer))

    @app.get("/accepted")
    def accepted() -> Response:
        return jsonify(carrier.accepted())

    @app.get("/numbers")
    def numbers() -> Response:
        return jsonify(
            [{"name": n.name, "number": n.pattern, "does": n.description} for n in NUMBERS]
        )

    @app.get("/healthz")
    def healthz() -> str:
        return "ok\n"

    return app


def _response(answer: Answer) -> Response:
    response = jsonify(answer.body)
    response.status_code = answer.status
    response.headers.update(answer.headers)
    return response


def _cut_connection() -> None:
    """Close the connection of this request, so that its answer is lost."""
    connection: socket.socket = request.environ["werkzeug.socket"]
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
