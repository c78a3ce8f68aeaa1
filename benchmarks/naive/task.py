"""A plain Celery task that sends, as Celery's manual recommends it: retried, acknowledged late.

``celery -A benchmarks.naive.task worker`` runs it.
"""

from __future__ import annotations

import os
from typing import Any

import requests
from celery import Celery

__all__ = ["TASK", "VISIBILITY", "make_app"]

TASK = "naive.send_sms"
#: Seconds after which the broker gives the tasks of a dead worker to another one. Celery's default
#: is an hour, for which such messages would lie.
VISIBILITY = 10


def make_app(broker: str) -> Celery:
    """An application with the one task."""
    app = Celery("naive", broker=broker, set_as_current=False)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "visibility_timeout": VISIBILITY,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
        },
        task_ignore_result=True,
        worker_prefetch_multiplier=1,
    )

    def send_sms(self: Any, id: str, number: str, text: str) -> Any:
        asked = {"reference": f"{id}.{self.request.retries + 1}", "to": number, "text": text}
        url = os.environ["CHAOS_STUB"]
        answer = requests.post(f"{url}/a/messages", json=asked, timeout=(5, 20))
        answer.raise_for_status()
        return answer.json()["id"]

    app.task(
        bind=True,
        name=TASK,
        acks_late=True,
        reject_on_worker_lost=True,
        autoretry_for=(requests.RequestException,),
        retry_backoff=True,
        retry_backoff_max=2,
        max_retries=25,
        shared=False,
    )(send_sms)
    return app


def __getattr__(name: str) -> object:
    """``app`` is what ``-A`` finds."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["app"] = make_app(os.environ["NAIVE_BROKER"])
    return globals()["app"]
