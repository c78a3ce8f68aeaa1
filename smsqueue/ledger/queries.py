"""What can be read of the ledger: records, indexes, backlog, pauses, workers, counters."""

from __future__ import annotations

import hashlib
import heapq
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import redis
from redis.exceptions import ResponseError

from smsqueue import exc
from smsqueue.ledger.activity import (
    MINUTE,
    QUARTER_HOUR,
    Activity,
    Counts,
    Sample,
    measure_activity,
    parse_sample,
    sampled_counts,
)
from smsqueue.ledger.audit_log import AuditEntry, parse_entry
from smsqueue.ledger.client import connect, translated
from smsqueue.ledger.keyed_hashes import KeyedHashes
from smsqueue.ledger.pauses import OperatorPause, parse_held, parse_provider_pause
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
from smsqueue.ledger.search import FoundPage, Place, Search
from smsqueue.ledger.server_check import verify_server
from smsqueue.ledger.server_facts import Server, read_server
from smsqueue.ledger.tags import Progress, WaitingTags
from smsqueue.ledger.workers import Worker, parse_heartbeat
from smsqueue.message.opt_outs import OptOut
from smsqueue.message.serialization import to_json
from smsqueue.message.states import WAITING, EventState, State
from smsqueue.settings import Settings

__all__ = ["LANES", "Backlog", "LedgerReader", "Pause", "Unrouted"]

#: ``send``: waiting messages. ``watch``: leases and waits for reports. ``hook``: events.
LANES = ("send", "watch", "hook")

#: Lanes in which messages of paused tags are held, as in shared/pauses.lua.
_HELD_LANES = ("send", "send_bulk", "ask")

#: Suffixes of the due sets of a lane: single messages, and those of ``send_many``.
_PARTS = {"send": ("", "_bulk"), "hook": ("", "_bulk")}

#: Bytes that a field of a packed hash has to be allowed: texts and timelines exceed Redis's 64.
_PACKED_VALUE = 1024
#: Seconds for which processes that start do not repeat a warning that another one has logged.
_WARNED_SECONDS = 3600
#: Milliseconds, as in shared/provider_health.lua: messages are retried within ten minutes.
_LATELY = 900_000


class Backlog(NamedTuple):
    """What is due in a lane."""

    due: int
    #: Seconds since the oldest of it was due; 0.0 if nothing is.
    oldest: float
    #: Everything in the lane, due or not.
    held: int


@dataclass(frozen=True)
class Pause:
    """A provider that is not called for a while."""

    provider: str
    until: datetime
    #: Consecutive pauses; each is longer than the one before.
    times: int
    #: Class of the error that caused it.
    error: str | None
    #: Seconds until its end; 0.0: it has ended, and the next message probes the provider.
    left: float
    #: An operator paused it; then this is no pause after errors.
    operator: OperatorPause | None = None


class Unrouted(NamedTuple):
    """Messages for which no provider was found in the last 15 minutes."""

    number: int
    #: The newest of them.
    id: str | None
    #: Class of the last error, and where or why.
    error: str | None
    why: str | None


#: The states in the order in which a search reads them: a message usually moves on in it.
_STEPS = (
    *(State.SENDING, State.QUEUED, State.SCHEDULED, State.RETRYING, State.UNKNOWN, State.SENT),
    *(State.ACCEPTED, State.DELIVERED, State.UNDELIVERED, State.EXPIRED, State.FAILED),
    State.CANCELLED,
)


class _MatchingPage(NamedTuple):
    ids: list[str]
    #: Of the last entry that was read; the id is "" if there are no more.
    score: str
    id: str
    #: Entries that were read, whether they matched or not.
    number_read: int


#: Ids of an index, or records, that one round trip reads.
_PAGE = 200
#: Waiting messages from which the numbers of their tags are estimated.
_SAMPLES = 400


