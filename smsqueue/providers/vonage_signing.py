"""How Vonage signs: fields with a ``sig`` (SMS API), a body with a token (Messages API)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from smsqueue.providers import extras
from smsqueue.providers.authentic import Refused, equal, hmac_hex, sha256_hex, signed
from smsqueue.settings import SettingsError

__all__ = ["METHODS", "WINDOW", "claims_of", "jwt_library", "rsa_key", "signature", "verify"]

#: Ways to sign fields, under the names that Vonage's own libraries give them.
METHODS = ("md5hash", "md5", "sha1", "sha256", "sha512")
#: Vonage repeats a webhook for a day, and may repeat it as it was signed first.
WINDOW = 25 * 3600.0
#: Seconds by which the clocks may differ.
_LEEWAY = 300
_MASK = str.maketrans("&=", "__")


# --- fields ------------------------------------------------------------------------------------


def signature(fields: Mapping[str, str], secret: str, method: str) -> str:
    """The ``sig`` of some fields."""
    text = "".join(f"&{name}={value.translate(_MASK)}" for name, value in sorted(fields.items()))
    data = text.encode(errors="replace")
    if method == "md5hash":
        return hashlib.md5(data + secret.encode(), usedforsecurity=False).hexdigest()
    return hmac_hex(secret, data, method)


def verify(fields: Mapping[str, str], given: str, secrets: Iterable[str], method: str) -> None:
    """PermissionError unless ``given`` is the ``sig`` of just these fields."""
    # Only values are masked. A name like "a=1&b" stands for two fields that were signed, so that
    # whoever saw them could hide one.
    if any("&" in name or "=" in name for name in fields):
        raise Refused("a field has a name that cannot be signed")
    if not signed(given.lower(), secrets, lambda each: signature(fields, each, method)):
        raise Refused("the signature is not Vonage's")


# --- tokens ------------------------------------------------------------------------------------


def claims_of(header: str, body: bytes, secrets: Iterable[str]) -> dict[str, Any]:
    """What the token in an Authorization header says; PermissionError unless it is this body's."""
    jwt, (scheme, _, token) = jwt_library(), header.partition(" ")
    for secret in secrets if scheme.lower() == "bearer" else ():
        try:
            claims: dict[str, Any] = jwt.decode(
                token.strip(),
                secret,
                algorithms=["HS256"],
                leeway=_LEEWAY,
                options={"require": ["iat", "payload_hash"], "verify_aud": False},
            )
        except jwt.PyJWTError:
            continue
        # The token alone proves nothing.
        if not equal(sha256_hex(body), str(claims["payload_hash"]).lower()):
            raise Refused("the body is not what the token says")
        return claims
    raise Refused("the token is not Vonage's")


def jwt_library() -> Any:
    """PyJWT; SettingsError if it is not installed."""
    return extras.jwt_library("Vonage's tokens need PyJWT")


def rsa_key(given: str | os.PathLike[str]) -> Any:
    """The private key in a PEM text, or in a file of it.

    Raises:
        SettingsError: it is none.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ModuleNotFoundError:
        raise SettingsError(f"Vonage's private_key needs cryptography: {extras.INSTALL}") from None
    jwt_library()
    try:
        pem = given if isinstance(given, str) and "-----BEGIN" in given else None
        key = load_pem_private_key((pem or Path(given).read_text()).encode(), None)
    except (OSError, ValueError, TypeError) as error:
        # ``from None``: the error may show what was taken for a path.
        reason = f"the private_key is neither PEM nor a file of it ({type(error).__name__})"
        raise SettingsError(reason) from None
    if not isinstance(key, RSAPrivateKey):
        raise SettingsError("the private_key is not an RSA key")
    return key
