"""The bearer token SMSQUEUE_METRICS_TOKEN, which shows operators more than strangers."""

from __future__ import annotations

import hmac

from flask import request

from smsqueue.settings import Settings

__all__ = ["has_token", "token_of"]


def token_of(settings: Settings) -> bytes:
    """The token; empty: none is set, so no request has it."""
    # A token from a file may end in a newline; one of blanks would match a missing token.
    return settings.metrics_token.strip().encode()


def has_token(token: bytes) -> bool:
    """Does the running request have this token?"""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    # WSGI decodes headers as Latin-1.
    sent = given.strip().encode("latin-1", "replace") if scheme.lower() == "bearer" else b""
    return bool(token) and hmac.compare_digest(sent, token)
