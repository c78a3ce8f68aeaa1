"""The simulator as a server, in a process of its own or in a thread."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Self

from werkzeug.serving import WSGIRequestHandler, make_server

from smsqueue.simulator import twilio
from smsqueue.simulator.app import make_app
from smsqueue.simulator.carrier import Carrier
from smsqueue.simulator.outbox import Outbox

__all__ = ["Simulator", "serve"]


class _Handler(WSGIRequestHandler):
    """Keeps connections open, and logs no requests."""

    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        pass


class Simulator:
    """A carrier simulator that serves in a thread while its context lasts.

    Args:
        webhooks: Base address of each account's webhooks, for example
            ``{"main": "http://127.0.0.1:8000/PREFIX/main"}``.
        token: Every account's password, and what webhooks are signed with.
        port: 0: a free one.

    Raises:
        OSError: the port is taken.
    """

    def __init__(
        self,
        webhooks: Mapping[str, str],
        token: str = "simulator",  # noqa: S107  nothing is behind a simulator
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._outbox = Outbox(webhooks, token, {twilio.DIALECT: twilio.webhook})
        self.carrier = Carrier(self._outbox)
        app = make_app(self.carrier, token)
        try:
            self._server = make_server(host, port, app, threaded=True, request_handler=_Handler)
        except BaseException:
            self._outbox.close()
            raise
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        self.url = f"http://{host}:{self._server.port}"

    def serve_forever(self) -> None:
        """Serve in this thread, until it is interrupted."""
        try:
            self._server.serve_forever()
        finally:
            self._outbox.close()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._outbox.close()


def serve(
    webhooks: Mapping[str, str],
    token: str = "simulator",  # noqa: S107  nothing is behind a simulator
    *,
    host: str = "127.0.0.1",
    port: int = 0,
) -> None:
    """Run a simulator until it is interrupted, and print where it serves."""
    simulator = Simulator(webhooks, token, host=host, port=port)
    print(f"carrier simulator on {simulator.url}", flush=True)
    simulator.serve_forever()
