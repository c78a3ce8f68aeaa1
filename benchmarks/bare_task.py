"""The bare Celery tasks: no ledger, no retries, no records; configured as smsqueue's own.

``celery -A benchmarks.bare_task worker`` runs them.
"""

from __future__ import annotations

import os
from typing import Any

import requests
from celery import Celery
from requests.adapters import HTTPAdapter

from smsqueue.broker.queue import celery_config
from smsqueue.settings import Settings

__all__ = ["make_app"]

#: As many connections as the worker has threads.
CONNECTIONS = 100


def make_app(settings: Settings, *, worker: bool = False) -> Celery:
    """An application with a task that does nothing, and one that posts a message."""
    app = Celery("bare", set_as_current=False)
    app.config_from_object(celery_config(settings, worker=worker))
    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=CONNECTIONS))
    url = os.environ.get("BENCH_STUB", "")

    def nothing(id: str) -> None:
        pass

    def post(number: str, text: str) -> Any:
        answer = session.post(
            f"{url}/messages", json={"to": number, "text": text}, timeout=(5.0, 20.0)
        )
        answer.raise_for_status()
        return answer.json()["id"]

    app.task(name="bare.nothing", shared=False)(nothing)
    app.task(name="bare.post", shared=False)(post)
    return app


def __getattr__(name: str) -> object:
    """``app`` is what ``-A`` finds; nobody else makes it."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["app"] = make_app(Settings(), worker=True)
    return globals()["app"]
