"""The loop that finds what is due: lost triggers, retries, scheduled sends, dead workers.

Runs in every worker process; any number of them, at any time, do no harm.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable

from smsqueue import exc
from smsqueue.ledger import Failure, Ledger
from smsqueue.logs import transition
from smsqueue.masking import place_of
from smsqueue.pulse import Pulse
from smsqueue.queue import Queue
from smsqueue.settings import Settings

__all__ = ["Upkeep"]

log = logging.getLogger("smsqueue.upkeep")

#: Records that one script ends or forgets, and takes: so it keeps Redis busy for few milliseconds.
_SWEEP_QUOTA = 50
_QUOTA = 100
#: Scripts of one kind that a round runs, before others have their turn.
_SCRIPTS = 20
#: Triggers that one round publishes of a lane.
_MOST = 500
_LONGEST_PAUSE = 5.0
#: While there is a backlog the broker's queue, which is short, must not run empty.
_BUSY_PAUSE = 0.05
#: Seconds after which the same failure is logged again.
_REMIND = 60.0


class Upkeep:
    """A supervised thread.

    What it does has names, under which failures are reported: ``sweep`` (leases and waits that are
    over, and what is to be forgotten; one process at a time), and the lanes ``ask``, ``hook`` and
    ``send``. One that fails stops none of the others.

    Args:
        max_lapses: After so many workers died before its provider was called, a message has failed.
        pulse: Told after each round.
        remedies: What can be done at providers about messages that they may have.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        queue: Queue,
        *,
        max_lapses: int = 25,
        pulse: Pulse | None = None,
        remedies: dict[str, dict[str, int]] | None = None,
    ) -> None:
        self.settings = settings
        self.ledger = ledger
        self.queue = queue
        self.max_lapses = max_lapses
        self.pulse = pulse
        self.remedies = remedies
        #: What fails at present: causes by name.
        self.failing: dict[str, str] = {}
        self._name = secrets.token_hex(8)
        self._reminded: dict[str, tuple[str, float]] = {}
        self._full = False
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
        taken, failures = 0, list[Failure]()
        for _ in range(_SCRIPTS):
            due, failed, more = self.ledger.take(lane, _QUOTA)
            more = more or len(due) == _QUOTA
            taken += len(due)
            failures += failed
            if lane == "hook":
                self.queue.hook(event for event, _ in due)
            else:
                self.queue.deliver(due)
            if not more or taken >= _MOST:
                break
        self._tell(failures)
        return bool(taken)

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
        if self.pulse is not None:
            self.pulse.end()

    def _run(self) -> None:
        interval = pause = self.settings.upkeep_interval
        turned = 0.0
        while not self._stop.wait(pause):
            well, now = True, time.monotonic()
            try:
                if self._full or now - turned >= interval:
                    more, turned = self.turn(), now
                else:
                    more = self.refill()
            except Exception as error:
                well = False
                pause = min(max(pause, 0.1) * 2, _LONGEST_PAUSE)
                log.error("upkeep failed, again in %.0f s: %s", pause, type(error).__name__)
            else:
                # While the quota of the sweep is full it goes on at once.
                pause = 0.0 if self._full else min(interval, _BUSY_PAUSE) if more else interval
            if self.pulse is not None:
                try:
                    self.pulse.beat(redis=well, failing=self.failing)
                except Exception as error:
                    log.error("the heartbeat failed: %s", type(error).__name__)
