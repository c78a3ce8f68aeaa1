"""The application in real server processes: responses and logs."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import requests

from tests.receivers.plugin import HELLO, NUMBER, PREFIX, QUERY, TEXT
from tests.receivers.server import RECEIVERS, SERVERS, Start, address_of

LIMIT = 256 * 1024


def raw(address: str, request: bytes) -> bytes:
    """Send bytes that no client library would, return all that comes back."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except ConnectionResetError:  # it did not read all that we sent
            pass
        return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_answers_and_keeps_quiet(start: Start, name: str) -> None:
    server = start(SERVERS[name])
    address = address_of(server)
    hook = f"{address}/{PREFIX}/main"
    with requests.Session() as http:
        assert http.get(f"{address}/healthz").text == "ok\n"
        assert http.get(f"{address}/readyz").text == "ready\n"
        assert http.post(f"{hook}/im", json=HELLO).text == "taken"
        assert http.get(f"{hook}/status{QUERY}").text == "taken"
        assert http.post(f"{hook}/im{QUERY}", data=b"{").status_code == 400
        wrong = {"X-Key": "no"}
        assert http.post(f"{hook}/im{QUERY}", json=HELLO, headers=wrong).status_code == 403
        assert http.post(f"{hook}/crash{QUERY}", json=HELLO).status_code == 500
        assert http.post(f"{hook}/nothing{QUERY}", json=HELLO).status_code == 500
        assert http.get(f"{address}/{PREFIX}{QUERY}").status_code == 404
        assert http.get(f"{hook}/im{QUERY}").status_code == 405
        # Chunked, as a generator's length is not known.
        exactly = (b"x" * 1024 for _ in range(LIMIT // 1024))
        assert http.post(f"{hook}/blind", data=exactly).status_code == 200

    post = f"POST /{PREFIX}/main/blind{QUERY} HTTP/1.1\r\nHost: x\r\n".encode()
    chunked = post + b"Transfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    assert status_of(raw(address, chunked + 4 * chunk + b"1\r\nx\r\n0\r\n\r\n")) == 413
    assert status_of(raw(address, post + f"Content-Length: {LIMIT + 1}\r\n\r\n".encode())) == 413
    # Broken off, not chunks, no request at all, spaces in the address.
    cut = raw(address, post + b"Content-Length: 9\r\n\r\nhalf")
    assert cut == b"" if name.startswith("receivers") else status_of(cut) == 400
    assert status_of(raw(address, chunked + TEXT.encode() + b"\r\n")) == 400
    raw(address, f"{TEXT} {NUMBER}\r\n\r\n".encode())
    raw(address, f"GET /{PREFIX}/main/status?text={TEXT} {NUMBER} HTTP/1.1\r\n\r\n".encode())
    raw(address, f"GET /{PREFIX}/main/status HTTP/1.1\r\n{TEXT} {NUMBER}\r\n\r\n".encode())

    printed = server.end()
    for route in ("POST main/im 403", "GET - 404"):
        assert f"smsqueue.access: {route}" in printed
    assert ("DEBUG smsqueue.access: POST main/im 200" in printed) is ("debug" in name)
    for secret in (PREFIX, NUMBER, TEXT, "Traceback"):
        assert secret not in printed


EMPTY = """
def app(environ, start_response):
    start_response("204 No Content", [])
    return []
"""


def test_a_connection_is_kept_after_an_answer_without_a_body(start: Start, tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text(EMPTY)
    address = address_of(start((*RECEIVERS, "empty:app")))
    post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n%s\r\nhi"
    answers = raw(address, post % b"" + post % b"Connection: close\r\n" + post % b"")
    first, second, rest = answers.split(b"\r\n\r\n")
    assert (status_of(first), status_of(second), rest) == (204, 204, b"")
    assert (b"close" in first, b"Connection: close" in second) == (False, True)


def test_a_killed_worker_logs_no_request(start: Start) -> None:
    server = start(SERVERS["gunicorn sync"])
    address = address_of(server)
    body = f'{{"from": "{NUMBER}", "text": "hang"}}'.encode()
    head = f"POST /{PREFIX}/main/im{QUERY} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n"
    raw(address, head.encode() + body)  # until its time is over
    server.wait_for("WORKER TIMEOUT")
    server.wait_for("Booting worker")
    assert requests.get(f"{address}/healthz", timeout=60).status_code == 200
    printed = server.end()
    assert "Error handling request: SystemExit" in printed
    for secret in (PREFIX, NUMBER, TEXT):
        assert secret not in printed


@pytest.mark.parametrize("name", ["receivers", "gunicorn sync", "flask run"])
@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("SMSQUEUE_GATEWAY", "SMSQUEUE_GATEWAY is not set: set it to"),
        ("SMSQUEUE_RECEIVER_PREFIX", "SMSQUEUE_RECEIVER_PREFIX is not set: webhooks are"),
    ],
)
def test_a_server_without_its_settings_says_so_and_ends(
    start: Start, name: str, variable: str, said: str
) -> None:
    server = start(SERVERS[name], **{variable: ""})
    assert server.process.wait(timeout=60) != 0
    printed = server.end()
    assert said in printed
    if name == "flask run":
        assert printed.startswith(f"Error: {said}")
