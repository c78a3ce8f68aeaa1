"""FastAPI: sending in a thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smsqueue import Gateway, State

PLACE = """
from fastapi.testclient import TestClient
from shop.api import app
with TestClient(app) as client:
    answer = client.post("/orders", json={"number": "+1 555 0001", "name": "A7"})
    print(answer.status_code, *answer.json().values())
"""

ASK = """
import sys
from fastapi.testclient import TestClient
from shop.api import app
with TestClient(app) as client:
    print(client.get(f"/messages/{sys.argv[1]}").json())
"""


def test_an_order_is_told_by_a_worker(
    gateway: Gateway, recipe: Callable[..., Any], until: Callable[..., None]
) -> None:
    fastapi = recipe("FastAPI")
    fastapi.environment["SMSQUEUE_GATEWAY"] = "shop.sms:gateway"
    status, id = fastapi.run("-c", PLACE).split()
    assert status == "202"
    fastapi.start("worker", " ready.", "celery", "-A", "workers", "worker", "-l", "INFO")
    until(lambda: gateway.lookup(id).state == State.SENT)
    assert fastapi.run("-c", ASK, id).strip() == "{'state': 'sent', 'attempts': 1}"


def test_the_tests_that_the_page_shows_pass_without_redis(recipe: Callable[..., Any]) -> None:
    fastapi = recipe("FastAPI")
    options = ("-q", "-p", "no:cacheprovider")
    nowhere = {"SMSQUEUE_REDIS_URL": "redis://127.0.0.1:1/0"}
    told = fastapi.run("-m", "pytest", *options, **nowhere)
    assert "2 passed" in told
