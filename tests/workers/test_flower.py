"""What Flower shows of messages, asked of its own HTTP API."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smsqueue import Gateway, OutgoingMessage, Settings
from smsqueue.message.states import State
from tests.conftest import RedisServer
from tests.workers.conftest import Ask

GATEWAY = """
from smsqueue import Gateway, IProvider, RetryPolicy, exc

class Moody(IProvider):
    def send(self, message):
        match message.body:
            case "good text":
                message.msgid = "m-1"
                return message
            case "bad text":
                raise exc.RequestError("15557654321 is bad text", code="bad-number")
            case "busy text" if message.reference.endswith(".1"):
                raise exc.ServerError("busy text")
            case "lost text":
                raise exc.ConnectionError("lost text", ambiguous=True)
        message.msgid = "m-2"
        return message

gateway = Gateway(retry=RetryPolicy(base=0.01, cap=0.01))
gateway.add_provider("moody", Moody)
"""


def test_one_row_a_message_with_its_state_and_nothing_personal(
    gateway: Gateway,
    start_worker: Callable[..., Any],
    flower: Ask,
    until: Callable[..., None],
) -> None:
    start_worker(GATEWAY)
    until(lambda: flower("/api/tasks") is not None)
    until(lambda: flower("/api/workers?refresh=1"))
    ids = {
        word: gateway.send(OutgoingMessage("15557654321", f"{word} text")).id or ""
        for word in ("good", "bad", "busy", "lost")
    }
    until(lambda: gateway.lookup(ids["lost"]).state == State.UNKNOWN)
    until(lambda: gateway.lookup(ids["busy"]).state == State.SENT)
    expected = {"good": "SUCCESS", "bad": "FAILURE", "busy": "SUCCESS", "lost": "RETRY"}

    def task_result() -> dict[str, str]:
        tasks = flower("/api/tasks") or {}
        return {word: tasks[id]["state"] for word, id in ids.items() if id in tasks}

    until(lambda: task_result() == expected)
    tasks = flower("/api/tasks")
    rows = {word: tasks[id] for word, id in ids.items()}
    assert rows["busy"]["retries"] == 1
    assert "ConnectionError" in rows["lost"]["exception"]
    assert "RequestError" in rows["bad"]["exception"]
    everything = json.dumps(tasks)
    assert "15557654321" not in everything
    assert " text" not in everything


@pytest.mark.parametrize("state", ["undelivered", "expired"])
def test_a_message_that_did_not_arrive_is_no_success(
    gateway: Gateway,
    start_worker: Callable[..., Any],
    flower: Ask,
    until: Callable[..., None],
    state: str,
) -> None:
    start_worker(GATEWAY)
    until(lambda: flower("/api/workers?refresh=1"))
    lost = gateway.send(OutgoingMessage("15557654321", "lost text")).id or ""
    until(lambda: (flower("/api/tasks") or {}).get(lost, {}).get("state") == "RETRY")
    gateway.settle(lost, state)
    until(lambda: flower("/api/tasks")[lost]["state"] in ("SUCCESS", "FAILURE"))
    row = flower("/api/tasks")[lost]
    assert (row["state"], state in row["exception"]) == ("FAILURE", True)


def test_flower_reads_a_redis_at_a_unix_socket(
    redis_server: Callable[..., RedisServer],
    start_flower: Callable[[str, str], Ask],
    until: Callable[..., None],
    tmp_path: Path,
) -> None:
    path = tmp_path / "redis.sock"
    redis_server("--unixsocket", str(path))
    settings = Settings(redis_url=f"unix://{path}", namespace="shop")
    flower = start_flower(settings.redis_url, settings.namespace)
    with Gateway(settings) as gateway:
        gateway.send_many([OutgoingMessage("15557654321", "hi") for _ in range(3)])
        until(lambda: flower("/api/queues/length") is not None)
        lengths = flower("/api/queues/length")["active_queues"]
        assert {"name": "shop.send", "messages": 3} in lengths
