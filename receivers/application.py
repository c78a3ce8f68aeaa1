"""Builds the application from the gateway, and warns of problems at the start."""

from __future__ import annotations

import os
import secrets
import sys
from types import TracebackType
from typing import Any

import click
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from receivers.health import health
from receivers.logs import set_up_logs
from receivers.metrics import metrics
from smsqueue.configuration.loader import LoaderError, load_gateway
from smsqueue.exc import QueueUnavailable
from smsqueue.gateway import Gateway
from smsqueue.ledger import RedisMisconfigured
from smsqueue.logs import end_process, get_logger
from smsqueue.operation.redis_at_start import log_server
from smsqueue.providers.base.webhook_blueprints import describe_error, log_access, plain_http_error
from smsqueue.settings import Settings, SettingsError

__all__ = ["build_app"]

_log = get_logger("smsqueue.receivers")


class _App(Flask):
    """Flask, without its log of unhandled errors, which shows the path and the error's text."""

    def log_exception(
        self,
        exc_info: tuple[type, BaseException, TracebackType] | tuple[None, None, None],
    ) -> None:
        _log.error("request failed: %s", describe_error(exc_info[1]) if exc_info[1] else "?")


def build_app(settings: Settings | None, gateway: Gateway | None) -> Flask:
    """See :func:`receivers.create_app`."""
    as_json = os.environ.get("SMSQUEUE_LOG") == "json"
    try:
        of_process = settings or (gateway.settings if gateway else Settings())
        as_json = of_process.log == "json"
        set_up_logs(as_json=as_json)
        gateway = gateway or load_gateway(of_process)
        prefixes = _prefixes(settings or gateway.settings, gateway)
        metrics_page = metrics(gateway, settings or gateway.settings)
        _ = gateway.eager or gateway.ledger  # raises if the Redis URL is invalid
        gateway.receiver_blueprints()  # raises if a provider lacks its secret
    except (LoaderError, SettingsError) as error:
        if click.get_current_context(silent=True):  # flask run: shows no traceback then
            raise click.ClickException(str(error)) from None
        if "gunicorn" in os.environ.get("SERVER_SOFTWARE", ""):
            # gunicorn then does not start another worker, which would fail, too.
            end_process(str(error), as_json=as_json, code=3)
        raise
    app = _App("receivers", static_folder=None)
    # No error may reach the server, whose log would show the request line.
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.config["SMSQUEUE_MAX_WEBHOOK"] = (settings or gateway.settings).max_webhook
    app.register_error_handler(HTTPException, plain_http_error)
    app.after_request(_log_unmatched)
    app.register_blueprint(health(gateway, settings or gateway.settings))
    if metrics_page:
        app.register_blueprint(metrics_page)
    for prefix in prefixes:
        gateway.receiver_blueprints_register(app, prefix)
    _warn_about_worker_type()
    _warn_about_gateway(gateway)
    return app


def _prefixes(settings: Settings, gateway: Gateway) -> tuple[str, ...]:
    if not settings.receiver_prefix:
        receivers = [name for name, _ in gateway.receiver_blueprints()]
        if receivers and all(gateway.webhook_access(name).prefixes for name in receivers):
            return ("",)  # all have prefixes of their own
        raise SettingsError(
            "SMSQUEUE_RECEIVER_PREFIX is not set: webhooks are served under a secret prefix, "
            "for example this random one: "
            f"SMSQUEUE_RECEIVER_PREFIX={secrets.token_urlsafe(16)}"
        )
    return settings.receiver_prefix


def _log_unmatched(response: Response) -> Any:
    """Log requests that match no route. Webhooks are logged by their blueprints."""
    return log_access("-", response) if request.url_rule is None else response


def _warn_about_worker_type() -> None:
    """Warn if gunicorn uses a worker type whose threads wait for slow clients."""
    if "gunicorn" not in os.environ.get("SERVER_SOFTWARE", ""):
        return
    for kind in ("sync", "gthread"):
        if f"gunicorn.workers.{kind}" in sys.modules:
            _log.warning(
                "gunicorn's worker type %s waits for slow clients and blocks other webhooks. "
                "Start the receivers with: gunicorn --config python:receivers.server",
                kind,
            )


def _warn_about_gateway(gateway: Gateway) -> None:
    try:
        gateway.ping()
        if not gateway.eager:
            log_server(_log, gateway.ledger)
    except RedisMisconfigured as error:
        _log.error("%s: until then, webhooks are answered 503", error)
    except QueueUnavailable as error:
        _log.warning(
            "Redis does not answer (%s): until it does, webhooks are answered 503",
            type(error.__cause__ or error).__name__,
        )
