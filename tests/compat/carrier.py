"""A carrier's HTTP server that is also a proxy: plugins reach it whatever host they call.

It gives the planned answers in order, whichever host a request was for.
"""

from __future__ import annotations

import json
import ssl
import threading
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import trustme

#: Instead of an answer: close the connection without one.
HANG_UP = "hang up"


@dataclass
class CarrierRequest:
    """A request that the carrier received."""

    method: str
    url: str
    headers: Message
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode("latin-1"), encoding="latin-1"))

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """A response of the carrier."""

    body: str = ""
    status: int = 200
    type: str = "application/json"
    location: str = ""


class Carrier:
    """The server, and the requests that it has received."""

    def __init__(self, folder: Path) -> None:
        self.requests: list[CarrierRequest] = []
        self._answers: list[Answer | str] = []
        self._authority = trustme.CA()
        self.certificates = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.certificates))
        carrier = self

        class Handler(_Handler):
            owner = carrier

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def then(self, *answers: Answer | str) -> None:
        """Plan the next answers; without a plan it answers 200 without a body."""
        self._answers.extend(answers)

    def answer(self) -> Answer | str:
        return self._answers.pop(0) if self._answers else Answer()

    def tls(self, host: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(host).configure_cert(context)
        return context

    def environment(self) -> dict[str, str]:
        """Variables that lead the usual HTTP libraries here, whatever host they call."""
        proxies = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
        url = f"http://{self.address}"
        return {
            **dict.fromkeys(proxies, url),
            **{"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1", "AWS_MAX_ATTEMPTS": "1"},
            **{"REQUESTS_CA_BUNDLE": str(self.certificates), "AWS_ENDPOINT_URL_SNS": url},
        }


class _Handler(BaseHTTPRequestHandler):
    owner: Carrier
    _tunnel = ""

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_CONNECT(self) -> None:
        """Impersonate the host of the request."""
        self.send_response_only(200)
        self.end_headers()
        host = self.path.partition(":")[0]
        self.connection = self.owner.tls(host).wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")  # type: ignore[assignment]
        self.wfile = self.connection.makefile("wb", 0)  # type: ignore[assignment]
        self._tunnel = f"https://{host}"
        self.handle_one_request()
        self.close_connection = True

    def finish(self) -> None:
        super().finish()
        if self._tunnel:  # the server closes the connection below TLS only
            self.connection.close()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        # Requests to a proxy have a whole URL as their path.
        direct = "" if urlsplit(self.path).netloc else f"http://{self.headers['Host']}"
        url = (self._tunnel or direct) + self.path
        self.owner.requests.append(CarrierRequest("POST", url, self.headers, body))
        answer = self.owner.answer()
        self.close_connection = True
        if not isinstance(answer, Answer):
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.type)
        self.send_header("Content-Length", str(len(answer.body.encode())))
        self.send_header("Connection", "close")
        if answer.location:
            self.send_header("Location", answer.location)
        self.end_headers()
        self.wfile.write(answer.body.encode())
