"""Which webhooks the providers take, and at which addresses."""

from __future__ import annotations

from typing import NamedTuple

from smsqueue.gateway import Gateway
from smsqueue.providers.base import IProvider

__all__ = ["Webhook", "receives", "webhooks"]


class Webhook(NamedTuple):
    """An address that a provider calls."""

    provider: str
    #: Without host and prefix: ``/main/status``.
    path: str
    methods: tuple[str, ...]


def receives(provider: IProvider) -> bool | None:
    """Can a provider receive? None: nobody can tell, ``smsqueue check`` says why."""
    try:
        provider.make_receiver_blueprint()
    except NotImplementedError:
        return False
    except Exception:  # Flask is not installed, or whatever the application's own class raises
        return None
    return True


def webhooks(gateway: Gateway, name: str) -> list[Webhook]:
    """A provider's webhooks; none if it cannot receive.

    Raises:
        ModuleNotFoundError: Flask is not installed, or something that the provider needs.
    """
    from flask import Flask  # only the receivers need it

    app = Flask(__name__, static_folder=None)
    try:
        app.register_blueprint(gateway.receiver_blueprint_for(name), url_prefix=f"/{name}")
    except NotImplementedError:
        return []
    found = []
    for rule in app.url_map.iter_rules():
        methods = sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
        found.append(Webhook(name, rule.rule, tuple(methods)))
    return found
