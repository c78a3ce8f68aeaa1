"""What the ledger can be asked, and its keys."""

from __future__ import annotations

import hashlib
import heapq
import hmac
import json
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from itertools import islice
from typing import Any

import redis

from smsqueue import exc
from smsqueue.ledger.connection import Scripts, connect, translated
from smsqueue.ledger.diagnosis import verify_server
from smsqueue.ledger.records import (
    Damaged,
    Record,
    load_message,
    parse_damaged,
    parse_record,
    read_event_data,
)
from smsqueue.ledger.script_values import Examined
from smsqueue.message.states import EventState, State
from smsqueue.settings import Settings, SettingsError

__all__ = ["Looking"]

#: What the key's place in Redis begins with if SMSQUEUE_HASH_KEY has the key.
_OUTSIDE = "outside:"

#: Where the mark of SMSQUEUE_HASH_KEY is while the former key is still in Redis. It is among the
#: idempotency keys: accounts that were made before there was such a mark may read and set it there.
_BESIDE = ("idem", "hash_key")

#: Ids that one command reads of an index, and records that one round trip reads.
_PAGE = 200


class Looking:
    """The part of the ledger that changes nothing."""

    def __init__(self, settings: Settings, *, timeout: float = 1.0) -> None:
        self.settings = settings
        self.redis = connect(settings, timeout=timeout)
        self._scripts = Scripts(self.redis, settings)

    def read(self, id: str) -> Record | None:
        """A message's record, None if there is none; DamagedRecord if it cannot be read."""
        fields = self._hash("msg", id)
        return parse_record(id, fields) if fields else None

    def read_event(self, id: str) -> dict[str, str] | None:
        """An event's fields, None if there is none; DamagedRecord if it has none but is there."""
        return self._hash("event", id) or None

    def _hash(self, kind: str, id: str) -> dict[str, str]:
        try:
            with translated(self.settings):
                fields: Any = self.redis.hgetall(self._key(kind, id))
        except exc.LedgerError as error:
            if "WRONGTYPE" not in str(error):
                raise
            raise exc.DamagedRecord(self._not_a_hash(kind, id), id) from None
        return dict(fields)

    def _not_a_hash(self, kind: str, id: str) -> str:
        """What is wrong with a record of the wrong type, as shared/damage.lua says it."""
        with translated(self.settings):
            kind_of_key: Any = self.redis.type(self._key(kind, id))
        return f"it is a {kind_of_key} in Redis, not a hash"

    def examine(self, id: str) -> Examined:
        """Which parts of a message's or event's record can be read.

        Raises:
            LookupError: there is neither.
        """
        with translated(self.settings):
            kinds: Any = [
                kind for kind in ("msg", "event") if self.redis.exists(self._key(kind, id))
            ]
        if not kinds:
            raise LookupError(f"no message and no event has the id {id!r}")
        kind, others = kinds[0], []
        try:
            fields = self._hash(kind, id)
            if kind == "event":
                read_event_data(id, fields)
                return Examined(kind, True, [])
            for name in ("msgid", "meta"):
                try:
                    json.loads(fields.get(name, "null"))
                except (ValueError, RecursionError):
                    others.append(name)
            load_message(id, fields.get("data", ""))
        except exc.DamagedRecord:
            return Examined(kind, False, others)
        return Examined(kind, True, others)

    def is_sound(self, id: str) -> bool:
        """Can a message or event be read? LookupError: there is none."""
        kind, readable, _ = self.examine(id)
        if kind == "msg":
            try:
                return self.read(id) is not None
            except exc.DamagedRecord:
                return False
        return readable and self._hash(kind, id).get("state") in set(EventState)

    def damaged(self) -> list[Damaged]:
        """Records that were put aside as damaged, the newest first; a thousand at most."""
        with translated(self.settings):
            entries: Any = self.redis.hgetall(self._key("damaged"))
        found = [parse_damaged(id, text) for id, text in entries.items()]
        return sorted(found, key=lambda each: each.at.timestamp() if each.at else 0.0, reverse=True)

    def damaged_entry(self, id: str) -> Damaged | None:
        """What was noted of one of them."""
        with translated(self.settings):
            text: Any = self.redis.hget(self._key("damaged"), id)
        return parse_damaged(id, text) if text else None

    def handlers_done(self, event: str) -> set[str]:
        """Names of the handlers that succeeded with an event that is not over."""
        with translated(self.settings):
            names: Any = self.redis.smembers(self._key("done", event))
        return set(names)

    def find(self, number: str) -> Iterator[str]:
        """Ids of messages and incoming events of a number, newest first."""
        found = [self._found(self.hidden(number))]
        former = self.hidden_before(number)
        if former:
            found.append(self._found(former))
        # An id begins with its time.
        yield from heapq.merge(*found, reverse=True)

    def _found(self, number: str) -> Iterator[str]:
        for page in self._pages("number", number):
            yield from page

    def ids_in(self, state: State | EventState, limit: int = 100) -> list[str]:
        """Ids in a state, the newest in it first."""
        ids = (id for page in self._pages("state", state) for id in page)
        return list(islice(ids, limit))

    def _pages(
        self,
        *index: str,
        since: float | None = None,
        until: float | None = None,
        size: int = _PAGE,
    ) -> Iterator[list[str]]:
        """Ids in an index, those of the highest scores first; a bounded command for each page.

        The index may change between two pages. What stays in its place is in one page; what gets
        a higher score meanwhile does not come (again).

        Args:
            since, until: Lowest and highest score, in ms.
            size: Ids of a page.
        """
        score, id = "+inf" if until is None else f"{until:.17g}", ""
        least = "-inf" if since is None else f"{since:.17g}"
        while True:
            answer = self._scripts.run("page", ":".join(index), score, id, least, size)
            if answer:
                yield answer[::2]
            if len(answer) < 2 * size:
                return
            id, score = answer[-2:]

    def counts(self) -> dict[str, int]:
        """How many messages and events are in each state."""
        states = [*State, *EventState]
        with translated(self.settings):
            pipe = self.redis.pipeline(transaction=False)
            for state in states:
                pipe.zcard(self._key("state", state))
            return {str(s): n for s, n in zip(states, pipe.execute(), strict=True)}

    def close(self) -> None:
        """Close the connections."""
        self.redis.close()

    def verify_server(self) -> None:
        """Raise QueueUnavailable if Redis does not answer, RedisMisconfigured if it cannot hold
        the ledger as it is."""
        verify_server(self.redis, self.settings)

    def facts(self) -> dict[str, Any]:
        """What the server tells of itself (INFO); services that somebody else runs may tell less,
        or nothing."""
        with translated(self.settings), suppress(redis.exceptions.NoPermissionError):
            info: Any = self.redis.info()
            return dict(info)
        return {}

    def warnings(self) -> Iterator[str]:
        """What of Redis's configuration would break a promise."""
        info = self.facts()
        where = f"Redis at {self.settings.safe_redis_url}"
        # Services that somebody else runs may tell less.
        version = re.match(r"(\d+)\.(\d+)", str(info.get("redis_version", "")))
        if version and (int(version[1]), int(version[2])) < (6, 2):
            yield f"{where} is version {info['redis_version']}: 6.2 or later is needed"
        if info.get("aof_enabled") == 0:
            yield (
                f"{where} has no AOF: accepted messages are lost when it stops. "
                "Set appendonly yes in its configuration"
            )
        if info.get("maxmemory_policy", "noeviction") != "noeviction":
            yield (
                f"{where} evicts keys when it is full (maxmemory-policy "
                f"{info['maxmemory_policy']}): accepted messages are lost then. Set noeviction"
            )

    def _key(self, *parts: str) -> str:
        return ":".join((self.settings.namespace, *parts))

    @cached_property
    def _hash_keys(self) -> tuple[bytes, bytes | None]:
        """The key of the hashes, and the one in Redis that SMSQUEUE_HASH_KEY took the place of.

        A keyed hash keeps numbers out of the names of keys. SLOWLOG and MONITOR show numbers and
        texts all the same, as arguments of the scripts.

        Raises:
            SettingsError: other processes of this namespace have another SMSQUEUE_HASH_KEY.
        """
        own = self.settings.hash_key.encode()
        mark = ""
        if own:  # says that the key is not here, and lets processes with another one be refused
            mark = (
                f"{_OUTSIDE}{hmac.new(own, b'smsqueue hash key', hashlib.sha256).hexdigest()[:8]}"
            )
        secret, beside = self._key("secret"), self._key(*_BESIDE)
        with translated(self.settings):
            there: Any = self.redis.get(secret)
            theirs: Any = self.redis.get(beside)
        # A full Redis refuses writes, even if they would change nothing.
        if there is None or (mark and theirs is None and not there.startswith(_OUTSIDE)):
            there, theirs = self._scripts.run("hash_key", mark, secrets.token_hex(16))
        outside = there.startswith(_OUTSIDE)
        if (mark or outside) and mark != (there if outside else theirs):
            what = "is not the one of" if own else "is not set, but it is for"
            raise SettingsError(
                f"SMSQUEUE_HASH_KEY {what} the other processes of the namespace "
                f"{self.settings.namespace!r}: set it to theirs. If theirs is the wrong one, stop "
                f"them, and then: redis-cli DEL {f'{secret} {beside}' if outside else beside}"
            )
        if outside:
            return own, None
        former = str(there).encode()
        return (own, former) if own else (former, None)

    def hidden(self, text: str) -> str:
        """The keyed hash that stands for a text in key names: 20 hex digits.

        Half a character, which webhooks may hold, counts as "?".
        """
        return _hash(self._hash_keys[0], text)

    def hidden_before(self, text: str) -> str:
        """The hash by the key that was in Redis before SMSQUEUE_HASH_KEY; "": there is none (any
        more). Records of then are found by it, and processes that have no such setting yet find
        by it what this one writes."""
        former = self._hash_keys[1]
        return _hash(former, text) if former else ""


def _hash(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:20]
