"""Ends a worker process: in order if possible, and in bounded time in any case."""

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

__all__ = ["Shutdown"]

log = get_logger("smsqueue.worker")

#: Seconds after the longest call in which its outcome is settled.
_SETTLE_SECONDS = 10.0
#: Seconds after the longest call at which the process is ended by force.
_FORCE_SECONDS = 30.0
#: Seconds for the interpreter to end: Python waits for threads that handlers have started.
_EXIT_SECONDS = 15.0


class Shutdown:
    """Ends the process once its messages and events have ended, or when they hang.

    Args:
        longest_call: Longest duration, in seconds, of a call that a stopping worker waits for.
        hung: Returns the number of messages that are held by calls that hang.
    """

    def __init__(self, longest_call: float, hung: Callable[[], int]) -> None:
        self._longest_call = longest_call
        self._hung = hung
        self._requested = False
        # Celery sends this when a signal arrives, even if the main thread hangs.
        signals.worker_shutting_down.connect(self._set_limit, weak=False)

    def _set_limit(self, **kwargs: Any) -> None:
        if not self._requested:
            self._requested = True
            _exit_after(self._longest_call + _FORCE_SECONDS)

    def begin(self) -> None:
        """Note that the worker stops, for example after ``celery control shutdown`` or an error."""
        if not self._requested and threading.current_thread() is threading.main_thread():
            self._set_limit()
            # The worker may be part of a program that goes on.
            signals.worker_shutdown.connect(_remove_limit, weak=False)

    def request(self, reason: str) -> None:
        """Stop as after SIGTERM, with exit code 1; from any thread, any number of times."""
        flags: Any = state
        if flags.should_stop is None:
            log.critical("this worker stops, so that its supervisor restarts it: %s", reason)
            self._set_limit()
            flags.should_stop = 1

    def wait(self, pool: Any, running: Callable[[], int]) -> None:
        """Wait for running messages and events, but not for calls that hang, which would keep the
        process from ending.

        Args:
            running: Returns the number of messages and events that have begun and not ended.
        """
        executor = getattr(pool, "executor", None)
        if not self._requested or executor is None:
            return
        executor.shutdown(wait=False, cancel_futures=True)
        idle = threading.Event()
        ends = time.monotonic() + self._longest_call + _SETTLE_SECONDS
        while running() or any(thread.is_alive() for thread in executor._threads):
            busy = running()
            if 0 < busy <= self._hung() or time.monotonic() > ends:
                log.critical("%d calls do not end: this process ends without them", busy)
                _exit_after(2.0)
                return
            idle.wait(0.05)
        _exit_after(_EXIT_SECONDS)


def _exit_after(seconds: float) -> None:
    """Exit after some seconds whatever the threads do, since no Python code has to run for it. It
    writes the stack of each thread, without values, to stderr."""
    # Celery replaces ``sys.stderr``.
    file = sys.__stderr__.fileno() if sys.__stderr__ is not None else 2
    faulthandler.dump_traceback_later(seconds, exit=True, file=file)


def _remove_limit(**kwargs: Any) -> None:
    faulthandler.cancel_dump_traceback_later()
