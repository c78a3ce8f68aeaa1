"""The loop that finds what is due: lost triggers, retries, scheduled sends, dead workers.

Runs in every worker process; any number of them, at any time, do no harm.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping

from smsqueue import exc
from smsqueue.broker.queue import Queue
from smsqueue.ledger import Failure, Ledger, Taken
from smsqueue.logs import get_logger, transition
from smsqueue.message.masking import place_of
from smsqueue.operation.heartbeat import Heartbeat
from smsqueue.settings import Settings

__all__ = ["Upkeep"]

log = get_logger("smsqueue.upkeep")

#: Records that one script ends or forgets, and takes: so it keeps Redis busy for few milliseconds.
_SWEEP_QUOTA = 50
_QUOTA = 100
#: Scripts of one kind that a round runs, before others have their turn.
_SCRIPTS = 20
#: Ids that one round publishes of a lane.
_MOST = 500
#: So many single ones are published each by itself at most, whatever room there is.
_FEW = 16
#: Ids of one trigger, about.
_BATCH = _QUOTA
#: Seconds for which it is known whether all workers know triggers of many.
_KNOWN = 5.0
_LONGEST_PAUSE = 5.0
#: While there is a backlog the broker's queue, which is short, must not run empty.
_BUSY_PAUSE = 0.05
#: Seconds after which all is gone through although nothing is due: what is old is forgotten.
_AT_LEAST = 5.0
#: Seconds after which the same failure is logged again.
_REMIND = 60.0
_NO_ROOMS: Mapping[str, Callable[[], int]] = {}


class Upkeep:
    """A supervised thread.

    What it does has names, under which failures are reported: ``sweep`` (leases and waits that are
    over, and what is to be forgotten; one process at a time), and the lanes ``ask``, ``hook`` and
    ``send``. One that fails stops none of the others.

    Args:
        max_lapses: After so many workers died before its provider was called, a message has failed.
        heartbeat: Told after each round.
        remedies: What can be done at providers about messages that they may have.
        rooms: For how many ids of a lane this process has room now: a backlog is published in
            triggers of many. A lane that has none is published id by id.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        queue: Queue,
        *,
        max_lapses: int = 25,
        heartbeat: Heartbeat | None = None,
        remedies: dict[str, dict[str, int]] | None = None,
        rooms: Mapping[str, Callable[[], int]] = _NO_ROOMS,
    ) -> None:
        self.settings = settings
        self.ledger = ledger
        self.queue = queue
        self.max_lapses = max_lapses
        self.heartbeat = heartbeat
        self.remedies = remedies
        self.rooms = rooms
        #: What fails at present: causes by name.
        self.failing: dict[str, str] = {}
        self._name = secrets.token_hex(8)
        self._reminded: dict[str, tuple[str, float]] = {}
        self._full = False
        #: Are triggers of many published? Only while all workers that live know them.
        self.batches = False
        self._known_until = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def turn(self) -> bool:
        """One round over all lanes; True if more is to be done.

        Raises:
            QueueUnavailable: Redis is away. Any other failure is in ``failing``.
        """
        self._full = self._tried("sweep", self._sweep)
        self._tried("ask", lambda: self._lane("ask"))
        return self.refill() or self._full

    def refill(self) -> bool:
        """Fill the broker's queues up; True if events or messages were due."""
        events = self._tried("hook", lambda: self._lane("hook"))
        return self._tried("send", lambda: self._lane("send")) or events

    def _sweep(self) -> bool:
        failures, full = list[Failure](), True
        for _ in range(_SCRIPTS):
            lapses, failed, full = self.ledger.sweep(
                _SWEEP_QUOTA, self.max_lapses, self.remedies, self._name
            )
            for lapse in lapses:
                transition(
                    log,
                    lapse.id,
                    lapse.state,
                    error="WorkerLost",
                    why="its worker did not report back in time",
                    level=logging.WARNING,
                )
            self.queue.deliver([(lapse.id, 0) for lapse in lapses])
            self.queue.hook([lapse.event for lapse in lapses if lapse.event])
            failures += failed
            if not full:
                break
        self._tell(failures)
        return full

    def _lane(self, lane: str) -> bool:
        number, failures = 0, list[Failure]()
        room = self.rooms.get(lane) if self._know_batches() else None
        most = _MOST if room is None else min(_MOST, room())
        # What is single goes before others in a worker: there is room for a few of it in any case.
        left = max(most, _FEW)
        for _ in range(_SCRIPTS):
            quota = min(_QUOTA, left - number)
            taken = self.ledger.take(
                lane,
                quota,
                per_trigger=1 if room is None else _BATCH,
                most_bulk=max(0, most - number),
                few=_FEW,
            )
            number += len(taken.due)
            failures += taken.failures
            self._publish(lane, taken, together=room is not None)
            if number >= left or not (taken.more or len(taken.due) == quota):
                break
        self._tell(failures)
        return bool(number) or not most  # it has enough, and will soon want more

    def _publish(self, lane: str, taken: Taken, *, together: bool) -> None:
        """Publish what was taken: in triggers of many, but a few single ones each by itself."""
        if not together:
            return self._publish_each(lane, taken.due)
        single, bulk = taken.due[: taken.single], taken.due[taken.single :]
        if taken.alone:
            self._publish_each(lane, single)
            single = []
        for due, is_bulk in ((single, False), (bulk, True)):
            for routed in (False, True):
                ids = [id for id, _ in due if (id in taken.routed) is routed]
                if not ids:
                    continue
                if lane == "hook":
                    self.queue.hook_many(ids, bulk=is_bulk)
                else:
                    self.queue.deliver_many(ids, bulk=is_bulk, routed=routed)

    def _publish_each(self, lane: str, due: list[tuple[str, int]]) -> None:
        if lane == "hook":
            self.queue.hook(event for event, _ in due)
        else:
            self.queue.deliver(due)

    def _know_batches(self) -> bool:
        """Do all workers that live know triggers of many? Older ones would throw them away."""
        now = time.monotonic()
        if now >= self._known_until:
            living = [worker for worker in self.ledger.workers() if worker.alive]
            self.batches = all(worker.batches for worker in living)
            self._known_until = now + _KNOWN
        return self.batches

    def _tell(self, failures: list[Failure]) -> None:
        """Log what could not be looked at."""
        for failure in failures:
            if failure.aside:
                log.error(
                    "%s is damaged (%s) and was put aside: smsqueue repair %s",
                    failure.id,
                    failure.cause,
                    failure.id,
                    extra={"id": failure.id, "error_class": "DamagedRecord"},
                )
        others = [failure for failure in failures if not failure.aside]
        if others:
            raise exc.LedgerError(f"{others[0].id}: {others[0].cause}"[:200])

    def _tried(self, name: str, run: Callable[[], bool]) -> bool:
        """Do one thing; its failure is noted, and stops none of the others."""
        try:
            more = run()
        except Exception as error:  # whatever it is: without the others messages stay behind
            if isinstance(error, exc.QueueUnavailable) and not isinstance(error, exc.LedgerError):
                raise
            ours = isinstance(error, exc.LedgerError)
            cause = str(error) if ours else f"{type(error).__name__} at {place_of(error)}"
            self.failing[name] = cause
            before, when = self._reminded.get(name, ("", 0.0))
            if cause != before or time.monotonic() - when > _REMIND:
                self._reminded[name] = cause, time.monotonic()
                log.error("upkeep failed: %s: %s", name, cause)
            return False
        self.failing.pop(name, None)
        return more

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="smsqueue-upkeep", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, after the round that is running."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        if self.heartbeat is not None:
            self.heartbeat.end()

    def _run(self) -> None:
        interval = pause = self.settings.upkeep_interval
        looked = turned = 0.0
        more = False
        while not self._stop.wait(pause):
            well, now = True, time.monotonic()
            try:
                if self._full or now - turned >= _AT_LEAST:
                    more, turned = self.turn(), now
                elif now - looked >= interval:
                    looked = now
                    more = self.ledger.has_due() and self.turn()
                elif more:
                    more = self.refill()
            except Exception as error:
                well = False
                pause = min(max(pause, 0.1) * 2, _LONGEST_PAUSE)
                log.error("upkeep failed, again in %.0f s: %s", pause, type(error).__name__)
            else:
                # While the quota of the sweep is full it goes on at once.
                pause = 0.0 if self._full else min(interval, _BUSY_PAUSE) if more else interval
            if self.heartbeat is not None:
                try:
                    self.heartbeat.beat(redis=well, failing=self.failing)
                except Exception as error:
                    log.error("the heartbeat failed: %s", type(error).__name__)
