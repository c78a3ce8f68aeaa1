"""One of two applications that are bound together: a gateway and its receivers over HTTP."""

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
#: What is in front of an application: is called as a WSGI application is, and with
#: what calls the application behind it.
Front = Callable[[dict[str, Any], Any, Callable[[], Iterable[bytes]]], Iterable[bytes]]


class Side:
    """A gateway with receivers under ``/hook``; with a bench it is queued, else eager."""

    def __init__(self, bench: Bench | None = None) -> None:
        self.bench = bench
        self.gateway = bench.gateway if bench else Gateway(eager=True)
        # Bound at once, so that nobody else gets the port before it serves.
        self._app: Any = Flask("side")
        self._server = make_server("127.0.0.1", 0, self._app, threaded=True)
        self.port: int = self._server.server_port
        #: What the handlers of the application were called with.
        self.received: list[Any] = []
        self.reports: list[Any] = []
        self.front: Front | None = None
        #: Every request: path, headers, body.
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
            if self.front is None:
                answered: Iterable[bytes] = inner(environ, start)
                return answered
            return self.front(environ, start, lambda: inner(environ, start))

        app.wsgi_app = outer
        self._serving = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        if self._serving:
            self._server.shutdown()
        self._server.server_close()

    def repeat(self, number: int = -1) -> requests.Response:
        """Send a request that came in once more, byte by byte."""
        path, headers, body = self.requests[number]
        again = {k.replace("_", "-"): v for k, v in headers.items() if k.startswith("X_")}
        if "AUTHORIZATION" in headers:
            again["Authorization"] = headers["AUTHORIZATION"]
        again["Content-Type"] = "application/json"
        url = f"http://127.0.0.1:{self.port}{path}"
        return requests.post(url, data=body, headers=again, timeout=60)

    # --- a worker's work -----------------------------------------------------------------------

    def deliver(self) -> None:
        """Deliver everything that is due, and what its hooks are told of."""
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


def lose_answers(times: int) -> Front:
    """The request is handled, and the connection breaks before the answer."""
    left = [times]

    def front(
        environ: dict[str, Any], start: Any, app: Callable[[], Iterable[bytes]]
    ) -> Iterable[bytes]:
        answer = app()
        if left[0] > 0:
            left[0] -= 1
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return answer

    return front


def answering(status: int, body: bytes, **headers: str) -> Front:
    """Somebody answers who has not read the request."""

    def front(environ: Any, start: Any, app: Any) -> Any:
        told = [(name.replace("_", "-"), value) for name, value in headers.items()]
        start(f"{status} Whatever", [("Content-Length", str(len(body))), *told])
        return [body]

    return front


class NoPauses(ForwardServerProvider):
    """Calls a client that failed again at once."""

    client_pauses = (0.0, 0.0)


def bind(
    client: Side,
    server: Side,
    *,
    server_class: type[ForwardServerProvider] = ForwardServerProvider,
    clients: list[str] | None = None,
    client_options: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[ForwardClientProvider, Told]:
    """Bind two sides together and serve both; the client's provider and the server's carrier."""
    # The carrier's class depends on nothing but the gateway: it does what a test tells it.
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
