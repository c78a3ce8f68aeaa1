"""One side of a forwarding connection: a gateway, and its receivers over HTTP."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any

import requests
from flask import Flask
from werkzeug.serving import make_server

from smsqueue import Gateway, IProvider, OutgoingMessage
from smsqueue.providers.forward import ForwardClientProvider, ForwardServerProvider
from tests.ledger.bench import Bench, Told

SECRET = "a secret that both sides know"
#: Stands in front of an application: a WSGI application whose third argument calls the
#: application.
Proxy = Callable[[dict[str, Any], Any, Callable[[], Iterable[bytes]]], Iterable[bytes]]


class Side:
    """A gateway with receivers under ``/hook``; queued if it has a bench, else eager."""

    def __init__(self, bench: Bench | None = None) -> None:
        self.bench = bench
        self.gateway = bench.gateway if bench else Gateway(eager=True)
        # Bind now: another process must not get the port before we serve.
        self._app: Any = Flask("side")
        self._server = make_server("127.0.0.1", 0, self._app, threaded=True)
        self.port: int = self._server.server_port
        #: What the application's handlers were called with.
        self.received: list[Any] = []
        self.reports: list[Any] = []
        self.proxy: Proxy | None = None
        #: All requests: path, headers, body.
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self._serving = False

    def url(self, name: str, user: str = "") -> str:
        return f"http://{user}{'@' if user else ''}127.0.0.1:{self.port}/hook/{name}"

    def listen(self) -> None:
        self.gateway.onReceive.connect(self.received.append, name="app")
        self.gateway.onStatus.connect(self.reports.append, name="app")

    def serve(self) -> None:
        app = self._app
        self.gateway.receiver_blueprints_register(app, "/hook")
        inner = app.wsgi_app

        def outer(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            environ["wsgi.input"] = io.BytesIO(body)
            headers = {k[5:]: v for k, v in environ.items() if k.startswith("HTTP_")}
            self.requests.append((environ["PATH_INFO"], headers, body))
            if self.proxy is None:
                answer: Iterable[bytes] = inner(environ, start)
                return answer
            return self.proxy(environ, start, lambda: inner(environ, start))

        app.wsgi_app = outer
        self._serving = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        if self._serving:
            self._server.shutdown()
        self._server.server_close()

    def repeat(self, number: int = -1) -> requests.Response:
        """Send a received request again, byte by byte."""
        path, headers, body = self.requests[number]
        copied = {k.replace("_", "-"): v for k, v in headers.items() if k.startswith("X_")}
        if "AUTHORIZATION" in headers:
            copied["Authorization"] = headers["AUTHORIZATION"]
        copied["Content-Type"] = "application/json"
        url = f"http://127.0.0.1:{self.port}{path}"
        return requests.post(url, data=body, headers=copied, timeout=60)

    # --- What a worker does --------------------------------------------------------------------

    def deliver(self) -> None:
        """Deliver all messages that wait, and call the handlers of all events."""
        assert self.bench
        for _ in range(2):
            for id in self.bench.redis.zrange(self.bench.key("due", "send"), 0, -1):
                self.bench.unpause("remote")
                self.bench.ripe(id)
                self.bench.deliver(id)
            for event in self.bench.events():
                self.bench.ripe_event(event)
            self.bench.run_hooks()

    def send(self, body: str = "hello", **options: Any) -> str:
        message = OutgoingMessage("+1 555 0001", body, src="shop").options(**options)
        sent = self.gateway.send(message)
        assert sent.id
        return sent.id


def drop_answers(times: int) -> Proxy:
    """A proxy that breaks the connection after the request was handled, before the answer."""
    remaining = [times]

    def proxy(
        environ: dict[str, Any], start: Any, app: Callable[[], Iterable[bytes]]
    ) -> Iterable[bytes]:
        answer = app()
        if remaining[0] > 0:
            remaining[0] -= 1
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return answer

    return proxy


def fixed_answer(status: int, body: bytes, **headers: str) -> Proxy:
    """A proxy that answers all requests itself."""

    def proxy(environ: Any, start: Any, app: Any) -> Any:
        fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
        start(f"{status} Whatever", [("Content-Length", str(len(body))), *fields])
        return [body]

    return proxy


class NoPauses(ForwardServerProvider):
    """Calls a client that failed again at once."""

    client_pauses = (0.0, 0.0)


def connect(
    client: Side,
    server: Side,
    *,
    server_class: type[ForwardServerProvider] = ForwardServerProvider,
    clients: list[str] | None = None,
    client_options: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[ForwardClientProvider, Told]:
    """Connect two sides and serve both.

    Returns:
        The client's provider, and the carrier of the server.
    """
    carrier = server.gateway.add_provider("carrier", Told)
    server.gateway.add_provider(
        "forward",
        server_class,
        clients=[client.url("remote")] if clients is None else clients,
        **{"secret": SECRET} | options,
    )
    remote = client.gateway.add_provider(
        "remote",
        ForwardClientProvider,
        server_url=server.url("forward"),
        **{"secret": SECRET} | (client_options or {}),
    )
    for side in (client, server):
        side.listen()
        side.serve()
    assert isinstance(carrier, Told)
    assert isinstance(remote, ForwardClientProvider)
    return remote, carrier


def carrier_of(side: Side) -> IProvider:
    return side.gateway.get_provider("carrier")
