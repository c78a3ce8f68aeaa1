"""Signatures by Ed25519, for providers that sign with a key of their own."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import TYPE_CHECKING

from smsqueue.providers.extras import INSTALL
from smsqueue.settings import SettingsError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["load_keys", "verifies"]


def load_keys(texts: Iterable[str], name: str) -> list[Ed25519PublicKey]:
    """Public keys from their Base64.

    Args:
        name: The provider's, for the errors.

    Raises:
        SettingsError: one is no key, or the package cryptography is missing.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ModuleNotFoundError:
        raise SettingsError(
            f"the provider {name!r} needs the package cryptography to verify webhooks: {INSTALL}"
        ) from None
    try:
        return [Ed25519PublicKey.from_public_bytes(base64.b64decode(each)) for each in texts]
    except ValueError:
        raise SettingsError(
            f"a public_key of the provider {name!r} is not one: its portal shows 44 characters of "
            "Base64"
        ) from None


def verifies(keys: Iterable[Ed25519PublicKey], signature: str, text: bytes) -> bool:
    """Is this (Base64) the signature of a text, by one of the keys?"""
    from cryptography.exceptions import InvalidSignature

    for key in keys:
        try:
            key.verify(base64.b64decode(signature), text)
        except (InvalidSignature, ValueError):
            continue
        return True
    return False
