"""The thread that finds what is due: lost triggers, retries, scheduled messages, dead workers.

It runs in every worker process. Any number of them may run at the same time.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping

from smsqueue import exc
from smsqueue.broker.queue import Queue
from smsqueue.ledger import Failure, Ledger, Remedies, Taken
from smsqueue.logs import get_logger, transition
from smsqueue.message.masking import place_of
from smsqueue.operation.heartbeat import Heartbeat
from smsqueue.settings import Settings

__all__ = ["Upkeep"]

log = get_logger("smsqueue.upkeep")

#: Largest number of records that one sweep script ends or deletes, so that it takes Redis a few
#: milliseconds.
_SWEEP_QUOTA = 50
#: Largest number of ids that one take script returns.
_QUOTA = 100
#: Number of scripts of one kind in one round.
_MAX_SCRIPTS = 20
#: Largest number of ids of a lane that one round publishes.
_MAX_IDS = 500
#: Up to this number of single ids each get a trigger of their own.
_MAX_SINGLE_TRIGGERS = 16
#: Approximate number of ids in one trigger.
_BATCH = _QUOTA
#: Seconds between two checks whether all workers support triggers with several ids.
_CHECK_WORKERS_SECONDS = 5.0
_LONGEST_PAUSE = 5.0
#: Pause in seconds while there is a backlog: the broker's queue is short and must not run empty.
_BUSY_PAUSE = 0.05
#: Seconds between two full rounds when nothing is due; they delete old records.
_FULL_ROUND_SECONDS = 5.0
#: Seconds between two log lines about the same failure.
_LOG_INTERVAL = 60.0
_NO_ROOMS: Mapping[str, Callable[[], int]] = {}


class Upkeep:
    """A thread that does the following in rounds.

    ``sweep`` ends expired leases and waits and deletes old records; only one process at a time does
    so. The lanes ``ask``, ``hook`` and ``send`` publish what is due. Failures are reported under
    these names. A failure of one does not stop the others.

    Args:
        max_lapses: Number of workers that may die before a message's provider was called; then the
            message fails.
        heartbeat: Updated after each round.
        remedies: By provider, what can be done about messages that it may have.
        rooms: By lane, a function that returns for how many ids this process has room. A lane
            without one is published in triggers of one id.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        queue: Queue,
        *,
        max_lapses: int = 25,
        heartbeat: Heartbeat | None = None,
        remedies: Mapping[str, Remedies] | None = None,
        rooms: Mapping[str, Callable[[], int]] = _NO_ROOMS,
    ) -> None:
        self.settings = settings
        self.ledger = ledger
        self.queue = queue
        self.max_lapses = max_lapses
        self.heartbeat = heartbeat
        self.remedies = remedies
        self.rooms = rooms
        #: Causes of current failures, by name.
        self.failing: dict[str, str] = {}
        self._name = secrets.token_hex(8)
        self._logged: dict[str, tuple[str, float]] = {}
        self._full = False
        #: Whether triggers with several ids are published: if all live workers support them.
        self.batches = False
        self._known_until = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def turn(self) -> bool:
        """Run one full round; returns whether more is to be done.

        Raises:
            QueueUnavailable: Redis is away. Any other failure is recorded in ``failing``.
        """
        self._full = self._tried("sweep", self._sweep)
        self._tried("ask", lambda: self._lane("ask"))
        return self.refill() or self._full

    def refill(self) -> bool:
        """Publish due events and messages; returns whether there were any."""
        events = self._tried("hook", lambda: self._lane("hook"))
        return self._tried("send", lambda: self._lane("send")) or events

    def _sweep(self) -> bool:
        failures, full = list[Failure](), True
        for _ in range(_MAX_SCRIPTS):
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
        number, failures, more = 0, list[Failure](), False
        room = self.rooms.get(lane) if self._know_batches() else None
        most = _MAX_IDS if room is None else min(_MAX_IDS, room())
        # There is always room for a few single ids, since a worker begins them first.
        left = max(most, _MAX_SINGLE_TRIGGERS)
        for _ in range(_MAX_SCRIPTS):
            quota = min(_QUOTA, left - number)
            taken = self.ledger.take_due(
                lane,
                quota,
                per_trigger=1 if room is None else _BATCH,
                most_bulk=max(0, most - number),
                few=_MAX_SINGLE_TRIGGERS,
            )
            number += len(taken.due)
            failures += taken.failures
            more = taken.more
            self._publish(lane, taken, together=room is not None)
            if number >= left or not (taken.more or len(taken.due) == quota):
                break
        self._tell(failures)
        # Without room there will be some soon.
        return bool(number) or more or not most

    def _publish(self, lane: str, taken: Taken, *, together: bool) -> None:
        """Publish what was taken, in triggers of several ids or of one."""
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
        """Whether all live workers support triggers with several ids; older versions do not."""
        now = time.monotonic()
        if now >= self._known_until:
            living = [worker for worker in self.ledger.workers() if worker.alive]
            self.batches = all(worker.batches for worker in living)
            self._known_until = now + _CHECK_WORKERS_SECONDS
        return self.batches

    def _tell(self, failures: list[Failure]) -> None:
        """Log records that could not be processed.

        Raises:
            LedgerError: Some of them are not damaged, so the failure is upkeep's own.
        """
        for failure in failures:
            if failure.aside:
                log.error(
                    "%s is damaged (%s) and was put aside: smsqueue repair %s",
                    failure.id,
                    failure.cause,
                    failure.id,
                    extra={"id": failure.id, "error": "DamagedRecord"},
                )
        others = [failure for failure in failures if not failure.aside]
        if others:
            raise exc.LedgerError(f"{others[0].id}: {others[0].cause}"[:200])

    def _tried(self, name: str, run: Callable[[], bool]) -> bool:
        """Run one part of a round and record its failure."""
        try:
            more = run()
        except Exception as error:  # the other parts have to run, whatever this is
            if isinstance(error, exc.QueueUnavailable) and not isinstance(error, exc.LedgerError):
                raise
            ours = isinstance(error, exc.LedgerError)
            cause = str(error) if ours else f"{type(error).__name__} at {place_of(error)}"
            self.failing[name] = cause
            before, when = self._logged.get(name, ("", 0.0))
            if cause != before or time.monotonic() - when > _LOG_INTERVAL:
                self._logged[name] = cause, time.monotonic()
                log.error("upkeep failed: %s: %s", name, cause)
            return False
        self.failing.pop(name, None)
        return more

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="smsqueue-upkeep", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its current round."""
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
                if self._full or now - turned >= _FULL_ROUND_SECONDS:
                    more, turned = self.turn(), now
                elif now - looked >= interval:
                    looked = now
                    more = self.ledger.has_due() and self.turn()
                elif more:
                    more = self.refill()
            except Exception as error:
                well = False
                pause = min(max(pause, 0.1) * 2, _LONGEST_PAUSE)
                name = type(error).__name__
                extra = {"error": name}
                log.error("upkeep failed, again in %.0f s: %s", pause, name, extra=extra)
            else:
                # If the sweep's quota was full, continue at once.
                pause = 0.0 if self._full else min(interval, _BUSY_PAUSE) if more else interval
            if self.heartbeat is not None:
                try:
                    self.heartbeat.beat(redis=well, failing=self.failing)
                except Exception as error:
                    log.error("the heartbeat failed: %s", type(error).__name__)
