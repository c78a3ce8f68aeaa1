"""The bare webhook: a Flask view that does one LPUSH."""

from __future__ import annotations

import json
import os

import redis
from flask import Flask, request

__all__ = ["create_app"]


def create_app() -> Flask:
    """The application, for gunicorn."""
    app = Flask("bare")
    client = redis.Redis.from_url(os.environ["SMSQUEUE_REDIS_URL"])

    @app.post("/im")
    def im() -> tuple[str, int]:
        client.lpush("bare", json.dumps(request.get_json()))
        return "", 200

    return app
