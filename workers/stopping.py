"""The end of a worker process: in order, and in any case."""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from celery import signals
from celery.worker import state

from smsqueue.logs import get_logger

__all__ = ["Stopping"]

log = get_logger("smsqueue.worker")

#: Seconds that are left after the longest call to record how it ended, and then to end.
_RECORDING, _MARGIN = 10.0, 30.0
#: Seconds that are left after all tasks have ended: a handler may have begun threads of its own,
#: which Python waits for.
_LEAVING = 15.0


class Stopping:
    """Ends the process when what it does has ended, or hangs.

    Args:
        longest: Seconds that what a stopping worker waits for may take.
        hung: How many messages are held by calls that hang.
    """

    def __init__(self, longest: float, hung: Callable[[], int]) -> None:
        self._longest = longest
        self._hung = hung
        self._asked = False
        # Sent when a signal arrives: the main thread itself may hang.
        signals.worker_shutting_down.connect(self._limit, weak=False)

    def _limit(self, **kwargs: Any) -> None:
        if not self._asked:
            self._asked = True
            _end_after(self._longest + _MARGIN)

    def closing(self) -> None:
        """The worker stops, perhaps without a signal: ``celery control shutdown``, or an error."""
        if not self._asked and threading.current_thread() is threading.main_thread():
            self._limit()
            # The worker may be a part of a program that goes on.
            signals.worker_shutdown.connect(_no_limit, weak=False)

    def ask(self, why: str) -> None:
        """Stop as after SIGTERM, with exit code 1; from any thread, any number of times."""
        flags: Any = state
        if flags.should_stop is None:
            log.critical("this worker stops, so that its supervisor starts it anew: %s", why)
            self._limit()
            flags.should_stop = 1

    def wait(self, pool: Any, running: Callable[[], int]) -> None:
        """Wait until what runs has ended, but not for calls that hang: without this the process
        would not end by itself.

        Args:
            running: Messages and events that have begun and not ended.
        """
        executor = getattr(pool, "executor", None)
        if not self._asked or executor is None:
            return
        executor.shutdown(wait=False, cancel_futures=True)
        idle = threading.Event()
        ends = time.monotonic() + self._longest + _RECORDING
        while running() or any(thread.is_alive() for thread in executor._threads):
            busy = running()
            if 0 < busy <= self._hung() or time.monotonic() > ends:
                log.critical("%d calls do not end: this process ends without them", busy)
                _end_after(2.0)
                return
            idle.wait(0.05)
        _end_after(_LEAVING)


def _end_after(seconds: float) -> None:
    """End the process, whatever its threads do: this needs no Python code to run any more. It
    writes where each thread is, without any values."""
    # Celery puts something else in the place of ``sys.stderr``.
    file = sys.__stderr__.fileno() if sys.__stderr__ is not None else 2
    faulthandler.dump_traceback_later(seconds, exit=True, file=file)


def _no_limit(**kwargs: Any) -> None:
    faulthandler.cancel_dump_traceback_later()
