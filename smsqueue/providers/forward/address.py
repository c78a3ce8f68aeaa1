"""The other side's address, which may hold a user and a password."""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import unquote, urlsplit, urlunsplit

__all__ = ["basic", "label", "mark", "split"]


def split(url: str) -> tuple[str, str | None]:
    """The address without credentials, and the Authorization header that they make.

    User and password are percent-decoded, as UTF-8.
    """
    parts = urlsplit(url)
    credentials, at, place = parts.netloc.rpartition("@")
    bare = urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", ""))
    if not at:
        return bare, None
    user, _, password = credentials.partition(":")
    return bare, basic(unquote(user), unquote(password))


def basic(user: str, password: str) -> str:
    """The value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def label(url: str) -> str:
    """An address as logs and timelines may show it: host and port."""
    return urlsplit(url).netloc.rpartition("@")[2] or "?"


def mark(url: str) -> str:
    """What an address is remembered by in the ledger; new credentials do not change it."""
    return hashlib.sha256(split(url)[0].encode()).hexdigest()[:16]
