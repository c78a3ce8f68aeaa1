"""The loop that finds what is due: lost triggers, retries, scheduled sends, dead workers.

Runs in every worker process; any number of them, at any time, do no harm.
"""

from __future__ import annotations

import logging
import threading
import time

from smsqueue.ledger import Ledger
from smsqueue.logs import transition
from smsqueue.pulse import Pulse
from smsqueue.queue import Queue
from smsqueue.settings import Settings

__all__ = ["Upkeep"]

log = logging.getLogger("smsqueue.upkeep")

_QUOTA = 500
_LONGEST_PAUSE = 5.0
#: While there is a backlog the broker's queue, which is short, must not run empty.
_BUSY_PAUSE = 0.05


class Upkeep:
    """A supervised thread.

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
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def turn(self) -> bool:
        """One round over all lanes; True if messages were due, so that more may be."""
        lapsed = self.ledger.sweep(_QUOTA, self.max_lapses, self.remedies)
        for lapse in lapsed:
            transition(
                log,
                lapse.id,
                lapse.state,
                error="WorkerLost",
                why="its worker did not report back in time",
                level=logging.WARNING,
            )
        self.queue.deliver([(lapse.id, 0) for lapse in lapsed])
        self.queue.hook([lapse.event for lapse in lapsed if lapse.event])
        self.queue.deliver(self.ledger.take("ask", _QUOTA))
        events = self.ledger.take("hook", _QUOTA)
        self.queue.hook(event for event, _ in events)
        return self.refill()

    def refill(self) -> bool:
        """Fill the send queue up; True if messages were due."""
        messages = self.ledger.take("send", _QUOTA)
        self.queue.deliver(messages)
        return bool(messages)

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
                if now - turned >= interval:
                    more, turned = self.turn(), now
                else:
                    more = self.refill()
            except Exception as error:  # whatever it is: without this loop messages stay behind
                well = False
                pause = min(max(pause, 0.1) * 2, _LONGEST_PAUSE)
                log.error("upkeep failed, again in %.0f s: %s", pause, type(error).__name__)
            else:
                pause = min(interval, _BUSY_PAUSE) if more else interval
            if self.pulse is not None:
                try:
                    self.pulse.beat(redis=well)
                except Exception as error:
                    log.error("the heartbeat failed: %s", type(error).__name__)
