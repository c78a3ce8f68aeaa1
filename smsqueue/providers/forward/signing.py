"""Signatures of requests: HMAC-SHA256 with a secret that both sides know."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from smsqueue.providers.authentic import Refused
from smsqueue.settings import SettingsError

__all__ = ["SIGNATURE", "TIME", "Headers", "Signer"]

TIME = "X-Forward-Time"
SIGNATURE = "X-Forward-Signature"
_SCHEME = "v1="
#: Signatures that are remembered, to make none of them twice.
_REMEMBERED = 1000


class Headers(Protocol):
    """The headers of a request."""

    def get(self, key: str, default: str, /) -> str: ...
    def __contains__(self, key: str, /) -> bool: ...


class Signer:
    """Signs and verifies requests.

    Args:
        secret: One secret, or several while they are exchanged: the first one signs, all verify.
        window: Seconds that a signed request is good for, before and after its time.

    Raises:
        SettingsError: a secret is empty, or no text.
    """

    def __init__(self, secret: str | Sequence[str], window: float = 300.0) -> None:
        given = [secret] if isinstance(secret, str) else list(secret)
        if not given or not all(isinstance(each, str) and each.strip() for each in given):
            raise SettingsError(
                "secret is empty: give a long random text, the same on both sides, for example "
                "what `python -c 'import secrets; print(secrets.token_urlsafe(32))'` prints"
            )
        self._secrets = [each.encode() for each in given]
        self.window = window
        self._lock = threading.Lock()
        self._made: OrderedDict[str, None] = OrderedDict()

    def headers(self, purpose: str, body: bytes) -> dict[str, str]:
        """Headers that sign a body for one purpose (``server/im``, ``client/status`` ...)."""
        now = int(time.time())
        # A signature counts once. Who sends the same text again means a second message: its time
        # is another one.
        with self._lock:
            while (signature := _digest(self._secrets[0], purpose, str(now), body)) in self._made:
                now += 1
            self._made[signature] = None
            if len(self._made) > _REMEMBERED:
                self._made.popitem(last=False)
        return {TIME: str(now), SIGNATURE: _SCHEME + signature}

    def verify(self, purpose: str, body: bytes, headers: Headers) -> None:
        """Raise PermissionError unless a request is signed for this purpose, and fresh."""
        sent, given = headers.get(TIME, ""), headers.get(SIGNATURE, "")
        # As bytes: texts that are not ASCII cannot be compared in constant time.
        shown = given.encode("utf-8", "replace")
        found = False
        for secret in self._secrets:
            right = _SCHEME + _digest(secret, purpose, sent, body)
            found |= hmac.compare_digest(shown, right.encode())
        if not found:
            raise Refused("the signature is not that of the request")
        # Only now: what is not signed does not learn what our clock says.
        if not (sent.isascii() and sent.isdigit() and len(sent) < 16):
            raise Refused("the time is none")
        if abs(time.time() - int(sent)) > self.window:
            raise Refused("the request is too old, or a clock is wrong")


def _digest(secret: bytes, purpose: str, sent: str, body: bytes) -> str:
    head = f"smsqueue-forward-1\n{purpose}\n{sent}\n".encode("utf-8", "replace")
    return hmac.new(secret, head + body, hashlib.sha256).hexdigest()
