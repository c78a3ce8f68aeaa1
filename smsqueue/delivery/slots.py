"""Limits the number of calls in flight per provider, so that a slow one delays no other."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from smsqueue.ledger import SlotUse

__all__ = ["Slots"]

_NONE: Mapping[str, int] = {}

#: Longest delay, in seconds, before a message that got no slot is retried.
_LONGEST_WAIT = 30.0
#: Beyond that delay, retries are this many seconds apart.
_RETRY_INTERVAL = 0.05
#: The share of a group's slots that bulk may hold.
_BULK_SHARE = 7 / 8
#: Seconds between two counts of hung calls.
_COUNT_INTERVAL = 0.25
#: Slots of a group before its first success.
_FIRST = 32
#: Seconds after its deadline at which a provider's call counts as hung.
_OVERDUE = 30.0


@dataclass
class _Use:
    limit: float
    running: int = 0
    #: Smoothed duration of a call in seconds.
    seconds: float = 0.1
    #: When the next message that gets no slot may be retried (monotonic), by whether it is bulk.
    next_retry: dict[bool, float] = field(default_factory=lambda: {False: 0.0, True: 0.0})
    #: When a slot was last taken or became free (monotonic).
    moved: float = 0.0


class Slots:
    """The slots of one worker process. Each provider is a group; event handlers are another.

    A group begins with a few slots. A failure halves its limit and a success adds one, so without
    failures the limit doubles with each round of calls. An eighth of the slots is reserved for
    single messages, so that they do not wait behind a campaign.

    Args:
        per_group: Slots of a group.
        most: Slots of groups that have another number.
    """

    def __init__(self, per_group: int, most: Mapping[str, int] = _NONE) -> None:
        self._per_group = per_group
        self._most = dict(most)
        self._uses: dict[str, _Use] = {}
        #: Running calls of providers: the group, and when the call counts as hung (monotonic).
        self._calls: dict[object, tuple[str, float]] = {}
        self._lately_hung = Counter[str]()
        self._next_look = 0.0
        self._lock = threading.Lock()

    def most(self, group: str) -> int:
        """The slots of a group."""
        return self._most.get(group, self._per_group)

    def _use(self, group: str) -> _Use:
        if group not in self._uses:
            self._uses[group] = _Use(limit=min(_FIRST, self.most(group)))
        return self._uses[group]

    def _is_free(self, group: str, use: _Use, bulk: bool) -> bool:
        limit = max(1, int(use.limit * _BULK_SHARE if bulk else use.limit))
        if use.running < min(limit, self.most(group)):
            return True
        # A hung call keeps its slot, but does not count against the limit.
        return use.running < self.most(group) and use.running - self._hung_of(group) < limit

    def free(self, group: str, *, bulk: bool = False) -> bool:
        """Whether :meth:`take` would succeed now."""
        with self._lock:
            return self._is_free(group, self._use(group), bulk)

    def take(self, group: str, *, bulk: bool = False) -> bool:
        """Take a slot if there is one; returns whether there was."""
        with self._lock:
            use = self._use(group)
            if not self._is_free(group, use, bulk):
                return False
            use.running += 1
            use.moved = time.monotonic()
            return True

    def enter(self, group: str, *, bulk: bool = False) -> float:
        """Take a slot; returns 0, or the seconds after which to retry.

        Rejected callers get staggered delays that match the rate at which slots free up. While no
        slot is taken or freed, that rate decreases. Single messages do not wait behind bulk.
        """
        if self.take(group, bulk=bulk):
            return 0.0
        with self._lock:
            use = self._use(group)
            now = time.monotonic()
            interval = max(use.seconds, now - use.moved) / max(1, int(use.limit))
            turn = use.next_retry[bulk]
            late = max(turn, now + _LONGEST_WAIT) + _RETRY_INTERVAL
            use.next_retry[bulk] = turn = min(max(turn, now) + interval, late)
            return max(0.05, turn - now)

    def give_back(self, group: str) -> None:
        """Release a slot that was not used."""
        with self._lock:
            self._use(group).running -= 1

    def leave(self, group: str, seconds: float, *, well: bool) -> None:
        """Release a slot.

        Args:
            seconds: Duration of the call.
            well: Whether the provider works.
        """
        with self._lock:
            use = self._use(group)
            use.running -= 1
            use.moved = time.monotonic()
            use.seconds += (seconds - use.seconds) / 8
            use.limit = min(self.most(group), use.limit + 1) if well else max(1, use.limit / 2)

    def usage(self) -> dict[str, SlotUse]:
        """The slots of each group; of a provider also before its first call."""
        with self._lock:
            uses = {group: self._use(group) for group in {**self._most, **self._uses}}
            return {
                group: SlotUse(use.running, int(min(use.limit, self.most(group))), self.most(group))
                for group, use in uses.items()
            }

    @contextmanager
    def calling(self, group: str, deadline: float) -> Iterator[None]:
        """A context for a provider's call, which counts as hung some time after its deadline.

        Args:
            deadline: In seconds.
        """
        call = object()
        with self._lock:
            self._calls[call] = group, time.monotonic() + deadline + _OVERDUE
        try:
            yield
        finally:
            with self._lock:
                del self._calls[call]

    def _hung_of(self, group: str) -> int:
        """Number of hung calls of a group, at most a quarter of a second old."""
        now = time.monotonic()
        if now >= self._next_look:
            self._lately_hung, self._next_look = self._hung(), now + _COUNT_INTERVAL
        return self._lately_hung[group]

    def _hung(self) -> Counter[str]:
        now = time.monotonic()
        return Counter(group for group, ends in self._calls.values() if ends < now)

    def hung(self) -> Counter[str]:
        """Number of hung calls, by group."""
        with self._lock:
            return self._hung()

    @contextmanager
    def held(self, group: str, *, bulk: bool = False) -> Iterator[float]:
        """A context that holds a slot; yields the result of :meth:`enter`."""
        wait = self.enter(group, bulk=bulk)
        began = time.monotonic()
        try:
            yield wait
        finally:
            if not wait:
                self.leave(group, time.monotonic() - began, well=True)
