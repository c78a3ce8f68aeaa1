"""Functions that authenticate webhooks. All comparisons take constant time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterable, Sequence

from smsqueue.providers.base.webhook_errors import Refused
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

#: One secret, or several while they rotate.
Secrets = str | Sequence[str] | None


def secrets_of(secrets: Secrets) -> tuple[str, ...]:
    """Secrets as a tuple: all of them verify, the first signs.

    Raises:
        ValueError: one of them is empty or blank: anybody could sign with it.
    """
    several = (secrets,) if isinstance(secrets, str) else tuple(secrets or ())
    if not all(secret.strip() for secret in several):
        raise ValueError("a secret is empty or blank: anybody could sign with it")
    return several


def equal(actual: str | None, expected: str) -> bool:
    """Are two strings equal? They need not be ASCII."""
    return actual is not None and hmac.compare_digest(actual.encode(), expected.encode())


def any_equal(actual: str | None, expected: Iterable[str]) -> bool:
    """Is a string one of several? Takes the same time whichever it is."""
    matches = [equal(actual, one) for one in expected]  # a list: compare all, also after a match
    return any(matches)


def hmac_hex(secret: str, text: bytes, digest: str = "sha256") -> str:
    """HMAC in hexadecimal digits."""
    return hmac.new(secret.encode(), text, digest).hexdigest()


def hmac_base64(secret: str | bytes, text: bytes, digest: str = "sha256") -> str:
    """HMAC in Base64."""
    key = secret.encode() if isinstance(secret, str) else secret
    return base64.b64encode(hmac.new(key, text, digest).digest()).decode()


def signed(signature: str | None, secrets: Iterable[str], sign: Callable[[str], str]) -> bool:
    """Is a signature equal to ``sign(secret)`` for one of the secrets?"""
    return any_equal(signature, [sign(secret) for secret in secrets])


def seal(text: str, secret: str, purpose: str) -> str:
    """A text followed by a signature, to detect changes when a provider returns it.

    Args:
        purpose: Part of what is signed: a seal for one purpose does not verify for another.
    """
    signature = hmac_hex(secret, json.dumps(["smsqueue", purpose, text]).encode())
    return f"{text}.{signature[:32]}"


def unseal(sealed: str, secrets: Iterable[str], purpose: str) -> str | None:
    """The text that :func:`seal` signed; None unless one of the secrets verifies it."""
    text = sealed.rpartition(".")[0]
    return text if signed(sealed, secrets, lambda secret: seal(text, secret, purpose)) else None


def fresh(seconds: str | float | None, window: float = 300.0) -> bool:
    """Is a time (seconds since 1970) within ``window`` seconds of now? Rejects replays."""
    try:
        return seconds is not None and abs(time.time() - float(seconds)) <= window
    except (ValueError, OverflowError):
        return False


def users_of(secrets: Iterable[str], whose: str) -> list[tuple[str, str]]:
    """User and password of secrets in the form ``user:password``.

    Args:
        whose: What they authenticate, for the error.

    Raises:
        SettingsError: one of them has another form, or an empty or blank half.
    """
    pairs = [secret.partition(":") for secret in secrets]
    if not all(colon for _, colon, _ in pairs):
        raise SettingsError(f"the secret of {whose} must have the form user:password")
    if not all(user.strip() and password.strip() for user, _, password in pairs):
        raise SettingsError(f"the secret of {whose} has an empty or blank user or password")
    return [(user, password) for user, _, password in pairs]


def basic_matches(header: str | None, users: Iterable[tuple[str, str]]) -> bool:
    """Does an Authorization header hold one of these pairs of user and password?"""
    pairs = (f"{user}:{password}".encode() for user, password in users)
    return any_equal(header, [f"Basic {base64.b64encode(pair).decode()}" for pair in pairs])


def sha256_hex(data: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
