"""The simulator's HTTP interface.

POST /messages    {"to", "from", "text", "reference", "report", "allow_reply", "validity"}
                  HTTP Basic: account and token; answers 202 {"id": ...}
POST /2010-04-01/Accounts/<account>/Messages.json   the same in Twilio's dialect
GET  /accepted    the book of what was accepted
GET  /numbers     the magic numbers
GET  /healthz
"""

from __future__ import annotations

import hmac
import socket
from contextlib import suppress
from typing import Any

from flask import Flask, Response, jsonify, request

from smsqueue.simulator import twilio
from smsqueue.simulator.carrier import Carrier, Verdict, error
from smsqueue.simulator.numbers import NUMBERS

__all__ = ["make_app"]

MAX_MESSAGE = 64 * 1024


def make_app(carrier: Carrier, token: str) -> Flask:
    """The application of a simulator whose accounts all have the same token."""
    app = Flask("smsqueue.simulator", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_MESSAGE

    @app.post("/messages")
    def messages() -> Response:
        given = request.authorization
        account, password = (given.username, given.password) if given else (None, None)
        if not account or not hmac.compare_digest((password or "").encode(), token.encode()):
            return _answer(error(401, "bad_token", "Account or token is wrong."))
        message: Any = request.get_json(force=True, silent=True)
        if not isinstance(message, dict):
            return _answer(error(400, "malformed", "A message is a JSON object."))
        verdict = carrier.take(account, message)
        if verdict.lost:
            _cut()
        return _answer(verdict)

    @app.post("/2010-04-01/Accounts/<account>/Messages.json")
    def twilios(account: str) -> Response:
        given = request.authorization
        known = given is not None and given.username == account
        password = ((given.password or "") if given and known else "").encode()
        if not hmac.compare_digest(password, token.encode()):
            return _answer(twilio.answered(error(401, "bad_token", "Authenticate")))
        verdict = carrier.take(account, twilio.read(request.form, account))
        if verdict.lost:
            _cut()
        return _answer(twilio.answered(verdict))

    @app.get("/accepted")
    def accepted() -> Response:
        return jsonify(carrier.accepted())

    @app.get("/numbers")
    def numbers() -> Response:
        return jsonify([{"name": n.name, "number": n.pattern, "does": n.does} for n in NUMBERS])

    @app.get("/healthz")
    def healthz() -> str:
        return "ok\n"

    return app


def _answer(verdict: Verdict) -> Response:
    response = jsonify(verdict.body)
    response.status_code = verdict.status
    response.headers.update(verdict.headers)
    return response


def _cut() -> None:
    """Cut the connection of this request: its answer will reach nobody."""
    connection: socket.socket = request.environ["werkzeug.socket"]
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
