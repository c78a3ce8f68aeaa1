"""What load balancers and supervisors ask."""

from __future__ import annotations

import threading
import time

from flask import Blueprint, Response

from smsqueue.exc import QueueUnavailable
from smsqueue.gateway import Gateway
from smsqueue.ledger import RedisMisconfigured
from smsqueue.providers.webhook import answer

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
        return answer(200, "ok")

    readiness = _Readiness(gateway)

    @blueprint.get("/readyz")
    def readyz() -> Response:
        return answer(*readiness.now())

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
            refuses = not self._gateway.eager and self._gateway.ledger.room().refuses
        except RedisMisconfigured as error:
            # The address of Redis is nobody's business who asks here.
            return 503, f"not ready: Redis {error.reason}"
        except QueueUnavailable as error:
            return 503, f"not ready: {type(error.__cause__ or error).__name__}"
        # Not 503: delivery reports are recorded all the same.
        if refuses:
            return 200, "ready, but Redis is nearly full: new messages are refused"
        return 200, "ready"
