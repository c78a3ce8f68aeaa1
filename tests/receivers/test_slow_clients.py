"""The documented command of the receivers, with slow clients."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.receivers.plugin import HELLO, NUMBER, PREFIX
from tests.receivers.server import RECEIVERS, SERVERS, Start, address_of
from tests.receivers.slow_clients import SlowClients, call, p99, webhook

HOOK = webhook(f"/{PREFIX}/main/im", **HELLO)
#: Seconds for one webhook on a machine that is busy with other things.
LONGEST = 10.0
#: make slow-clients measures longer, and against the figure that the documentation states.
SECONDS = float(os.environ.get("SLOW_CLIENTS_SECONDS", "0"))

PATIENT = """
import pathlib, time
from smsqueue.gateway import Gateway
from tests.receivers.plugin import PluginProvider
gateway = Gateway()
gateway.add_provider("main", PluginProvider)
def wait(message):
    pathlib.Path("began").touch()
    while not pathlib.Path("may-end").exists():
        time.sleep(0.01)
gateway.onReceive += wait
"""


@pytest.mark.parametrize("count", [500])
def test_slow_clients_do_not_stop_webhooks(start: Start, count: int) -> None:
    url = address_of(start(RECEIVERS))
    assert call(url, HOOK, 60)[0] == 200  # it serves before they come
    with SlowClients(url, count):
        answers = [call(url, HOOK, LONGEST) for _ in range(50)]
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            answers.append(call(url, HOOK, LONGEST))
        assert [status for status, _ in answers] == [200] * len(answers)
        if SECONDS:
            assert p99([seconds for _, seconds in answers]) < 1.0


def test_a_client_that_sends_byte_by_byte_is_closed(start: Start) -> None:
    url = address_of(start((*RECEIVERS, "--timeout", "4")))
    with SlowClients(url, 40, pause=0.2) as slow:
        assert call(url, HOOK, LONGEST)[0] == 200
        deadline = time.monotonic() + 60
        while slow.closed() < 40:
            assert time.monotonic() < deadline, f"{slow.closed()} of 40 are closed"
            time.sleep(0.1)
        assert call(url, HOOK, LONGEST)[0] == 200


def test_a_client_that_reads_no_answers_to_very_many_requests_is_closed(start: Start) -> None:
    url = address_of(start(RECEIVERS))
    greedy = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * 1000
    with SlowClients(url, 1) as slow:
        slow.add(greedy)
        deadline = time.monotonic() + 60
        while slow.closed() < 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert call(url, HOOK, LONGEST)[0] == 200


def test_when_there_are_too_many_connections_the_slowest_are_closed(start: Start) -> None:
    url = address_of(start((*RECEIVERS, "--worker-connections", "30", "--timeout", "300")))
    with SlowClients(url, 200) as slow:
        assert [call(url, HOOK, LONGEST)[0] for _ in range(20)] == [200] * 20
        deadline = time.monotonic() + 60
        while slow.closed() < 150:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_sigterm_lets_a_webhook_finish_and_does_not_wait_for_slow_clients(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "patient_sms.py").write_text(PATIENT)
    server = start(RECEIVERS, SMSQUEUE_GATEWAY="patient_sms:gateway")
    url = address_of(server)
    assert call(url, b"GET /healthz HTTP/1.0\r\n\r\n", 60)[0] == 200
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(call(url, HOOK, 60)[0]))
    with SlowClients(url, 20):
        thread.start()
        deadline = time.monotonic() + 60
        while not (tmp_path / "began").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("Handling signal: term")
        assert answers == []
        (tmp_path / "may-end").touch()
        thread.join()
        assert answers == [200]
        # gunicorn's --graceful-timeout is 30 s: then it would kill the process.
        assert server.process.wait(timeout=60) == 0
    printed = server.end()
    assert "SIGKILL" not in printed
    assert NUMBER not in printed


@pytest.mark.parametrize(
    ("name", "kind"), [("gunicorn sync", "sync"), ("gunicorn threads", "gthread")]
)
def test_gunicorns_own_worker_types_are_warned_of(start: Start, name: str, kind: str) -> None:
    server = start(SERVERS[name])
    server.wait_for(
        f"WARNING.* worker type {kind} waits .*gunicorn --config python:receivers.server"
    )


def test_the_documented_command_is_not_warned_of(start: Start) -> None:
    server = start(RECEIVERS)
    assert call(address_of(server), b"GET /healthz HTTP/1.0\r\n\r\n", 60)[0] == 200
    assert "worker type" not in server.end()
