"""What can be read of the ledger: records, indexes, backlog, pauses, workers, counters."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import redis
from redis.exceptions import ResponseError

from smsqueue import exc
from smsqueue.ledger.client import connect, translated
from smsqueue.ledger.keyed_hashes import KeyedHashes
from smsqueue.ledger.records import (
    Damaged,
    Record,
    load_message,
    parse_damaged,
    parse_record,
    read_event_data,
)
from smsqueue.ledger.script_values import Examined
from smsqueue.ledger.scripts import Scripts
from smsqueue.ledger.server import Server, configuration_warnings, server_of, verify_server
from smsqueue.message.states import EventState, State
from smsqueue.settings import Settings

__all__ = ["LANES", "Backlog", "LedgerReader", "Pause", "Unrouted", "Worker"]

#: ``send``: messages that wait. ``watch``: leases and waits for reports. ``hook``: events.
LANES = ("send", "watch", "hook")

#: The due sets of a lane that has two: of single messages, and of what was sent as one of many.
_PARTS = {"send": ("", "_bulk"), "hook": ("", "_bulk")}

#: Seconds without a beat after which a worker counts as gone; it beats every five.
_GONE = 30.0
#: Bytes that a field of a packed hash may have: texts and timelines have more than Redis's own 64.
_PACKED_VALUE = 1024
#: Milliseconds, as in shared/providers.lua: messages are tried again within ten minutes.
_LATELY = 900_000


class Backlog(NamedTuple):
    """What should have been looked at by now in a lane."""

    due: int
    #: Seconds since the oldest of it was due; 0.0 if nothing is.
    oldest: float
    #: All that the lane holds, due or not.
    held: int


@dataclass(frozen=True)
class Pause:
    """A provider that is left alone for a while."""

    provider: str
    until: datetime
    #: How often in a row; each time is longer.
    times: int
    #: Error class that made it.
    error: str | None
    #: Seconds until its end; 0.0: over, and the next message probes the provider.
    left: float


@dataclass(frozen=True)
class Worker:
    """A worker process, as it told of itself."""

    name: str
    #: Seconds since its last beat.
    ago: float
    #: Names of the broker queues that it consumes.
    queues: tuple[str, ...]
    #: Its slots, and its version of this package.
    concurrency: int
    version: str
    #: Calls that are past their time limit and cannot be ended, by kind.
    hung: Mapping[str, int] = field(default_factory=dict)
    #: What of its upkeep fails: causes by the name of what it does.
    failing: dict[str, str] = field(default_factory=dict)
    #: Does it know triggers of many?
    batches: bool = False

    @property
    def alive(self) -> bool:
        """Has it beaten of late? One that has not was killed, or hangs."""
        return self.ago < _GONE


class Unrouted(NamedTuple):
    """Messages for which no provider was found within the last quarter of an hour."""

    number: int
    #: The newest of them.
    id: str | None
    #: Class of the last error, and where or why.
    error: str | None
    why: str | None


#: Ids that one command reads of an index, and records that one round trip reads.
_PAGE = 200


class LedgerReader:
    """Reads the ledger of one namespace, and changes nothing.

    Args:
        timeout: Seconds that a command may take; short in web processes, longer in workers.

    Every method raises QueueUnavailable if Redis does not answer.
    """

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

    def _key(self, *parts: str) -> str:
        return ":".join((self.settings.namespace, *parts))

    @cached_property
    def _hashes(self) -> KeyedHashes:
        return KeyedHashes(self.redis, self.settings, self._scripts)

    def hidden(self, text: str) -> str:
        """See :meth:`KeyedHashes.hash_of`."""
        return self._hashes.hash_of(text)

    def hidden_before(self, text: str) -> str:
        """See :meth:`KeyedHashes.former_hash_of`."""
        return self._hashes.former_hash_of(text)

    # --- monitoring ----------------------------------------------------------------------------

    def now(self) -> float:
        """Redis's clock, in seconds since 1970."""
        with translated(self.settings):
            seconds, micros = self.redis.time()
        return float(seconds + micros / 1e6)

    def backlog(self) -> dict[str, Backlog]:
        """What is due, by lane."""
        now = self.now() * 1000
        with translated(self.settings):
            pipe = self.redis.pipeline(transaction=False)
            sets = [(lane, f"{lane}{part}") for lane in LANES for part in _PARTS.get(lane, ("",))]
            for _, name in sets:
                pipe.zcount(self._key("due", name), "-inf", now)
                pipe.zrange(self._key("due", name), 0, 0, withscores=True)
                pipe.zcard(self._key("due", name))
            answers = pipe.execute()
        found = dict.fromkeys(LANES, Backlog(0, 0.0, 0))
        for i, (lane, _) in enumerate(sets):
            due, first, held = answers[3 * i : 3 * i + 3]
            oldest = max(0.0, (now - first[0][1]) / 1000) if first else 0.0
            other = found[lane]
            found[lane] = Backlog(other.due + due, max(other.oldest, oldest), other.held + held)
        return found

    def has_due(self) -> bool:
        """Is there anything for upkeep to do, or something wrong that upkeep will name? All worker
        processes keep asking, and these commands cost Redis far less than the scripts of upkeep."""
        lanes = [f"{lane}{part}" for lane, parts in _PARTS.items() for part in parts]
        names = [self._key("due", lane) for lane in (*lanes, "watch", "ask")]
        names += [self._key("ends"), self._key("event_ends")]
        with translated(self.settings):
            pipe = self.redis.pipeline(transaction=False)
            pipe.time()
            for name in names:
                pipe.zrange(name, 0, 0, withscores=True)
            answers = pipe.execute(raise_on_error=False)
        if any(isinstance(answer, Exception) for answer in answers):
            return True
        (seconds, micros), *firsts = answers
        now = seconds * 1000 + micros / 1000
        return any(first[0][1] <= now for first in firsts if first)

    def oldest(self, state: State) -> float:
        """Seconds that the oldest message of a state is in it; 0.0 if there is none."""
        with translated(self.settings):
            pipe = self.redis.pipeline(transaction=False)
            pipe.time()
            pipe.zrange(self._key("state", state), 0, 0, withscores=True)
            (seconds, micros), first = pipe.execute()
        return max(0.0, seconds + micros / 1e6 - first[0][1] / 1000) if first else 0.0

    def oldest_event(self) -> float:
        """Seconds since the oldest event that is not handled began to wait for its handlers,
        however often they were tried; 0.0 if there is none."""
        with translated(self.settings):
            pipe = self.redis.pipeline(transaction=False)
            pipe.time()
            for state in (EventState.WAITING, EventState.RUNNING):
                pipe.zrange(self._key("state", state), 0, 0, withscores=True)
            (seconds, micros), *oldest = pipe.execute()
        began = [first[0][1] for first in oldest if first]
        return max(0.0, seconds + micros / 1e6 - min(began) / 1000) if began else 0.0

    def entered(self, state: State | EventState, since: datetime) -> int:
        """How many came into a state at a time or later, and are still in it."""
        least = int(since.timestamp() * 1000)
        with translated(self.settings):
            number: Any = self.redis.zcount(self._key("state", state), least, "+inf")
        return int(number)

    def expires(self, id: str) -> datetime | None:
        """Until when a message may be sent; None: there is no limit."""
        with translated(self.settings):
            ms: Any = self.redis.hget(self._key("msg", id), "expires")
        with suppress(ValueError, OverflowError, OSError):
            return datetime.fromtimestamp(int(float(ms)) / 1000, UTC) if ms else None
        return None

    def server(self) -> Server:
        """The Redis server, as far as its INFO tells."""
        return server_of(self.redis, self.settings)

    def warnings(self) -> Iterator[str]:
        """What of Redis's configuration would lose accepted messages."""
        return configuration_warnings(self.redis, self.settings)

    def packs_records(self) -> bool | None:
        """Does Redis keep messages as packed hashes, in half the memory? None: not known."""
        with translated(self.settings):
            try:
                limits: Any = self.redis.config_get("hash-max-*")
            except redis.exceptions.ResponseError:  # a managed server has no CONFIG
                limits = {}
            for name in ("hash-max-listpack-value", "hash-max-ziplist-value"):
                if name in limits:
                    return int(limits[name]) >= _PACKED_VALUE
            return self._newest_is_packed()

    def _newest_is_packed(self) -> bool | None:
        for state in (State.DELIVERED, State.SENT, State.QUEUED, State.FAILED):
            for id in self.ids_in(state, 1):
                hash = self._key("msg", id)
                sizes = [len(value) for value in self.redis.hgetall(hash).values()]
                if sizes and max(sizes) < _PACKED_VALUE / 4:  # in characters, some take four bytes
                    return bool(self.redis.object("encoding", hash) != "hashtable")
        return None

    def queued_triggers(self) -> dict[str, int]:
        """Length of the broker's queues, by name."""
        names = (self.settings.send_queue, self.settings.hook_queue)
        with translated(self.settings):
            pipe = self.redis.pipeline(transaction=False)
            for key in (self.settings.send_key, self.settings.hook_key):
                pipe.llen(key)
            return dict(zip(names, pipe.execute(), strict=True))

    def pauses(self) -> list[Pause]:
        """The providers that are paused, or wait for a probe after a pause."""
        found = []
        with translated(self.settings):
            pipe = self.redis.pipeline(transaction=False)
            pipe.time()
            pipe.smembers(self._key("pauses"))
            (seconds, micros), members = pipe.execute()
            now, names = seconds + micros / 1e6, sorted(members)
            for name in names:
                pipe.hgetall(self._key("pause", name))
            for name, fields in zip(names, pipe.execute(), strict=True):
                if "until" in fields:
                    # A damaged one is ended by the next message that meets it.
                    with suppress(ValueError, OverflowError, OSError):
                        ends = int(float(fields["until"])) / 1000
                        found.append(
                            Pause(
                                name,
                                datetime.fromtimestamp(ends, UTC),
                                int(fields.get("times", 1)),
                                fields.get("error"),
                                max(0.0, ends - now),
                            )
                        )
        return found

    def workers(self) -> list[Worker]:
        """The worker processes that are, or were within the last hour and did not end in order."""
        now = self.now()
        with translated(self.settings):
            told: Any = self.redis.hgetall(self._key("workers"))
        found = []
        for name, text in sorted(told.items()):
            seen, _, rest = text.partition(" ")
            with suppress(ValueError, TypeError, AttributeError):  # a damaged entry is nobody's
                about = json.loads(rest)
                found.append(
                    Worker(
                        name,
                        max(0.0, now - int(seen) / 1000),
                        tuple(map(str, about.get("queues", ()))),
                        int(about.get("concurrency", 0)),
                        str(about.get("version", "")),
                        {str(k): int(v) for k, v in dict(about.get("hung") or {}).items()},
                        {str(k): str(v) for k, v in dict(about.get("failing", {})).items()},
                        about.get("batches") is True,
                    )
                )
        return found

    def counters(self) -> dict[tuple[str, ...], int]:
        """All counters since the ledger began, by name and labels; see docs/metrics.md."""
        with translated(self.settings):
            counts: Any = self.redis.hgetall(self._key("counts"))
        return {
            tuple(name.split("|")): int(value)
            for name, value in counts.items()
            if value.removeprefix("-").isdecimal()  # a damaged one begins anew when it next counts
        }

    def count_damaged(self) -> int:
        """How many records are put aside as damaged."""
        with translated(self.settings):
            number: Any = self.redis.hlen(self._key("damaged"))
        return int(number)

    def unrouted(self) -> Unrouted:
        """Messages for which no provider was found lately, and have not gone out since."""
        now = int(self.now() * 1000)
        with translated(self.settings):
            pipe = self.redis.pipeline(transaction=False)
            pipe.zcount(self._key("unrouted"), now - _LATELY, "+inf")
            pipe.zrevrangebyscore(self._key("unrouted"), "+inf", now - _LATELY, start=0, num=1)
            pipe.hmget(self._key("unrouted_why"), "error", "why")
            number, newest, (error, why) = pipe.execute()
        return Unrouted(int(number), newest[0] if newest else None, error, why)

    def newest(self, states: Iterable[State]) -> dict[State, float]:
        """When a message last came into each of some states, in ms; without empty ones."""
        wanted = list(dict.fromkeys(states))
        with translated(self.settings):
            pipe = self.redis.pipeline(transaction=False)
            for state in wanted:
                pipe.zrevrange(self._key("state", state), 0, 0, withscores=True)
            answers = pipe.execute()
        return {s: found[0][1] for s, found in zip(wanted, answers, strict=True) if found}

    def select(
        self,
        states: Iterable[State],
        *,
        provider: str | None = None,
        error: str | None = None,
        since: datetime | None = None,
        until: Mapping[State, float] | None = None,
        on_damaged: Callable[[Damaged], None] | None = None,
    ) -> Iterator[Record]:
        """Records in some states, those that came into it last first; read page by page.

        What is done to a record meanwhile moves it out of its state, or to the front of another
        one: it comes once, and what comes into a state after the first page does not come.

        Args:
            provider: Only those whose last attempt was at this one.
            error: Only those whose last error is of this class, or has this code.
            since: Only those that came into their state at this time or later.
            until: What :meth:`newest` gave earlier: only those that were in these states then.
            on_damaged: Called with those that cannot be read; they are never in the answer.
        """
        least = int(since.timestamp() * 1000) if since else None
        for state, newest in (self.newest(states) if until is None else until).items():
            for ids in self._pages("state", state, since=least, until=newest):
                for record in self._records(ids, on_damaged):
                    if (
                        record.state == state
                        and provider in (None, record.provider)
                        and (error is None or error in (record.error, record.code))
                    ):
                        yield record

    def _records(
        self, ids: list[str], on_damaged: Callable[[Damaged], None] | None
    ) -> Iterator[Record]:
        with translated(self.settings):
            pipe = self.redis.pipeline(transaction=False)
            for id in ids:
                pipe.hgetall(self._key("msg", id))
            answers = pipe.execute(raise_on_error=False)  # one of them may be of the wrong type
        for id, fields in zip(ids, answers, strict=True):
            try:
                if isinstance(fields, ResponseError):
                    with translated(self.settings):
                        if "WRONGTYPE" not in str(fields):
                            raise fields
                    raise exc.DamagedRecord(self._not_a_hash("msg", id), id)
                record = parse_record(id, fields) if fields else None
            except exc.DamagedRecord as error:
                if on_damaged is not None:
                    on_damaged(Damaged(id, "message", error.cause))
                continue
            if record is not None:
                yield record
