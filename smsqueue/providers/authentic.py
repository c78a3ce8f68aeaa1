"""Whether a webhook is the provider's: fails closed, compares in constant time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterable, Sequence

from smsqueue.settings import SettingsError

__all__ = [
    "Refused",
    "Secrets",
    "basic_matches",
    "equal",
    "fresh",
    "hmac_base64",
    "hmac_hex",
    "seal",
    "secrets_of",
    "unseal",
    "users_of",
]

#: What is taken for secrets: one, or several while they rotate.
Secrets = str | Sequence[str] | None


class Refused(PermissionError):
    """A webhook is not the provider's. The text is logged: it has nothing of the webhook in it."""


def secrets_of(given: Secrets) -> tuple[str, ...]:
    """Secrets as a tuple: all of them verify, the first one signs.

    Raises:
        ValueError: one of them is empty or blank: anybody could sign with it.
    """
    found = (given,) if isinstance(given, str) else tuple(given or ())
    if not all(each.strip() for each in found):
        raise ValueError("a secret is empty or blank: anybody could sign with it")
    return found


def equal(given: str | None, wanted: str) -> bool:
    """Are two texts the same? In constant time, also if they are not ASCII."""
    return given is not None and hmac.compare_digest(given.encode(), wanted.encode())


def any_equal(given: str | None, wanted: Iterable[str]) -> bool:
    """Is a text one of several? Takes the same time whichever it is."""
    found = [equal(given, each) for each in wanted]  # all of them, also after a match
    return any(found)


def hmac_hex(secret: str, text: bytes, digest: str = "sha256") -> str:
    """HMAC in hexadecimal digits."""
    return hmac.new(secret.encode(), text, digest).hexdigest()


def hmac_base64(secret: str | bytes, text: bytes, digest: str = "sha256") -> str:
    """HMAC in Base64."""
    key = secret.encode() if isinstance(secret, str) else secret
    return base64.b64encode(hmac.new(key, text, digest).digest()).decode()


def signed(given: str | None, secrets: Iterable[str], sign: Callable[[str], str]) -> bool:
    """Is a signature what ``sign(secret)`` gives for one of the secrets?"""
    return any_equal(given, [sign(secret) for secret in secrets])


def seal(text: str, secret: str, purpose: str) -> str:
    """A text with a signature behind it, for where it may come back changed.

    Args:
        purpose: What it is for: a seal for another purpose does not hold.
    """
    signature = hmac_hex(secret, json.dumps(["smsqueue", purpose, text]).encode())
    return f"{text}.{signature[:32]}"


def unseal(sealed: str, secrets: Iterable[str], purpose: str) -> str | None:
    """The text that :func:`seal` was given; None if its signature is not by one of the secrets."""
    text = sealed.rpartition(".")[0]
    return text if signed(sealed, secrets, lambda each: seal(text, each, purpose)) else None


def fresh(seconds: str | float | None, window: float = 300.0) -> bool:
    """Is a time (seconds since 1970) within ``window`` seconds of now? A replay is not."""
    try:
        return seconds is not None and abs(time.time() - float(seconds)) <= window
    except (ValueError, OverflowError):
        return False


def users_of(secrets: Iterable[str], whose: str) -> list[tuple[str, str]]:
    """User and password of secrets that are like ``user:password``.

    Args:
        whose: What they authenticate, for the error.

    Raises:
        SettingsError: one of them is not like that, or a half of it is empty or blank.
    """
    pairs = [each.partition(":") for each in secrets]
    if not all(colon for _, colon, _ in pairs):
        raise SettingsError(f"the secret of {whose} must be like user:password")
    if not all(user.strip() and password.strip() for user, _, password in pairs):
        raise SettingsError(f"the secret of {whose} has an empty or blank user or password")
    return [(user, password) for user, _, password in pairs]


def basic_matches(header: str | None, users: Iterable[tuple[str, str]]) -> bool:
    """Does an Authorization header hold one of these users with its password?"""
    wanted = (f"{user}:{password}".encode() for user, password in users)
    return any_equal(header, [f"Basic {base64.b64encode(each).decode()}" for each in wanted])


def sha256_hex(data: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
