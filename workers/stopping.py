"""The end of a worker process: in order, and in any case."""

from __future__ import annotations

import faulthandler
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from celery import signals
from celery.worker import state

__all__ = ["Stopping"]

log = logging.getLogger("smsqueue.worker")

#: Seconds that are left after the longest call to record how it ended, and then to end.
_RECORDING, _MARGIN = 10.0, 30.0


class Stopping:
    """Ends the process when what it does has ended, or hangs.

    Args:
        longest: Seconds that what a stopping worker waits for may take.
        hung: How many threads of the pool are held by calls that hang.
    """

    def __init__(self, longest: float, hung: Callable[[], int]) -> None:
        self._longest = longest
        self._hung = hung
        self._asked = False
        # Sent when a signal arrives: the main thread itself may hang.
        signals.worker_shutting_down.connect(self._limit, weak=False)

    def _limit(self, **kwargs: Any) -> None:
        """Have the process end after the longest time, whatever its threads do: this needs no
        Python code to run any more. It writes where each thread is."""
        self._asked = True
        faulthandler.dump_traceback_later(self._longest + _MARGIN, exit=True, file=_stderr())

    def ask(self, why: str) -> None:
        """Stop as after SIGTERM, with exit code 1; from any thread, any number of times."""
        flags: Any = state
        if flags.should_stop is None:
            log.critical("this worker stops, so that its supervisor starts it anew: %s", why)
            self._limit()
            flags.should_stop = 1

    def wait(self, pool: Any) -> None:
        """Wait until the tasks that run have ended, but not for calls that hang: without them
        the process would not end by itself."""
        executor = getattr(pool, "executor", None)
        if not self._asked or executor is None:
            return
        executor.shutdown(wait=False, cancel_futures=True)
        idle = threading.Event()
        ends = time.monotonic() + self._longest + _RECORDING
        while busy := sum(thread.is_alive() for thread in executor._threads):
            if busy <= self._hung() or time.monotonic() > ends:
                log.critical("%d calls do not end: this process ends without them", busy)
                faulthandler.dump_traceback_later(2.0, exit=True, file=_stderr())
                return
            idle.wait(0.05)


def _stderr() -> int:
    """Celery puts something else in the place of ``sys.stderr``."""
    return sys.__stderr__.fileno() if sys.__stderr__ is not None else 2
