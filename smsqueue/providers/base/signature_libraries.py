"""Optional packages that verify signatures of webhooks: PyJWT, and cryptography for Ed25519."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from smsqueue.settings import SettingsError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["INSTALL", "jwt_library", "load_ed25519_keys", "verify_ed25519"]

#: The remedy if one is missing.
INSTALL = "pip install 'smsqueue-gateway[signatures]'"


def jwt_library(need: str) -> Any:
    """The module ``jwt`` of PyJWT.

    Args:
        need: What needs it: the beginning of the error.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        import jwt
    except ModuleNotFoundError:
        raise SettingsError(f"{need}: {INSTALL}") from None
    return jwt


def load_ed25519_keys(texts: Iterable[str], name: str) -> list[Ed25519PublicKey]:
    """Public keys from their Base64.

    Args:
        name: The provider's, for the errors.

    Raises:
        SettingsError: one is not a key, or the package cryptography is missing.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ModuleNotFoundError:
        raise SettingsError(
            f"the provider {name!r} needs the package cryptography to verify webhooks: {INSTALL}"
        ) from None
    try:
        return [Ed25519PublicKey.from_public_bytes(base64.b64decode(text)) for text in texts]
    except ValueError:
        raise SettingsError(
            f"a public_key of the provider {name!r} is invalid: its portal shows 44 characters of "
            "Base64"
        ) from None


def verify_ed25519(keys: Iterable[Ed25519PublicKey], signature: str, text: bytes) -> bool:
    """Is this (Base64) the signature of a text by one of the keys?"""
    from cryptography.exceptions import InvalidSignature

    for key in keys:
        try:
            key.verify(base64.b64decode(signature), text)
        except (InvalidSignature, ValueError):
            continue
        return True
    return False
