"""A shop in a database of its own, whose gateway is caught: no Redis, no worker, no provider."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from shop import create_app
from smsqueue.testing import Outbox, capture


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    return create_app({"DATABASE": str(tmp_path / "shop.sqlite3"), "SECRET_KEY": "secret"})


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def outbox(app: Flask) -> Iterator[Outbox]:
    with capture(app.extensions["sms"]) as outbox:
        yield outbox
