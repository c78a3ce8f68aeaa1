"""Keyed hashes, which stand for numbers and idempotency keys in the names of Redis keys."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from functools import cached_property
from typing import Any

import redis

from smsqueue.ledger.client import translated
from smsqueue.ledger.scripts import Scripts
from smsqueue.settings import Settings, SettingsError

__all__ = ["KeyedHashes"]

#: Prefix of the value in Redis if the key is in SMSQUEUE_HASH_KEY.
_OUTSIDE = "outside:"

#: Where the mark of SMSQUEUE_HASH_KEY is while the former key is still in Redis. It is among the
#: idempotency keys, which accounts that were made by older versions may read and write.
_BESIDE = ("idem", "hash_key")


class KeyedHashes:
    """The hashes of one namespace, whose key is SMSQUEUE_HASH_KEY or in Redis."""

    def __init__(self, client: redis.Redis, settings: Settings, scripts: Scripts) -> None:
        self._client = client
        self._settings = settings
        self._scripts = scripts

    @cached_property
    def _keys(self) -> tuple[bytes, bytes | None]:
        """The hash key, and the former one in Redis, which SMSQUEUE_HASH_KEY replaced.

        Keyed hashes keep numbers out of the names of Redis keys. SLOWLOG and MONITOR still show
        numbers and texts, as arguments of the scripts.

        Raises:
            SettingsError: other processes of this namespace have another SMSQUEUE_HASH_KEY.
        """
        own = self._settings.hash_key.encode()
        mark = ""
        if own:  # by which processes with another key are refused
            mark = (
                f"{_OUTSIDE}{hmac.new(own, b'smsqueue hash key', hashlib.sha256).hexdigest()[:8]}"
            )
        secret = f"{self._settings.namespace}:secret"
        beside = ":".join((self._settings.namespace, *_BESIDE))
        with translated(self._settings):
            there: Any = self._client.get(secret)
            theirs: Any = self._client.get(beside)
        # A full Redis refuses scripts that write, even if they would change nothing.
        if there is None or (mark and theirs is None and not there.startswith(_OUTSIDE)):
            there, theirs = self._scripts.run("hash_secret", mark, secrets.token_hex(16))
        outside = there.startswith(_OUTSIDE)
        if (mark or outside) and mark != (there if outside else theirs):
            what = "is not the one of" if own else "is not set, but it is for"
            raise SettingsError(
                f"SMSQUEUE_HASH_KEY {what} the other processes of the namespace "
                f"{self._settings.namespace!r}: set it to theirs. If theirs is the wrong one, stop "
                f"them, and then: redis-cli DEL {f'{secret} {beside}' if outside else beside}"
            )
        if outside:
            return own, None
        former = str(there).encode()
        return (own, former) if own else (former, None)

    def hash_of(self, text: str) -> str:
        """The keyed hash of a text for key names: 20 hex digits.

        An unpaired surrogate, which webhooks may contain, counts as "?".
        """
        return _hash(self._keys[0], text)

    def former_hash_of(self, text: str) -> str:
        """The hash with the key that was in Redis before SMSQUEUE_HASH_KEY; "": there is none.

        Older records are found by it, and processes without the setting find new records by it.
        """
        former = self._keys[1]
        return _hash(former, text) if former else ""


def _hash(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode("utf-8", "replace"), "sha256").hex()[:20]
