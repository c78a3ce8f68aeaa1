"""The HTTP application that takes the providers' webhooks.

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
    """Make the application: ``/<prefix>/<provider>/...``, ``/healthz`` and ``/readyz``.

    Args:
        settings: The gateway's own if not given.
        gateway: The one that SMSQUEUE_GATEWAY names if not given.

    Raises:
        LoaderError: there is no gateway.
        SettingsError: there is no prefix to hide the webhooks under.
    """
    from receivers.wiring import make_app

    return make_app(settings, gateway)
