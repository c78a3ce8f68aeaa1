"""What load balancers and supervisors ask."""

from __future__ import annotations

from flask import Blueprint, Response

from smsqueue.exc import QueueUnavailable
from smsqueue.gateway import Gateway
from smsqueue.ledger import RedisMisconfigured
from smsqueue.providers.webhook import answer

__all__ = ["health"]


def health(gateway: Gateway) -> Blueprint:
    """``/healthz``: does this process answer? ``/readyz``: can it record a webhook now?

    Only the latter asks Redis: a process that is restarted because Redis is away heals nothing.
    """
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/healthz")
    def healthz() -> Response:
        return answer(200, "ok")

    @blueprint.get("/readyz")
    def readyz() -> Response:
        try:
            gateway.ping()
            refuses = not gateway.eager and gateway.ledger.room().refuses
        except RedisMisconfigured as error:
            # The address of Redis is nobody's business who asks here.
            return answer(503, f"not ready: Redis {error.reason}")
        except QueueUnavailable as error:
            return answer(503, f"not ready: {type(error.__cause__ or error).__name__}")
        # Not 503: delivery reports are recorded all the same.
        return answer(
            200, "ready, but Redis is nearly full: new messages are refused" if refuses else "ready"
        )

    return blueprint
