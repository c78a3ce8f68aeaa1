"""Health checks for load balancers and supervisors: ``/healthz`` and ``/readyz``."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from flask import Blueprint, Response

from smsqueue.exc import QueueUnavailable
from smsqueue.gateway import Gateway
from smsqueue.ledger import RedisMisconfigured
from smsqueue.providers.base.webhook_blueprints import text_response

__all__ = ["health"]

#: Seconds for which ``/readyz`` returns a cached result.
CACHED_FOR = 1.0
#: Seconds for which it returns a cached result while another request checks.
STALE_AFTER = 5.0


def health(gateway: Gateway) -> Blueprint:
    """``/healthz``: does this process respond? ``/readyz``: can it record a webhook now?

    Only ``/readyz`` checks Redis: restarting this process does not help when Redis is down.
    """
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/healthz")
    def healthz() -> Response:
        return text_response(200, "ok")

    readiness = _Readiness(gateway)

    @blueprint.get("/readyz")
    def readyz() -> Response:
        result = readiness.now()
        return text_response(result.http_status, result.text)

    return blueprint


class _Result(NamedTuple):
    http_status: int
    text: str


class _Readiness:
    """Checks once a second, by one request at a time, whether a webhook can be recorded.

    So requests for ``/readyz`` occupy only one thread while Redis does not answer.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._checking = threading.Lock()
        self._last: _Result | None = None
        self._checked_at = 0.0

    def now(self) -> _Result:
        """The current result, or a recent one."""
        if (last := self._recent(CACHED_FOR)) is not None:
            return last
        if not self._checking.acquire(blocking=False):
            # Another request checks.
            return self._recent(STALE_AFTER) or _Result(503, "not ready: Redis is being checked")
        try:
            # Another request may have checked since.
            if (last := self._recent(CACHED_FOR)) is not None:
                return last
            last = self._check()
            self._last, self._checked_at = last, time.monotonic()
            return last
        finally:
            self._checking.release()

    def _recent(self, seconds: float) -> _Result | None:
        return self._last if time.monotonic() - self._checked_at < seconds else None

    def _check(self) -> _Result:
        try:
            self._gateway.ping()
            problem = "" if self._gateway.eager else _memory_problem(self._gateway)
        except RedisMisconfigured as error:
            # Without the address of Redis: this page is public.
            return _Result(503, f"not ready: Redis {error.reason}")
        except QueueUnavailable as error:
            return _Result(503, f"not ready: {type(error.__cause__ or error).__name__}")
        # Not 503: reports of accepted messages are still recorded.
        return _Result(200, f"ready, but {problem}" if problem else "ready")


def _memory_problem(gateway: Gateway) -> str:
    """What is refused for lack of memory, now or soon; "" if nothing. Names no provider."""
    room = gateway.ledger.room()
    if room.refuses:
        return "Redis is nearly full: new messages are refused, and webhooks"
    if room.nearly_refuses:
        return "Redis is nearly full: webhooks are refused, and new messages soon will be"
    if room.refuses_webhooks:
        return "Redis is nearly full: webhooks are refused"
    refused = sum(webhooks.refused for webhooks in room.webhooks)
    if refused:
        providers = "1 provider" if refused == 1 else f"{refused} providers"
        return f"webhooks of {providers} are refused: they hold too much (SMSQUEUE_WEBHOOK_QUOTA)"
    return ""