def _unless_all(name: str) -> str | None:
    return None if name == "*" else name


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
        #: False once CONFIG was refused.
        self._has_config = True

    def read(self, id: str) -> Record | None:
        """A message's record; None: there is none. DamagedRecord: it cannot be read."""
        fields = self._hash("msg", id)
        return parse_record(id, fields) if fields else None

    def read_event(self, id: str) -> dict[str, str] | None:
        """An event's fields; None: there is none. DamagedRecord: it is not a hash."""
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
        """Cause of damage of a record of the wrong type, worded as in shared/damage.lua."""
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
        """Can all of a message or event be read? LookupError: there is none."""
        kind, readable, _ = self.examine(id)
        if kind == "msg":
            try:
                return self.read(id) is not None
            except exc.DamagedRecord:
                return False
        return readable and self._hash(kind, id).get("state") in set(EventState)

    def damaged(self) -> list[Damaged]:
        """Records that were set aside as damaged, newest first; at most a thousand."""
        with translated(self.settings):
            entries: Any = self.redis.hgetall(self._key("damaged"))
        records = [parse_damaged(id, text) for id, text in entries.items()]
        return sorted(records, key=lambda one: one.at.timestamp() if one.at else 0.0, reverse=True)

    def damaged_entry(self, id: str) -> Damaged | None:
        """The entry of one damaged record; None: there is none."""
        with translated(self.settings):
            text: Any = self.redis.hget(self._key("damaged"), id)
        return parse_damaged(id, text) if text else None

    def handlers_done(self, event: str) -> set[str]:
        """Names of the handlers that have succeeded, of an event that is not over."""
        with translated(self.settings):
            names: Any = self.redis.smembers(self._key("done", event))
        return set(names)

    def find(self, number: str) -> Iterator[str]:
        """Ids of messages and incoming events of a number, newest first."""
        indexes = [self._ids_of(self.hash_of(number))]
        former = self.former_hash_of(number)
        if former:
            indexes.append(self._ids_of(former))
        # Ids begin with their time.
        yield from heapq.merge(*indexes, reverse=True)

    def was_sent_to(self, number: str) -> bool:
        """Is there a message among the newest records of a number?"""
        ids = list(islice(self.find(number), _PAGE))
        with translated(self.settings):
            pipe = self.redis.pipeline(transaction=False)
            for id in ids:
                pipe.exists(self._key("msg", id))
            return any(pipe.execute())

    def _ids_of(self, number_hash: str) -> Iterator[str]:
        for page in self._pages("number", number_hash):
            yield from page

    def opt_outs_of(self, number: str) -> list[OptOut]:
        """The opt-outs of a number (its digits, with the country code)."""
        hashes = [name for name in (self.hash_of(number), self.former_hash_of(number)) if name]
        return [opt_out for name in hashes for opt_out in self._opt_outs(name)]

    def opt_outs(self) -> Iterator[OptOut]:
        """All opt-outs, page by page, the last that changed first."""
        for page in self._pages("optouts"):
            for name in page:
                yield from self._opt_outs(name)

    def _opt_outs(self, number_hash: str) -> Iterator[OptOut]:
        try:
            fields = self._hash("optout", number_hash)
        except exc.DamagedRecord:
            fields = {"*|*": ""}
        number = fields.pop("number", "")
        for scope, text in fields.items():
            sender, _, category = scope.rpartition("|")
            try:
                entry = json.loads(text)
                at = datetime.fromtimestamp(entry["at"] / 1000, UTC)
                why, by = str(entry["why"]), str(entry["by"])
            except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError):
                at, why, by = datetime.fromtimestamp(0, UTC), "its entry cannot be read", ""
            yield OptOut(number, _unless_all(sender), _unless_all(category), at, why, by)

    def ids_in(self, state: State | EventState, limit: int = 100) -> list[str]:
        """Ids in a state, the last that entered it first."""
        ids = (id for page in self._pages("state", state) for id in page)
        return list(islice(ids, limit))

    def _pages(
        self,
        *index: str,
        since: float | None = None,
        until: float | None = None,
        size: int = _PAGE,
    ) -> Iterator[list[str]]:
        """Ids in an index, highest score first, with one bounded command for each page.

        The index may change between two pages: an entry that keeps its score is in one page, an
        entry whose score rises meanwhile is not returned (again).

        Args:
            since, until: Lowest and highest score, in ms.
            size: Ids in a page.
        """
        score, id = "+inf" if until is None else f"{until:.17g}", ""
        least = "-inf" if since is None else f"{since:.17g}"
        while True:
            answer = self._scripts.run("index_page", ":".join(index), score, id, least, size)
            if answer:
                yield answer[::2]
            if len(answer) < 2 * size:
                return
            id, score = answer[-2:]

    def _matching(
        self,
        *index: str,
        states: Mapping[State, tuple[float, float] | None],
        texts: Sequence[Sequence[str]] = (),
        after: tuple[str, str] = ("+inf", ""),
        since: float | None = None,
    ) -> Iterator[_MatchingPage]:
        """Messages in an index that match, highest score first; Redis compares them.

        Args:
            states: In one of these states, and if it is not None, entered between these times (ms).
            texts: One of each of these texts is in the message's JSON.
            after: Score and id of the entry after which to begin.
            since: Lowest score, in ms.

        Yields:
            What each script found: perhaps nothing.
        """
        wanted = to_json({str(state): bounds or () for state, bounds in states.items()})
        least = "-inf" if since is None else f"{since:.17g}"
        score, id = after
        while states:
            score, id, number_read, *ids = self._scripts.run(
                *("matching_page", ":".join(index), score, id, least, _PAGE),
                *(wanted, to_json(texts)),
            )
            yield _MatchingPage(ids, score, id, number_read)
            if not id:
                return

    def audit(
        self,
        *,
        since: datetime | None = None,
        by: str | None = None,
        action: str | None = None,
    ) -> Iterator[AuditEntry]:
        """What operators did, the last first; read page by page.

        Args:
            since: Only what was begun at this time or later.
            by: Only what this person did.
            action: Only this action, such as "cancel".
        """
        least, now = int(since.timestamp() * 1000) if since else None, self.now()
        for ids in self._pages("audit", since=least):
            with translated(self.settings):
                pipe = self.redis.pipeline(transaction=False)
                for id in ids:
                    pipe.hgetall(self._key("audit", id))
                answers = pipe.execute(raise_on_error=False)  # a key may have the wrong type
            for id, fields in zip(ids, answers, strict=True):
                entry = parse_entry(id, fields, now) if isinstance(fields, dict) else None
                if entry and by in (None, entry.by) and action in (None, entry.action):
                    yield entry

    def search(
        self,
        search: Search,
        place: Place | None = None,
        on_damaged: Callable[[Damaged], None] | None = None,
    ) -> Iterator[FoundPage]:
        """Messages that have what is searched, in steps of a few milliseconds.

        By key, provider's id, number or tag, an index names them, the newest first. By context
        alone everything is read, state by state, and then what has entered a state meanwhile: a
        message that is there all the time is found, also if it changes its state. The exception is
        one that gets no slot just then, and so goes back to its old place in the queue.

        Args:
            place: Where an earlier search ended.
            on_damaged: Called with records that cannot be read; they are never returned.
        """
        if search.idempotency_key is not None or search.msgid is not None:
            ids = self._ids_of_references(search)
            yield FoundPage(self._found(search, ids, on_damaged), len(ids), None)
            return
        if search.address is not None:
            every = self.find(search.address)
            while ids := list(islice(every, _PAGE)):
                yield FoundPage(self._found(search, ids, on_damaged), len(ids), None)
            return
        texts = [value.stored for value in search.context]
        place = place or Place(0, "+inf", "", int(self.now() * 1000))
        # What has changed its state by the time that it would be read, is in a later index.
        walks: list[tuple[tuple[str, ...], float | None]]
        if search.tag is not None:
            walks = [(("tag", search.tag), None)]
        else:
            walks = [(("state", state), since) for since in (None, place.began) for state in _STEPS]
        seen: set[str] = set()
        for number, (index, since) in enumerate(walks):
            if number < place.step:
                continue
            after = (place.score, place.id) if number == place.step else ("+inf", "")
            states = dict.fromkeys(State)
            pages = self._matching(*index, states=states, texts=texts, after=after, since=since)
            for page in pages:
                ids = [id for id in page.ids if id not in seen]
                records = self._found(search, ids, on_damaged)
                seen.update(record.id for record in records)
                here = Place(number, page.score, page.id, place.began)
                if not page.id:
                    here = Place(number + 1, "+inf", "", place.began)
                over = here.step == len(walks)
                yield FoundPage(records, page.number_read, None if over else here)

    def _found(
        self, search: Search, ids: list[str], on_damaged: Callable[[Damaged], None] | None
    ) -> list[Record]:
        return [record for record in self._records(ids, on_damaged) if search.matches(record)]

    def _ids_of_references(self, search: Search) -> list[str]:
        """Ids of the messages with an idempotency key, a provider's message id, or both."""
        matches: list[set[str]] = []
        if search.idempotency_key is not None:
            hashes = (
                self.hash_of(search.idempotency_key),
                self.former_hash_of(search.idempotency_key),
            )
            matches.append(self._texts_at("idem", [hash for hash in hashes if hash]))
        if search.msgid is not None:
            names = [f"{name}:{search.msgid}" for name in self._providers(search.provider)]
            references = self._texts_at("ref", names)
            matches.append({reference.rpartition(".")[0] for reference in references})
        return sorted(set.intersection(*matches), reverse=True)

    def _providers(self, name: str | None) -> set[str]:
        """This provider, or all that have been called."""
        if name is not None:
            return {name}
        return {labels[1] for labels in self.counters() if labels[0] == "attempts"}

    def _texts_at(self, kind: str, names: Iterable[str]) -> set[str]:
        with translated(self.settings):
            pipe = self.redis.pipeline(transaction=False)
            for name in names:
                pipe.get(self._key(kind, name))
            answers = pipe.execute(raise_on_error=False)  # a key may have the wrong type
        return {answer for answer in answers if isinstance(answer, str)}

    def counts(self) -> dict[str, int]:
        """How many messages and events are in each state."""
        states = [*State, *EventState]
        with translated(self.settings):
            pipe = self.redis.pipeline(transaction=False)
            for state in states:
                pipe.zcard(self._key("state", state))
            return {str(s): n for s, n in zip(states, pipe.execute(), strict=True)}

    def progress(self, tag: str) -> Progress:
        """How far the messages of a tag are, read a few milliseconds at a time."""
        score, id, since = "+inf", "", ""
        states: Counter[State] = Counter()
        lately = before = damaged = 0
        times: list[float] = []
        while True:
            answer = self._scripts.run("tag_progress", tag, score, id, since)
            score, id, since, now, *numbers = answer[:8]
            states.update({State(s): n for s, n in zip(answer[8::2], answer[9::2], strict=True)})
            lately, before, damaged = lately + numbers[0], before + numbers[2], damaged + numbers[3]
            times += [float(numbers[1])] if numbers[1] else []
            if not id:
                break
        # A campaign that began seconds ago would seem slow over a whole minute.
        began = float(since) if before else min(times, default=float(since))
        seconds = max(1.0, (float(now) - began) / 1000)
        ends = [self._accepted_at(tag, place) for place in (0, -1)]
        return Progress(tag, dict(states), lately / seconds, ends[0], ends[1], damaged)

    def _accepted_at(self, tag: str, place: int) -> datetime | None:
        with translated(self.settings):
            entries: Any = self.redis.zrange(self._key("tag", tag), place, place, withscores=True)
        return datetime.fromtimestamp(entries[0][1] / 1000, UTC) if entries else None

    def waiting_tags(self, most: int = 5) -> WaitingTags:
        """The tags with the most waiting messages.

        Args:
            most: Tags at most.
        """
        total, number_read, *pairs = self._scripts.run("waiting_tags", _SAMPLES, most)
        tags = dict(zip(pairs[::2], pairs[1::2], strict=True))
        return WaitingTags(tags, number_read >= total)

    def close(self) -> None:
        """Close the connections."""
        self.redis.close()

    def verify_server(self) -> None:
        """Check the server once.

        Raises:
            RedisMisconfigured: it cannot hold the ledger with its configuration.
            QueueUnavailable: it does not answer.
        """
        verify_server(self.redis, self.settings)

    def _key(self, *parts: str) -> str:
        return ":".join((self.settings.namespace, *parts))

    @cached_property
    def _hashes(self) -> KeyedHashes:
        return KeyedHashes(self.redis, self.settings, self._scripts)

    def hash_of(self, text: str) -> str:
        """See :meth:`KeyedHashes.hash_of`."""
        return self._hashes.hash_of(text)

    def former_hash_of(self, text: str) -> str:
        """See :meth:`KeyedHashes.former_hash_of`."""
        return self._hashes.former_hash_of(text)

    # --- monitoring ----------------------------------------------------------------------------

    def now(self) -> float:
        """Redis's clock, in seconds since 1970."""
        with translated(self.settings):
            seconds, micros = self.redis.time()
        return float(seconds + micros / 1e6)

    def clock_ahead(self) -> float:
        """Seconds by which Redis's clock is ahead of this machine's; negative: behind it."""
        before = time.time()
        now = self.now()
        return now - (before + time.time()) / 2

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
        backlog = dict.fromkeys(LANES, Backlog(0, 0.0, 0))
        for i, (lane, _) in enumerate(sets):
            due, oldest_entry, held = answers[3 * i : 3 * i + 3]
            oldest = max(0.0, (now - oldest_entry[0][1]) / 1000) if oldest_entry else 0.0
            subtotal = backlog[lane]
            backlog[lane] = Backlog(
                subtotal.due + due, max(subtotal.oldest, oldest), subtotal.held + held
            )
        return backlog

    def has_due(self) -> bool:
        """Is anything due, or an index damaged, which upkeep reports?

        For idle workers, which ask all the time: these commands cost Redis far less than the
        scripts of upkeep.
        """
        lanes = [f"{lane}{part}" for lane, parts in _PARTS.items() for part in parts]
        names = [self._key("due", lane) for lane in (*lanes, "watch", "ask", "release")]
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
        """Seconds since the oldest message of a state entered it; 0.0: there is none."""
        with translated(self.settings):
            pipe = self.redis.pipeline(transaction=False)
            pipe.time()
            pipe.zrange(self._key("state", state), 0, 0, withscores=True)
            (seconds, micros), first = pipe.execute()
        return max(0.0, seconds + micros / 1e6 - first[0][1] / 1000) if first else 0.0

    def oldest_event(self) -> float:
        """Seconds that the oldest unhandled event has waited, retries included; 0.0: none."""
        with translated(self.settings):
            pipe = self.redis.pipeline(transaction=False)
            pipe.time()
            for state in (EventState.WAITING, EventState.RUNNING):
                pipe.zrange(self._key("state", state), 0, 0, withscores=True)
            (seconds, micros), *oldest = pipe.execute()
        began = [first[0][1] for first in oldest if first]
        return max(0.0, seconds + micros / 1e6 - min(began) / 1000) if began else 0.0

    def entered(self, state: State | EventState, since: datetime) -> int:
        """How many entered a state at a time or later, and are still in it."""
        least = int(since.timestamp() * 1000)
        with translated(self.settings):
            number: Any = self.redis.zcount(self._key("state", state), least, "+inf")
        return int(number)

    def expires(self, id: str) -> datetime | None:
        """When a message's validity ends; None: it does not end."""
        with translated(self.settings):
            ms: Any = self.redis.hget(self._key("msg", id), "expires")
        with suppress(ValueError, OverflowError, OSError):
            return datetime.fromtimestamp(int(float(ms)) / 1000, UTC) if ms else None
        return None

    def server(self, *, configuration: bool = False) -> Server:
        """The Redis server, as far as it tells.

        Args:
            configuration: Ask for settings that only CONFIG tells. Redis lists refused commands in
                ACL LOG, so a process does so once if they are refused.
        """
        asks = configuration and self._has_config
        server, has_config = read_server(self.redis, self.settings, configuration=asks)
        if asks:
            self._has_config = has_config
        return replace(server, was_asked=configuration)

    def warnings(self) -> Iterator[str]:
        """What of Redis's configuration loses accepted messages."""
        for risk in self.server().risks(self.settings):
            if risk.level == "problem":
                yield str(risk)

    def is_news(self, text: str) -> bool:
        """Whether no process of this namespace has logged a warning within the last hour.

        If Redis takes no writes, it is.
        """
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        try:
            key = self._key("warned", digest)
            return bool(self.redis.set(key, 1, nx=True, ex=_WARNED_SECONDS))
        except (redis.exceptions.RedisError, OSError):
            return True

    def packs_records(self) -> bool | None:
        """Does Redis store messages as packed hashes, in half the memory? None: not known."""
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
                    with suppress(ResponseError):  # a managed server may have no OBJECT
                        return bool(self.redis.object("encoding", hash) != "hashtable")
        return None

    def queued_triggers(self) -> dict[str, int]:
        """Lengths of the broker's queues, by name."""
        names = (self.settings.send_queue, self.settings.hook_queue)
        with translated(self.settings):
            pipe = self.redis.pipeline(transaction=False)
            for key in (self.settings.send_key, self.settings.hook_key):
                pipe.llen(key)
            return dict(zip(names, pipe.execute(), strict=True))

    def pauses(self) -> list[Pause]:
        """The providers that are paused, or wait for a probe after a pause."""
        pauses = []
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
                    # The next message ends a damaged pause.
                    with suppress(ValueError, OverflowError, OSError):
                        by_operator = parse_provider_pause(name, fields, now)
                        ends = int(float(fields["until"])) / 1000
                        if by_operator and by_operator.until:
                            ends = by_operator.until.timestamp()
                        pauses.append(
                            Pause(
                                name,
                                datetime.fromtimestamp(ends, UTC),
                                int(fields.get("times", 1)),
                                fields.get("error"),
                                max(0.0, ends - now),
                                by_operator,
                            )
                        )
        return pauses

    def operator_pauses(self) -> list[OperatorPause]:
        """What operators have paused, with the number of messages that wait because of it."""
        with translated(self.settings):
            pipe = self.redis.pipeline(transaction=False)
            pipe.time()
            pipe.hgetall(self._key("held"))
            (seconds, micros), held = pipe.execute()
            now = seconds + micros / 1e6
            parsed = [parse_held(scope, text, now) for scope, text in sorted(held.items())]
            parsed += [pause.operator for pause in self.pauses()]
            pauses = [pause for pause in parsed if pause is not None]
            of_providers = [pause for pause in pauses if pause.kind == "provider"]
            of_others = [pause for pause in pauses if pause.kind != "provider"]
            for pause in of_providers:
                pipe.hmget(self._key("pause", pause.name), "single", "bulk")
            ends = pipe.execute()
            # The places in the queues of a paused provider are a millisecond apart.
            for single, bulk in ends:
                pipe.zcount(self._key("due", "send"), f"({now * 1000:.0f}", single or "-inf")
                pipe.zcount(self._key("due", "send_bulk"), f"({now * 1000:.0f}", bulk or "-inf")
            for pause in of_others:
                for lane in _HELD_LANES:
                    pipe.zcard(self._key("held", lane, pause.scope))
            numbers = iter(pipe.execute())
        counted = [
            replace(pause, waiting=next(numbers) + next(numbers)) for pause in of_providers
        ] + [replace(pause, waiting=sum(islice(numbers, len(_HELD_LANES)))) for pause in of_others]
        return counted

    def pause_of(self, id: str) -> OperatorPause | None:
        """The operator's pause because of which a message waits; None: it does not wait for one."""
        with translated(self.settings):
            # The former name of waiting_for, which older processes write, too: "behind".
            fields: Any = self.redis.hmget(
                self._key("msg", id), "state", "tags", "behind", "provider"
            )
        state, tags, behind, provider = fields
        if state not in (*WAITING, State.UNKNOWN):
            return None
        scopes = {"all", *(f"tag:{tag}" for tag in (tags or "").split())}
        names = (behind or "").split() if state in WAITING else [provider or ""]
        scopes |= {f"provider:{name}" for name in names}
        return next((pause for pause in self.operator_pauses() if pause.scope in scopes), None)

    def workers(self) -> list[Worker]:
        """Worker processes that run, and (not :attr:`Worker.alive`) those lost within an hour."""
        now = self.now()
        with translated(self.settings):
            entries: Any = self.redis.hgetall(self._key("workers"))
        workers = (parse_heartbeat(name, text, now) for name, text in sorted(entries.items()))
        return [worker for worker in workers if worker is not None]

    def counters(self) -> dict[tuple[str, ...], int]:
        """All counters since the ledger began, by name and labels; see docs/metrics.md."""
        with translated(self.settings):
            counts: Any = self.redis.hgetall(self._key("counts"))
        return {
            tuple(name.split("|")): int(value)
            for name, value in counts.items()
            if value.removeprefix(
                "-"
            ).isdecimal()  # a damaged counter restarts at its next increment
        }

    def activity(self, counters: Counts, counts: Mapping[str, int]) -> Activity | None:
        """What happened lately; None: this account may not read the samples.

        Args:
            counters: An answer of :meth:`counters`.
            counts: An answer of :meth:`counts`.
        """
        now = self.now()
        with translated(self.settings):
            pipe = self.redis.pipeline(transaction=False)
            for seconds in (MINUTE, QUARTER_HOUR):
                highest = f"{(now - seconds) * 1000:.0f}"
                pipe.zrevrangebyscore(
                    self._key("samples"), highest, "-inf", start=0, num=1, withscores=True
                )
            pipe.zrange(self._key("samples"), 0, 0, withscores=True)
            try:
                minute, quarter_hour, oldest = pipe.execute()
            except redis.exceptions.NoPermissionError:  # an ACL file of an older version
                return None
        waiting = counts[State.QUEUED] + counts[State.RETRYING]
        samples = [
            parse_sample(*found[0]) for found in (minute or oldest, quarter_hour or oldest) if found
        ]
        return measure_activity(
            Sample(now, waiting, sampled_counts(counters)), *(samples or (None, None))
        )

    def count_damaged(self) -> int:
        """How many records are set aside as damaged."""
        with translated(self.settings):
            number: Any = self.redis.hlen(self._key("damaged"))
        return int(number)

    def unrouted(self) -> Unrouted:
        """Messages for which no provider was found recently, and that were not sent since."""
        now = int(self.now() * 1000)
        with translated(self.settings):
            pipe = self.redis.pipeline(transaction=False)
            pipe.zcount(self._key("unrouted"), now - _LATELY, "+inf")
            pipe.zrevrangebyscore(self._key("unrouted"), "+inf", now - _LATELY, start=0, num=1)
            pipe.hmget(self._key("unrouted_why"), "error", "why")
            number, newest, (error, why) = pipe.execute()
        return Unrouted(int(number), newest[0] if newest else None, error, why)

    def newest(self, states: Iterable[State]) -> dict[State, float]:
        """When a message last entered each of some states, in ms; without empty states."""
        wanted = list(dict.fromkeys(states))
        with translated(self.settings):
            pipe = self.redis.pipeline(transaction=False)
            for state in wanted:
                pipe.zrevrange(self._key("state", state), 0, 0, withscores=True)
            answers = pipe.execute()
        return {s: last[0][1] for s, last in zip(wanted, answers, strict=True) if last}

    def select(
        self,
        states: Iterable[State],
        *,
        provider: str | None = None,
        error: str | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        until: Mapping[State, float] | None = None,
        on_damaged: Callable[[Damaged], None] | None = None,
    ) -> Iterator[Record]:
        """Records in some states, the last that entered a state first; read page by page.

        The caller may change them meanwhile: each record is returned once, and records that enter
        a state after its first page was read are not returned.

        Args:
            provider: Only records whose last attempt was at this provider.
            error: Only records whose last error has this class or code.
            tag: Only records with this tag, in all of these states, the newest message first.
            since: Only records that entered their state at this time or later.
            until: An earlier answer of :meth:`newest`: only records that were in these states then.
            on_damaged: Called with records that cannot be read; they are never returned.
        """
        least = int(since.timestamp() * 1000) if since else None
        last = self.newest(states) if until is None else until
        if tag is None:
            pages = (
                (frozenset([state]), ids)
                for state, newest in last.items()
                for ids in self._pages("state", state, since=least, until=newest)
            )
        else:
            entered = {state: (least or 0.0, newest) for state, newest in last.items()}
            pages = (
                (frozenset(last), page.ids) for page in self._matching("tag", tag, states=entered)
            )
        for page_states, ids in pages:
            for record in self._records(ids, on_damaged):
                if (
                    record.state in page_states
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
            answers = pipe.execute(raise_on_error=False)  # a key may have the wrong type
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
