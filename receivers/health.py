"""What load balancers and supervisors ask."""

from __future__ import annotations

import threading
import time

from flask import Blueprint, Response

from smsqueue.exc import QueueUnavailable
from smsqueue.gateway import Gateway
from smsqueue.ledger import RedisMisconfigured
from smsqueue.providers.base.webhook_blueprints import text_response

__all__ = ["health"]

#: Seconds for which an answer of ``/readyz`` is given again without asking Redis.
CACHED_FOR = 1.0
#: Seconds for which it is given while another request is asking.
STALE_AFTER = 5.0


def health(gateway: Gateway) -> Blueprint:
    """``/healthz``: does this process answer? ``/readyz``: can it record a webhook now?

    Only the latter asks Redis: a process that is restarted because Redis is away heals nothing.
    """
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/healthz")
    def healthz() -> Response:
        return text_response(200, "ok")

    readiness = _Readiness(gateway)

    @blueprint.get("/readyz")
    def readyz() -> Response:
        return text_response(*readiness.now())

    return blueprint


class _Readiness:
    """Can a webhook be recorded? Redis is asked once a second, by one request at a time.

    So requests for ``/readyz``, however many, occupy one thread while Redis is frozen.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._asking = threading.Lock()
        self._last: tuple[int, str] | None = None
        self._at = 0.0

    def now(self) -> tuple[int, str]:
        """HTTP status and text."""
        if (last := self._recent(CACHED_FOR)) is not None:
            return last
        if not self._asking.acquire(blocking=False):
            # Another request asks: what was known before, if that is not long ago.
            return self._recent(STALE_AFTER) or (503, "not ready: Redis is being asked")
        try:
            # Another request may have asked since.
            if (last := self._recent(CACHED_FOR)) is not None:
                return last
            last = self._ask()
            self._last, self._at = last, time.monotonic()
            return last
        finally:
            self._asking.release()

    def _recent(self, seconds: float) -> tuple[int, str] | None:
        return self._last if time.monotonic() - self._at < seconds else None

    def _ask(self) -> tuple[int, str]:
        try:
            self._gateway.ping()
            trouble = "" if self._gateway.eager else _trouble(self._gateway)
        except RedisMisconfigured as error:
            # The address of Redis is nobody's business who asks here.
            return 503, f"not ready: Redis {error.reason}"
        except QueueUnavailable as error:
            return 503, f"not ready: {type(error.__cause__ or error).__name__}"
        # Not 503: reports of accepted messages are recorded all the same.
        return 200, f"ready, but {trouble}" if trouble else "ready"


def _trouble(gateway: Gateway) -> str:
    """What is refused, or soon will be, in words; "": nothing. It names no provider."""
    room = gateway.ledger.room()
    if room.refuses:
        return "Redis is nearly full: new messages are refused, and webhooks"
    if room.nearly_refuses:
        return "Redis is nearly full: webhooks are refused, and new messages soon will be"
    if room.refuses_webhooks:
        return "Redis is nearly full: webhooks are refused"
    refused = sum(found.refused for found in room.webhooks)
    if refused:
        providers = "1 provider" if refused == 1 else f"{refused} providers"
        return f"webhooks of {providers} are refused: they hold too much (SMSQUEUE_WEBHOOK_QUOTA)"
    return ""
