"""Authentication between the two sides: HMAC-SHA256 signatures, or HTTP Basic."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

from smsqueue.providers.authentic import Refused
from smsqueue.settings import SettingsError

__all__ = ["SIGNATURE", "TIME", "Guard", "Headers", "Signer", "make_signer", "split_credentials"]

TIME = "X-Forward-Time"
SIGNATURE = "X-Forward-Signature"
_SCHEME = "v1="
#: Recent signatures that are kept so that no two requests get the same one.
_MAX_KEPT = 1000


class Headers(Protocol):
    """The headers of a request."""

    def get(self, key: str, default: str, /) -> str: ...
    def __contains__(self, key: str, /) -> bool: ...


class Signer:
    """Signs and verifies requests.

    Args:
        secret: One secret, or several while they are exchanged: the first signs, all verify.
        window: Seconds for which a signed request is valid, before and after its timestamp.
        clock: Returns the seconds since 1970.

    Raises:
        SettingsError: a secret is empty, or not a str.
    """

    def __init__(
        self,
        secret: str | Sequence[str],
        window: float = 300.0,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        secrets = [secret] if isinstance(secret, str) else list(secret)
        if not secrets or not all(isinstance(item, str) and item.strip() for item in secrets):
            raise SettingsError(
                "secret is empty: give a long random text, the same on both sides, for example "
                "what `python -c 'import secrets; print(secrets.token_urlsafe(32))'` prints"
            )
        self._secrets = [item.encode() for item in secrets]
        self.window = window
        self._clock = clock
        self._lock = threading.Lock()
        self._recent: OrderedDict[str, None] = OrderedDict()

    def headers(self, purpose: str, body: bytes) -> dict[str, str]:
        """Headers that sign a body for one purpose (``server/im``, ``client/status`` ...)."""
        timestamp = int(self._clock())
        # The receiver takes a repeated signature for a replay. The same body sent again is a
        # second message, so it gets another timestamp.
        with self._lock:
            while True:
                signature = _digest(self._secrets[0], purpose, str(timestamp), body)
                if signature not in self._recent:
                    break
                timestamp += 1
            self._recent[signature] = None
            if len(self._recent) > _MAX_KEPT:
                self._recent.popitem(last=False)
        return {TIME: str(timestamp), SIGNATURE: _SCHEME + signature}

    def verify(self, purpose: str, body: bytes, headers: Headers) -> None:
        """Raise PermissionError unless a request is signed for this purpose, and recent."""
        timestamp, signature = headers.get(TIME, ""), headers.get(SIGNATURE, "")
        # As bytes: compare_digest() refuses str that are not ASCII.
        signature_bytes = signature.encode("utf-8", "replace")
        valid = False
        for secret in self._secrets:
            expected = _SCHEME + _digest(secret, purpose, timestamp, body)
            valid |= hmac.compare_digest(signature_bytes, expected.encode())
        if not valid:
            raise Refused("the signature does not match the request")
        # After the signature: others must not learn the time of our clock.
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 16):
            raise Refused("invalid timestamp")
        if abs(self._clock() - int(timestamp)) > self.window:
            raise Refused("the request is too old, or a clock is wrong")


def make_signer(secret: str | Sequence[str] | None, window: float) -> Signer | None:
    """The signer of an optional secret."""
    return None if secret is None else Signer(secret, window)


def _digest(secret: bytes, purpose: str, timestamp: str, body: bytes) -> str:
    head = f"smsqueue-forward-1\n{purpose}\n{timestamp}\n".encode("utf-8", "replace")
    return hmac.new(secret, head + body, hashlib.sha256).hexdigest()


class Guard:
    """Authenticates requests by their signature, or by user and password.

    Args:
        name: The provider's name, for errors.
        signer: Verifies signatures; None: there is no secret.
        users: Passwords by user, of HTTP Basic.
        insecure: Accept requests without either.
    """

    def __init__(
        self, name: str, signer: Signer | None, users: Mapping[str, str] | None, insecure: bool
    ) -> None:
        self._name = name
        self._signer = signer
        users = users or {}
        if not all(text.strip() for credentials in users.items() for text in credentials):
            raise SettingsError(
                f"users of provider {name!r} has an empty or blank user or password"
            )
        self._authorizations = [_basic(user, users[user]).encode() for user in users]
        self._insecure = insecure
        #: Seconds for which a signed request could be replayed.
        self.replay_window = 2 * signer.window if signer is not None else 0.0

    @property
    def open(self) -> bool:
        """Whether requests are accepted without authentication."""
        return self._insecure

    def require_protection(self) -> None:
        """Raise SettingsError if nothing protects the receiver."""
        if self._signer is None and not self._authorizations and not self._insecure:
            raise SettingsError(
                f"the receiver of provider {self._name!r} would accept requests from anybody: "
                "give add_provider secret='...' (the same on both sides), or "
                "users={'name': 'password'} for HTTP Basic, or insecure=True if something in "
                "front of the receiver checks requests"
            )

    def authenticate(self, purpose: str, body: bytes, headers: Headers) -> None:
        """Raise PermissionError unless a request is authentic."""
        if self._signer is not None and SIGNATURE in headers:
            self._signer.verify(purpose, body, headers)
            return
        if self._has_password(headers) or self._insecure:
            return
        raise Refused("neither a signature nor a known user and password")

    def _has_password(self, headers: Headers) -> bool:
        scheme, _, credentials = headers.get("Authorization", "").partition(" ")
        authorization = f"Basic {credentials.strip()}".encode("utf-8", "replace")
        known = False
        for expected in self._authorizations:  # all of them: in constant time
            known |= hmac.compare_digest(authorization, expected)
        return known and scheme.lower() == "basic"


def split_credentials(url: str) -> tuple[str, str | None]:
    """The URL without credentials, and the Authorization header that they make.

    User and password are percent-decoded, as UTF-8.
    """
    parts = urlsplit(url)
    credentials, at, host = parts.netloc.rpartition("@")
    bare = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
    if not at:
        return bare, None
    user, _, password = credentials.partition(":")
    return bare, _basic(unquote(user), unquote(password))


def _basic(user: str, password: str) -> str:
    """The value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
