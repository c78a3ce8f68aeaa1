"""The Flask application that receives the providers' webhooks.

    gunicorn --config python:receivers.server          flask --app receivers run

Importing this package loads no gateway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from smsqueue.gateway import Gateway
    from smsqueue.settings import Settings

__all__ = ["create_app"]


def create_app(settings: Settings | None = None, gateway: Gateway | None = None) -> Flask:
    """Create the application: ``/<prefix>/<provider>/...``, ``/healthz`` and ``/readyz``.

    Args:
        settings: By default the gateway's own.
        gateway: By default the one that SMSQUEUE_GATEWAY names.

    Raises:
        LoaderError: there is no gateway.
        SettingsError: a setting is invalid, or there is no secret URL prefix.
    """
    from receivers.application import build_app

    return build_app(settings, gateway)
