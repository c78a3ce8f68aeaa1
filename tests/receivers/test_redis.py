"""The receivers while Redis is down, hanging, back, or empty."""

from __future__ import annotations

import re
import signal
import threading
import time

import pytest
import requests

from receivers import create_app
from smsqueue.gateway import Gateway
from smsqueue.settings import Settings
from tests.conftest import free_port
from tests.receivers.plugin import HELLO, NUMBER, PREFIX, QUERY, TEXT
from tests.receivers.server import SERVERS, Start, address_of, redis_command


@pytest.mark.parametrize("name", ["receivers", "flask run"])
def test_redis_away_slow_and_back(start: Start, name: str) -> None:
    port = free_port()
    redis_url = f"redis://127.0.0.1:{port}/0"
    server = start(SERVERS[name], SMSQUEUE_EAGER="0", SMSQUEUE_REDIS_URL=redis_url)
    address = address_of(server)

    def answers() -> tuple[int, int, int]:
        """Of a webhook, and of the two health checks; bounded whatever Redis does."""
        hook = requests.post(f"{address}/{PREFIX}/main/im{QUERY}", json=HELLO, timeout=10)
        if hook.status_code == 503:
            assert "Retry-After" in hook.headers
        # Its answer is kept for a second; a moment later it is that of the webhook.
        deadline = time.monotonic() + 60
        expected = 503 if hook.status_code == 503 else 200
        while (ready := requests.get(f"{address}/readyz", timeout=10)).status_code != expected:
            assert time.monotonic() < deadline, ready.text
            time.sleep(0.05)
        return hook.status_code, ready.status_code, requests.get(f"{address}/healthz").status_code

    away, there = (503, 503, 200), (200, 200, 200)
    assert answers() == away
    redis = start(redis_command(port))
    redis.wait_for("[Rr]eady to accept")
    assert answers() == there
    redis.process.send_signal(signal.SIGSTOP)
    assert answers() == away
    redis.process.send_signal(signal.SIGCONT)
    assert answers() == there
    redis.end(signal.SIGKILL)
    assert answers() == away
    start(redis_command(port)).wait_for("[Rr]eady to accept")
    assert answers() == there

    printed = server.end()
    assert "Redis does not answer" in printed
    assert "webhook of main not recorded: QueueUnavailable" in printed
    for secret in (PREFIX, NUMBER, TEXT, "Traceback"):
        assert secret not in printed


@pytest.mark.parametrize(("aof", "warned"), [("no", True), ("yes", False)])
def test_redis_that_would_forget_is_a_warning(start: Start, aof: str, warned: bool) -> None:
    port = free_port()
    start(redis_command(port, "--appendonly", aof)).wait_for("[Rr]eady to accept")
    redis_url = f"redis://127.0.0.1:{port}/0"
    server = start(SERVERS["receivers"], SMSQUEUE_EAGER="0", SMSQUEUE_REDIS_URL=redis_url)
    assert requests.get(f"{address_of(server)}/readyz", timeout=60).status_code == 200
    warning = re.search("(?i)WARNING smsqueue.receivers: .*(aof|appendonly)", server.end())
    assert (warning is not None) is warned


def test_a_frozen_redis_occupies_one_request_however_many_ask_if_it_is_ready(start: Start) -> None:
    port = free_port()
    redis = start(redis_command(port))
    redis.wait_for("[Rr]eady to accept")
    asked: list[None] = []

    class Counting(Gateway):
        def ping(self) -> None:
            asked.append(None)
            super().ping()

    settings = Settings(redis_url=f"redis://127.0.0.1:{port}/0", receiver_prefix=PREFIX)
    with Counting(settings) as gateway:
        app = create_app(gateway=gateway)
        assert app.test_client().get("/readyz").text == "ready\n"
        redis.process.send_signal(signal.SIGSTOP)
        try:
            asked.clear()
            answers: list[int] = []
            threads = [
                threading.Thread(
                    target=lambda: answers.append(app.test_client().get("/readyz").status_code)
                )
                for _ in range(30)
            ]
            deadline = time.monotonic() + 60
            while app.test_client().get("/readyz").status_code == 200:  # kept for a second
                assert time.monotonic() < deadline
                time.sleep(0.05)
            for thread in threads:
                thread.start()
            assert app.test_client().get("/healthz").status_code == 200
            for thread in threads:
                thread.join()
        finally:
            redis.process.send_signal(signal.SIGCONT)
        assert answers == [503] * 30
        assert len(asked) <= 5  # each takes a second, of a thread that answers webhooks else
