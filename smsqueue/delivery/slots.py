"""How many calls of each provider are in flight, so that its trouble stays its own."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Slots"]

_NONE: Mapping[str, int] = {}

#: Seconds after which who found no slot looks again, even if none can be free by then.
_LONGEST_WAIT = 30.0
#: After that they come one by one, so many seconds apart: each look costs the others time.
_APART = 0.05
#: The part of a group's slots that messages sent as one of many may hold.
_BULK = 7 / 8
#: Seconds after which calls that have hung are counted anew.
_LOOK = 0.25
#: Slots of a group before its first success.
_FIRST = 32
#: A provider's call that lasts so many seconds longer than its deadline has hung.
_OVERDUE = 30.0


@dataclass
class _Use:
    limit: float
    running: int = 0
    #: Smoothed seconds that a call takes.
    seconds: float = 0.1
    #: When the next message that found no slot may come back: single ones, and bulk.
    next_turn: dict[bool, float] = field(default_factory=lambda: {False: 0.0, True: 0.0})
    #: When a slot was last taken or became free.
    moved: float = 0.0


class Slots:
    """The slots of one worker process. Each provider is a group with slots of its own, the handlers
    of events are another.

    A group begins with a few. Each failure halves what it may hold, each success adds one: as long
    as all goes well, that doubles with each round of calls. An eighth of it is for single messages
    only, so that they need not wait for a slot behind a campaign.

    Args:
        usual: Slots of a group.
        most: The same for groups that have another number.
    """

    def __init__(self, usual: int, most: Mapping[str, int] = _NONE) -> None:
        self._usual = usual
        self._most = dict(most)
        self._uses: dict[str, _Use] = {}
        #: Calls of providers that run: the group, and when each has hung (monotonic).
        self._calls: dict[object, tuple[str, float]] = {}
        self._lately_hung = Counter[str]()
        self._next_look = 0.0
        self._lock = threading.Lock()

    def most(self, group: str) -> int:
        """The slots of a group."""
        return self._most.get(group, self._usual)

    def _use(self, group: str) -> _Use:
        if group not in self._uses:
            self._uses[group] = _Use(limit=min(_FIRST, self.most(group)))
        return self._uses[group]

    def _is_free(self, group: str, use: _Use, bulk: bool) -> bool:
        limit = max(1, int(use.limit * _BULK if bulk else use.limit))
        if use.running < min(limit, self.most(group)):
            return True
        # What has hung keeps its slot, but is no reason to call that provider less.
        return use.running < self.most(group) and use.running - self._hung_of(group) < limit

    def free(self, group: str, *, bulk: bool = False) -> bool:
        """Would :meth:`take` take a slot now?"""
        with self._lock:
            return self._is_free(group, self._use(group), bulk)

    def take(self, group: str, *, bulk: bool = False) -> bool:
        """Take a slot, if there is one; ``bulk``: for what was sent as one of many."""
        with self._lock:
            use = self._use(group)
            if not self._is_free(group, use, bulk):
                return False
            use.running += 1
            use.moved = time.monotonic()
            return True

    def enter(self, group: str, *, bulk: bool = False) -> float:
        """Take a slot: 0, or the seconds after which to try again.

        Those who are sent away come back one after the other, at the pace at which the group's
        slots become free: calls that hang take at least as long as no slot has moved. Single ones
        do not stand in line behind bulk.
        """
        if self.take(group, bulk=bulk):
            return 0.0
        with self._lock:
            use = self._use(group)
            now = time.monotonic()
            pace = max(use.seconds, now - use.moved) / max(1, int(use.limit))
            turn = use.next_turn[bulk]
            late = max(turn, now + _LONGEST_WAIT) + _APART
            use.next_turn[bulk] = turn = min(max(turn, now) + pace, late)
            return max(0.05, turn - now)

    def give_back(self, group: str) -> None:
        """Give back a slot that was not used."""
        with self._lock:
            self._use(group).running -= 1

    def leave(self, group: str, seconds: float, *, well: bool) -> None:
        """Give a slot back, with how long it was held and whether the call went well."""
        with self._lock:
            use = self._use(group)
            use.running -= 1
            use.moved = time.monotonic()
            use.seconds += (seconds - use.seconds) / 8
            use.limit = min(self.most(group), use.limit + 1) if well else max(1, use.limit / 2)

    @contextmanager
    def calling(self, group: str, deadline: float) -> Iterator[None]:
        """While a provider is called: after its deadline, in seconds, the call counts as hung."""
        call = object()
        with self._lock:
            self._calls[call] = group, time.monotonic() + deadline + _OVERDUE
        try:
            yield
        finally:
            with self._lock:
                del self._calls[call]

    def _hung_of(self, group: str) -> int:
        """How many calls of a group have hung, as of late: this is asked for often."""
        now = time.monotonic()
        if now >= self._next_look:
            self._lately_hung, self._next_look = self._hung(), now + _LOOK
        return self._lately_hung[group]

    def _hung(self) -> Counter[str]:
        now = time.monotonic()
        return Counter(group for group, ends in self._calls.values() if ends < now)

    def hung(self) -> Counter[str]:
        """Calls of providers that are long past their deadline, by group."""
        with self._lock:
            return self._hung()

    @contextmanager
    def held(self, group: str, *, bulk: bool = False) -> Iterator[float]:
        """A slot for the time of a block; yields what :meth:`enter` returned."""
        wait = self.enter(group, bulk=bulk)
        began = time.monotonic()
        try:
            yield wait
        finally:
            if not wait:
                self.leave(group, time.monotonic() - began, well=True)
