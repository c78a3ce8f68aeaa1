"""Puts the application together."""

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
from smsqueue.logs import get_logger
from smsqueue.providers.base.webhook_blueprints import describe_error, log_access, plain_http_error
from smsqueue.settings import Settings, SettingsError

__all__ = ["make_app"]

_log = get_logger("smsqueue.receivers")


class _App(Flask):
    """Flask, whose own line on an unhandled error would hold the path and the error's text."""

    def log_exception(
        self,
        exc_info: tuple[type, BaseException, TracebackType] | tuple[None, None, None],
    ) -> None:
        _log.error("request failed: %s", describe_error(exc_info[1]) if exc_info[1] else "?")


def make_app(settings: Settings | None, gateway: Gateway | None) -> Flask:
    """See :func:`receivers.create_app`."""
    set_up_logs()
    try:
        gateway = gateway or load_gateway(settings or Settings())
        prefixes = _prefixes(settings or gateway.settings, gateway)
        page = metrics(gateway, settings or gateway.settings)
        _ = gateway.eager or gateway.ledger  # refuses an address that cannot be read
        gateway.receiver_blueprints()  # a provider without its secret refuses to make one
    except (LoaderError, SettingsError) as error:
        if click.get_current_context(silent=True):  # flask run: then it shows no traceback
            raise click.ClickException(str(error)) from None
        if "gunicorn" in os.environ.get("SERVER_SOFTWARE", ""):
            print(f"smsqueue: {error}", file=sys.stderr, flush=True)
            # The status by which gunicorn knows that another worker would fail as well.
            raise SystemExit(3) from None
        raise
    app = _App("receivers", static_folder=None)
    # Nothing may reach the server: its log of an error would hold the request line.
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.config["SMSQUEUE_MAX_WEBHOOK"] = (settings or gateway.settings).max_webhook
    app.register_error_handler(HTTPException, plain_http_error)
    app.after_request(_log_unknown)
    app.register_blueprint(health(gateway))
    if page:
        app.register_blueprint(page)
    for prefix in prefixes:
        gateway.receiver_blueprints_register(app, prefix)
    _warn_of_server()
    _warn(gateway)
    return app


def _prefixes(settings: Settings, gateway: Gateway) -> tuple[str, ...]:
    if not settings.receiver_prefix:
        receiving = [name for name, _ in gateway.receiver_blueprints()]
        if receiving and all(gateway.webhook_access(name).prefixes for name in receiving):
            return ("",)  # nobody is served under it
        raise SettingsError(
            "SMSQUEUE_RECEIVER_PREFIX is not set: webhooks are served under a prefix that "
            "nobody can guess, for example this random one: "
            f"SMSQUEUE_RECEIVER_PREFIX={secrets.token_urlsafe(16)}"
        )
    return settings.receiver_prefix


def _log_unknown(response: Response) -> Any:
    """Webhooks log themselves, and health checks are not worth a line."""
    return log_access("-", response) if request.url_rule is None else response


def _warn_of_server() -> None:
    """Warn of worker types of gunicorn whose threads wait for slow clients."""
    if "gunicorn" not in os.environ.get("SERVER_SOFTWARE", ""):
        return
    for kind in ("sync", "gthread"):
        if f"gunicorn.workers.{kind}" in sys.modules:
            _log.warning(
                "gunicorn's worker type %s waits for slow clients, and then answers no webhooks. "
                "Start the receivers with: gunicorn --config python:receivers.server",
                kind,
            )


def _warn(gateway: Gateway) -> None:
    try:
        gateway.ping()
        for warning in gateway.check():
            _log.warning("%s", warning)
    except RedisMisconfigured as error:
        _log.error("%s: until then, webhooks are answered 503", error)
    except QueueUnavailable as error:
        _log.warning(
            "Redis does not answer (%s): until it does, webhooks are answered 503",
            type(error.__cause__ or error).__name__,
        )
