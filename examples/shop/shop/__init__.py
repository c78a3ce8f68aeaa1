"""A small shop whose customers log in with a code that comes by SMS."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from flask import Flask

from shop.codes import Codes
from shop.pages import pages
from shop.sms import make_gateway
from smsqueue import Gateway

__all__ = ["create_app", "gateway"]


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """The shop: ``flask --app shop run``, or ``gunicorn 'shop:create_app()'``.

    Args:
        config: Goes before SHOP_* in the environment, which goes before ``shop/config.py``. May
            hold SMSQUEUE_* too.
    """
    app = Flask(__name__)
    app.config.from_object("shop.config")
    app.config.from_prefixed_env("SHOP")
    app.config.from_mapping(config or {})
    logging.basicConfig(level=logging.INFO)
    codes = Codes(app.config["DATABASE"], str(app.config["SECRET_KEY"]))
    app.extensions["codes"] = codes
    app.extensions["sms"] = make_gateway(app.config, codes)
    app.register_blueprint(pages)
    return app


def gateway() -> Gateway:
    """For workers and receivers: ``SMSQUEUE_GATEWAY=shop:gateway``."""
    made: Gateway = create_app().extensions["sms"]
    return made
