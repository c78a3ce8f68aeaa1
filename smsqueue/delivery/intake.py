"""What the triggers of one worker process ask for: hundreds at once, on one loop."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple

from smsqueue import exc
from smsqueue.concurrency.loop import Loop
from smsqueue.delivery.outcomes import Outcome
from smsqueue.logs import get_logger
from smsqueue.message.masking import place_of

__all__ = ["Intake", "Kind"]

log = get_logger("smsqueue.worker")

#: Of so many that begin one at least is bulk, if one waits.
_SHARE = 8
#: How many begin in one turn of the loop.
_AT_ONCE = 8
#: Seconds between two looks at what waits.
_LOOK = 0.25


class Kind(NamedTuple):
    """What the ids of a batch have in common."""

    #: Sent as one of many: single ones go first.
    bulk: bool
    #: Their sender named a provider or routing values.
    routed: bool = False


class Intake:
    """Messages, or events, that were handed to this process.

    What came alone begins at once. The ids of a batch wait here until they may begin, and only then
    are they claimed: until then another worker can have them.

    Args:
        run: Does what is due for an id, in a function on the loop; for one of a batch with the kind
            of slot that it may take.
        may_begin: May another one of a kind begin? Asked on the loop. What began has taken its slot
            by the time that the next one is asked for.
        most_waiting: Ids of batches that wait here, about.
        longest_wait: Seconds after which one that has not begun is given back: another process may
            have room, and later its trigger would count as lost.
        ended: Called on the loop with each id of a batch and how it ended.
        give_back: Gives ids back that will not begin here; called in a thread.
    """

    def __init__(
        self,
        loop: Loop,
        run: Callable[[str, Kind | None], Outcome],
        *,
        may_begin: Callable[[Kind], bool],
        most_waiting: int,
        longest_wait: float,
        ended: Callable[[str, Outcome], None],
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
        #: Ids, and when they came (monotonic).
        self._waiting = {kind: deque[tuple[str, float]]() for kind in kinds}
        self._known: set[str] = set()
        #: How many single ones have begun since the last bulk one.
        self._singles = 0
        self._running = 0
        #: Of those, ids of batches that were sent as one of many.
        self._bulk_running = 0
        self._awake = self._looking = False
        self._closed = False
        self._lock = threading.Lock()

    @property
    def running(self) -> int:
        """How many have begun and not ended."""
        return self._running

    @property
    def bulk_running(self) -> int:
        """How many of them are of a campaign."""
        return self._bulk_running

    @property
    def waiting(self) -> int:
        """How many ids of batches wait."""
        return len(self._known)

    def room(self) -> int:
        """For how many ids there is room: none until there is room for many, as the triggers of a
        few each cost more."""
        room = 0 if self._closed else self._most_waiting - len(self._known)
        return room if room >= self._most_waiting / 4 else 0

    def submit(self, id: str) -> Future[Outcome]:
        """Begin with one id at once; from any thread. Its outcome, or what was raised."""
        with self._lock:
            self._running += 1
            self._singles += 1
        return self._loop.run(partial(self._alone, id))

    def _alone(self, id: str) -> Outcome:
        try:
            return self._run(id, None)
        finally:
            self._end()

    def add(self, ids: Iterable[str], kind: Kind) -> None:
        """Take the ids of a batch; from any thread. What there is no room for is given back."""
        self._loop.post(partial(self._add, list(ids), kind))

    def _add(self, ids: list[str], kind: Kind) -> None:
        # Twice as many: several workers may have published for the same room.
        room = 0 if self._closed else max(0, 2 * self._most_waiting - len(self._known))
        new = [id for id in dict.fromkeys(ids) if id not in self._known]
        now = time.monotonic()
        self._waiting[kind].extend((id, now) for id in new[:room])
        self._known.update(new[:room])
        self._give_back_soon(new[room:])
        self._wake()
        if not self._looking:
            self._looking = True
            self._loop.asyncio.call_later(_LOOK, self._look)

    def _look(self) -> None:
        """Give back what has waited for too long; slots may be free although nothing ended."""
        latest, late = time.monotonic() - self._longest_wait, list[str]()
        for waiting in self._waiting.values():
            while waiting and waiting[0][1] < latest:
                late.append(waiting.popleft()[0])
        self._known.difference_update(late)
        self._give_back_soon(late)
        self._looking = bool(self._known)
        if self._looking:
            self._wake()
            self._loop.asyncio.call_later(_LOOK, self._look)

    def _give_back_soon(self, ids: list[str]) -> None:
        if not ids:
            return
        try:
            self._loop.in_thread(partial(self._give_back, ids))
        except RuntimeError as error:  # upkeep finds them later
            log.warning("%d triggers were not given back: %s", len(ids), error)

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            self._loop.asyncio.call_soon(self._begin)

    def _begin(self) -> None:
        """Begin what may begin, a few in each turn of the loop: what came alone, and the answers to
        what has begun, do not wait until hundreds have begun."""
        self._awake = False
        begun = 0
        while (found := self._next_kind()) is not None:
            if begun == _AT_ONCE:
                return self._wake()
            begun += 1
            kind, slot = found
            id, _ = self._waiting[kind].popleft()
            self._known.discard(id)
            self._singles = 0 if kind.bulk else self._singles + 1
            self._bulk_running += kind.bulk
            with self._lock:
                self._running += 1
            self._loop.spawn(partial(self._one_of_many, id, kind, slot), bulk=kind.bulk)

    def _next_kind(self) -> tuple[Kind, Kind] | None:
        """Of what waits and may begin now: its kind, and that of the slot that it may take."""
        single, bulk = [[kind for kind in self._waiting if kind.bulk is b] for b in (False, True)]
        if self._singles >= _SHARE - 1:
            # Bulk's turn: it may even take a slot for single ones, which have all the others.
            for kind in bulk:
                slot = kind._replace(bulk=False)
                if self._waiting[kind] and self._may_begin(slot):
                    return kind, slot
        for kind in (*single, *bulk):
            if self._waiting[kind] and self._may_begin(kind):
                return kind, kind
        return None

    def _one_of_many(self, id: str, kind: Kind, slot: Kind) -> None:
        try:
            outcome = self._run(id, slot)
        except exc.QueueUnavailable as error:
            # Its claim was not confirmed, nobody was called: upkeep finds it.
            log.warning("%s waits, its claim was not confirmed: %s", id, error, extra={"id": id})
        except BaseException as error:  # nothing may end the loop, which everything else runs on
            name, place = type(error).__name__, place_of(error)
            extra = {"id": id, "error_class": name}
            log.error("%s: %s at %s: please report this", id, name, place, extra=extra)
        else:
            self._ended(id, outcome)
        finally:
            self._bulk_running -= kind.bulk
            self._end()

    def _end(self) -> None:
        with self._lock:
            self._running -= 1
        if self._known:
            self._wake()

    def close(self) -> None:
        """Begin with nothing that waits, and give it back; what runs goes on."""
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
