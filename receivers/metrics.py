"""``/metrics`` for Prometheus, protected by a token."""

from __future__ import annotations

from flask import Blueprint, Response

from receivers.bearer_token import has_token, token_of
from smsqueue.exc import QueueUnavailable
from smsqueue.gateway import Gateway
from smsqueue.providers.base.webhook_blueprints import log_access, text_response
from smsqueue.settings import Settings, SettingsError

__all__ = ["metrics"]


def metrics(gateway: Gateway, settings: Settings) -> Blueprint | None:
    """The page as a blueprint; None without a token, or for an eager gateway.

    Raises:
        SettingsError: there is a token, but prometheus_client is not installed.
    """
    token = token_of(settings)
    if not token or gateway.eager:
        return None
    try:
        from smsqueue.operation.metrics import CONTENT_TYPE, scrape
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        raise SettingsError(
            "SMSQUEUE_METRICS_TOKEN is set, but prometheus_client is not installed: "
            "pip install 'smsqueue-gateway[receivers]'"
        ) from None
    blueprint = Blueprint("metrics", __name__)

    @blueprint.get("/metrics")
    def page() -> Response:
        if not has_token(token):
            refused = text_response(401, "unauthorized")
            refused.headers["WWW-Authenticate"] = 'Bearer realm="metrics"'
            return log_access("metrics", refused)
        try:
            return Response(scrape(gateway.ledger), content_type=CONTENT_TYPE)
        except QueueUnavailable as error:
            away = f"not available: {type(error.__cause__ or error).__name__}"
            return log_access("metrics", text_response(503, away))

    return blueprint
