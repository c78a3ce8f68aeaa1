"""The Celery application: ``celery -A workers worker``.

``workers.app`` is made at first use and loads no gateway, so that Flower and
``celery inspect`` need no secrets; a worker loads it when it boots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery import Celery

    app: Celery

__all__ = ["app"]


def __getattr__(name: str) -> object:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from workers.wiring import create_worker

    globals()["app"] = create_worker()
    return globals()["app"]
