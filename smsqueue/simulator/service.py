"""The simulator's HTTP service.

POST /messages   {"to", "from", "text", "reference", "report", "validity"}  ->  {"id"}
GET  /accepted   what it accepted: [{"reference", "account", "id", "at"}]
"""

from __future__ import annotations

import hmac
import socket

from flask import Flask, Response, jsonify, request
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from smsqueue.simulator.carrier import Carrier

__all__ = ["create_app", "make_service", "serve"]


class _Quiet(WSGIRequestHandler):
    """Keeps connections open, and no access log."""

    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def create_app(carrier: Carrier) -> Flask:
    """The service as a Flask application."""
    app = Flask(__name__)

    @app.post("/messages")
    def messages() -> Response | tuple[Response, int]:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), carrier.token.encode()):
            return jsonify(error={"code": "bad-token"}), 401
        message = request.get_json(silent=True)
        if not isinstance(message, dict) or not message.get("to"):
            return jsonify(error={"code": "malformed", "text": "a JSON object with 'to'"}), 400
        reply = carrier.take(request.headers.get("X-Account", "main"), message)
        if reply.cut:
            request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        response = jsonify(reply.body)
        response.status_code = reply.status
        if reply.retry_after is not None:
            response.headers["Retry-After"] = str(reply.retry_after)
        return response

    @app.get("/accepted")
    def accepted() -> Response:
        return jsonify(list(carrier.accepted))

    @app.get("/")
    def root() -> str:
        return "smsqueue carrier simulator\n"

    return app


def make_service(carrier: Carrier, host: str = "127.0.0.1", port: int = 0) -> BaseWSGIServer:
    """A server that is bound but not running; its ``port`` is the one it got."""
    app = create_app(carrier)
    return make_server(host, port, app, threaded=True, request_handler=_Quiet)


def serve(host: str, port: int, webhook: str | None, token: str) -> None:
    """Serve until interrupted."""
    make_service(Carrier(webhook, token), host, port).serve_forever()
