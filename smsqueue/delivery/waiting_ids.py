"""The ids that a worker process has received in triggers, until they begin on its loop."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple

from smsqueue import exc
from smsqueue.concurrency.greenlet_loop import Loop
from smsqueue.delivery.outcomes import TriggerResult
from smsqueue.logs import get_logger
from smsqueue.message.masking import place_of

__all__ = ["Intake", "Kind"]

log = get_logger("smsqueue.worker")

#: At least one in this number of ids that begin is bulk, if one waits.
_SHARE = 8
#: Number of ids that begin in one iteration of the loop.
_AT_ONCE = 8
#: Seconds between two checks of the waiting ids.
_CHECK_INTERVAL = 0.25


class Kind(NamedTuple):
    """The properties that all ids of a batch share."""

    #: Part of a campaign: single messages begin first.
    bulk: bool
    #: The sender named a provider or routing values.
    routed: bool = False


class Intake:
    """Ids of messages, or of events, that this process has received.

    A single id begins at once. The ids of a batch wait until there is a slot and are claimed only
    then, so that another worker can claim them in the meantime.

    Args:
        run: Does what is due for an id, on the loop. For an id of a batch, the second argument is
            the kind of slot that it may take; else it is None.
        may_begin: Whether another id of a kind may begin. Called on the loop. Each id has taken its
            slot before this is called for the next one.
        most_waiting: Approximate limit for the number of waiting ids.
        longest_wait: Seconds after which a waiting id is given back to the ledger, because another
            process may have room and its trigger would later count as lost.
        ended: Called on the loop with each id of a batch and its result.
        give_back: Gives ids back to the ledger; called in a thread.
    """

    def __init__(
        self,
        loop: Loop,
        run: Callable[[str, Kind | None], TriggerResult],
        *,
        may_begin: Callable[[Kind], bool],
        most_waiting: int,
        longest_wait: float,
        ended: Callable[[str, TriggerResult], None],
        give_back: Callable[[list[str]], None],
    ) -> None:
        self._loop = loop
        self._run = run
        self._may_begin = may_begin
        self._most_waiting = most_waiting
        self._ended = ended
        self._give_back = give_back
        self._longest_wait = longest_wait
        kinds = [Kind(bulk, routed) for routed in (False, True) for bulk in (False, True)]
        #: Ids with the time at which they arrived (monotonic).
        self._waiting = {kind: deque[tuple[str, float]]() for kind in kinds}
        self._known: set[str] = set()
        #: Number of single ids that have begun since the last bulk id.
        self._singles = 0
        self._running = 0
        #: Number of running ids that are bulk.
        self._bulk_running = 0
        self._begin_scheduled = self._check_scheduled = False
        self._closed = False
        self._lock = threading.Lock()

    @property
    def running(self) -> int:
        """Number of ids that have begun and not ended."""
        return self._running

    @property
    def bulk_running(self) -> int:
        """Number of running ids that are bulk."""
        return self._bulk_running

    @property
    def waiting(self) -> int:
        """Number of waiting ids."""
        return len(self._known)

    def room(self) -> int:
        """For how many ids there is room: 0 until a quarter of the limit is free, because small
        batches cost more per id."""
        room = 0 if self._closed else self._most_waiting - len(self._known)
        return room if room >= self._most_waiting / 4 else 0

    def submit(self, id: str) -> Future[TriggerResult]:
        """Begin a single id at once; from any thread. Returns a future with its result."""
        with self._lock:
            self._running += 1
            self._singles += 1
        return self._loop.run(partial(self._run_single, id))

    def _run_single(self, id: str) -> TriggerResult:
        try:
            return self._run(id, None)
        finally:
            self._end()

    def add(self, ids: Iterable[str], kind: Kind) -> None:
        """Add the ids of a batch; from any thread. Ids that find no room are given back."""
        self._loop.post(partial(self._add, list(ids), kind))

    def _add(self, ids: list[str], kind: Kind) -> None:
        # Up to twice the limit, because several workers may have published for the same room.
        room = 0 if self._closed else max(0, 2 * self._most_waiting - len(self._known))
        new = [id for id in dict.fromkeys(ids) if id not in self._known]
        now = time.monotonic()
        self._waiting[kind].extend((id, now) for id in new[:room])
        self._known.update(new[:room])
        self._give_back_soon(new[room:])
        self._begin_soon()
        if not self._check_scheduled:
            self._check_scheduled = True
            self._loop.asyncio.call_later(_CHECK_INTERVAL, self._check)

    def _check(self) -> None:
        """Give back ids that have waited too long, and begin others if slots have become free."""
        latest, late = time.monotonic() - self._longest_wait, list[str]()
        for waiting in self._waiting.values():
            while waiting and waiting[0][1] < latest:
                late.append(waiting.popleft()[0])
        self._known.difference_update(late)
        self._give_back_soon(late)
        self._check_scheduled = bool(self._known)
        if self._check_scheduled:
            self._begin_soon()
            self._loop.asyncio.call_later(_CHECK_INTERVAL, self._check)

    def _give_back_soon(self, ids: list[str]) -> None:
        if not ids:
            return
        try:
            self._loop.in_thread(partial(self._give_back, ids))
        except RuntimeError as error:  # upkeep finds them later
            log.warning("%d triggers were not given back: %s", len(ids), error)

    def _begin_soon(self) -> None:
        if not self._begin_scheduled:
            self._begin_scheduled = True
            self._loop.asyncio.call_soon(self._begin)

    def _begin(self) -> None:
        """Begin ids, a few in each iteration of the loop, so that others do not wait until hundreds
        have begun."""
        self._begin_scheduled = False
        begun = 0
        while (kinds := self._next_kind()) is not None:
            if begun == _AT_ONCE:
                return self._begin_soon()
            begun += 1
            kind, slot = kinds
            id, _ = self._waiting[kind].popleft()
            self._known.discard(id)
            self._singles = 0 if kind.bulk else self._singles + 1
            self._bulk_running += kind.bulk
            with self._lock:
                self._running += 1
            self._loop.spawn(partial(self._run_batch_id, id, kind, slot), bulk=kind.bulk)

    def _next_kind(self) -> tuple[Kind, Kind] | None:
        """The kind of the next id that may begin, and of its slot; None if none may."""
        single, bulk = [[kind for kind in self._waiting if kind.bulk is b] for b in (False, True)]
        if self._singles >= _SHARE - 1:
            # It is bulk's turn. It may take a slot for single ids, which have all the others.
            for kind in bulk:
                slot = kind._replace(bulk=False)
                if self._waiting[kind] and self._may_begin(slot):
                    return kind, slot
        for kind in (*single, *bulk):
            if self._waiting[kind] and self._may_begin(kind):
                return kind, kind
        return None

    def _run_batch_id(self, id: str, kind: Kind, slot: Kind) -> None:
        try:
            result = self._run(id, slot)
        except exc.QueueUnavailable as error:
            # Its claim was not confirmed, so no provider was called. Upkeep publishes it again.
            extra = {"id": id, "error": type(error).__name__}
            log.warning("%s waits, its claim was not confirmed: %s", id, error, extra=extra)
        except BaseException as error:  # no error may end the loop
            name, place = type(error).__name__, place_of(error)
            extra = {"id": id, "error": name}
            log.error("%s: %s at %s: please report this", id, name, place, extra=extra)
        else:
            self._ended(id, result)
        finally:
            self._bulk_running -= kind.bulk
            self._end()

    def _end(self) -> None:
        with self._lock:
            self._running -= 1
        if self._known:
            self._begin_soon()

    def close(self) -> None:
        """Give all waiting ids back; running ones go on."""
        emptied: Future[list[str]] = self._loop.run(self._empty)
        ids = emptied.result()
        if ids:
            self._give_back(ids)

    def _empty(self) -> list[str]:
        self._closed = True
        ids = [id for waiting in self._waiting.values() for id, _ in waiting]
        for waiting in self._waiting.values():
            waiting.clear()
        self._known.clear()
        return ids
