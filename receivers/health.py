"""Health checks for load balancers and supervisors: ``/healthz`` and ``/readyz``."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from flask import Blueprint, Response

from receivers.bearer_token import has_token, token_of
from smsqueue.exc import QueueUnavailable
from smsqueue.gateway import Gateway
from smsqueue.ledger import Ledger, RedisMisconfigured
from smsqueue.providers.base.webhook_blueprints import text_response
from smsqueue.settings import Settings

__all__ = ["health"]

#: Seconds for which ``/readyz`` returns a cached result.
CACHED_FOR = 1.0
#: Seconds for which it returns a cached result while another request checks.
STALE_AFTER = 5.0


def health(gateway: Gateway, settings: Settings) -> Blueprint:
    """``/healthz``: does this process respond? ``/readyz``: can it record a webhook now?

    Only ``/readyz`` checks Redis: restarting this process does not help when Redis is down. It is
    public, so it describes Redis only to requests with the token of ``/metrics``.
    """
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/healthz")
    def healthz() -> Response:
        return text_response(200, "ok")

    token = token_of(settings)
    readiness = _Readiness(gateway, detailed=bool(token))

    @blueprint.get("/readyz")
    def readyz() -> Response:
        result = readiness.now()
        lines = (result.text, *result.details) if has_token(token) else (result.text,)
        return text_response(result.http_status, "\n".join(lines))

    return blueprint


class _Result(NamedTuple):
    http_status: int
    #: For everybody.
    text: str
    #: Lines about Redis, for operators.
    details: tuple[str, ...] = ()


class _Readiness:
    """Checks once a second, by one request at a time, whether a webhook can be recorded.

    So requests for ``/readyz`` occupy only one thread while Redis does not answer.

    Args:
        detailed: Describe Redis, too.
    """

    def __init__(self, gateway: Gateway, *, detailed: bool) -> None:
        self._gateway = gateway
        self._detailed = detailed and not gateway.eager
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
            details = tuple(_describe_server(self._gateway.ledger)) if self._detailed else ()
        except RedisMisconfigured as error:
            return _Result(503, "not ready: Redis cannot be used as it is", (str(error),))
        except QueueUnavailable as error:
            return _Result(503, f"not ready: {type(error.__cause__ or error).__name__}")
        # Not 503: reports of accepted messages are still recorded.
        return _Result(200, f"ready, but {problem}" if problem else "ready", details)


def _describe_server(ledger: Ledger) -> Iterator[str]:
    server = ledger.server(configuration=True)
    yield str(server)
    for risk in server.risks(ledger.settings):
        yield f"{risk.level}: {risk}"


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
