"""Calls of the application's code that have a time limit.

Python cannot end a thread from outside. A call that exceeds its limit therefore keeps its own
daemon thread: its caller goes on, and the end of the process does not wait for it.

Calls from a loop share a few threads as long as they are quick: to compete for Python's lock costs
more than such calls do themselves. What takes longer keeps nobody waiting, the others get threads
of their own.
"""

from __future__ import annotations

import contextvars
import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from smsqueue.concurrency.loop import Loop, current_loop, wait
from smsqueue.logs import get_logger

__all__ = ["CallThreads", "CallTimeout"]

log = get_logger("smsqueue.worker")

#: So many calls from a loop run at once as long as each is quick: takes fewer seconds than this.
_FEW, _QUICK = 4, 0.01

T = TypeVar("T")


class CallTimeout(Exception):
    """A call did not end within its time limit, or an earlier one with its key still runs."""


class _Call:
    """One call, on its way to a thread and back."""

    def __init__(
        self,
        function: Callable[[], Any],
        kind: str,
        key: Hashable,
        late: Callable[[], None] | None,
    ) -> None:
        self.function = function
        self.kind = kind
        self.key = key
        self.late = late
        self.context = contextvars.copy_context()
        self.hung = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.ended = threading.Event()
        #: Where its caller runs and is woken; None: in a thread.
        self.loop = current_loop()
        self._woken = self.loop.asyncio.create_future() if self.loop is not None else None

    def end(self) -> None:
        """It has ended: its caller goes on."""
        self.ended.set()
        if self.loop is not None:
            with suppress(RuntimeError):  # the loop is closed, nobody waits any more
                self.loop.post(self._wake)

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended, but not longer; has it?"""
        if self.loop is None or self._woken is None:
            return self.ended.wait(seconds)
        over = self.loop.asyncio.call_later(seconds, self._wake)
        wait(self._woken)
        over.cancel()
        return self.ended.is_set()


class CallThreads:
    """Runs calls in daemon threads, which are reused, so that what a thread keeps (a connection to
    a database) is reused as well.

    Args:
        prepare: Called once in each new thread.
        most_hung: With so many calls past their limit, ``too_many`` is called, once.
        idle: Threads that are kept while nothing is called.
    """

    def __init__(
        self,
        *,
        prepare: Callable[[], object] = lambda: None,
        most_hung: int = 0,
        too_many: Callable[[], None] = lambda: None,
        idle: int = 50,
    ) -> None:
        self._prepare = prepare
        self._most_hung = most_hung
        self._too_many = too_many
        self._most_idle = idle
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[SimpleQueue[_Call]] = []
        #: Calls that run, by when they began (monotonic), and those that wait for a thread.
        self._running: dict[_Call, float] = {}
        self._waiting: deque[_Call] = deque()
        self._looking = False
        self._hung: set[_Call] = set()
        self._told = False

    def call(
        self,
        function: Callable[[], T],
        *,
        limit: float,
        kind: str,
        key: Hashable = None,
        late: Callable[[], None] | None = None,
    ) -> T:
        """Call a function in one of the threads, in a copy of the caller's context; its result.

        What it raises is raised here.

        Args:
            limit: Seconds to wait for it.
            kind: What is called, for :meth:`hung`.
            key: While a call with this key is past its limit, it is not called once more.
            late: Called in its thread if it succeeds after its limit.

        Raises:
            CallTimeout: it did not end in time, or is not called because of its key.
        """
        if self._process != os.getpid():  # forked: the threads stayed in the parent
            self._reset()
        call = _Call(function, kind, key, late)
        with self._lock:
            if key is not None and any(hung.key == key for hung in self._hung):
                raise CallTimeout("still runs since an earlier call")
            if call.loop is None or not self._is_crowded():
                self._begin(call)
            else:
                self._waiting.append(call)
                self._look_soon(call.loop)
        if not call.wait(limit):
            self._give_up(call)
            if not call.ended.is_set():
                raise CallTimeout(f"did not end within {limit:g} s")
        if call.error is not None:
            raise call.error
        result: T = call.result
        return result

    def hung(self) -> Counter[str]:
        """Calls that are past their limit and have not ended, by kind."""
        with self._lock:
            return Counter(call.kind for call in self._hung)

    def _is_crowded(self) -> bool:
        """Do as many calls run that may be quick as should at once? With the lock held."""
        latest = time.monotonic() - _QUICK
        return sum(began > latest for began in self._running.values()) >= _FEW

    def _begin(self, call: _Call) -> None:
        """Hand a call to an idle thread, or to a new one; with the lock held.

        Raises:
            RuntimeError: no thread can be started; the call has not begun.
        """
        if self._idle:
            inbox = self._idle.pop()
        else:
            inbox = SimpleQueue()
            threading.Thread(
                target=self._work, args=(inbox,), name="smsqueue-call", daemon=True
            ).start()
        self._running[call] = time.monotonic()
        inbox.put(call)

    def _look_soon(self, loop: Loop) -> None:
        """Begin with what waits although no call ends. Called on the loop."""
        if not self._looking:
            self._looking = True
            loop.asyncio.call_later(_QUICK, self._look, loop)

    def _look(self, loop: Loop) -> None:
        with self._lock:
            self._looking = False
            with suppress(RuntimeError):  # no thread can be started: those that are there do it
                while self._waiting and not self._is_crowded():
                    self._begin(self._waiting[0])
                    self._waiting.popleft()
            if self._waiting:
                self._look_soon(loop)

    def _give_up(self, call: _Call) -> None:
        with self._lock:
            if call.ended.is_set():
                return
            if call in self._waiting:
                self._waiting.remove(call)
                return
            call.hung = True
            self._hung.add(call)
            tell = 0 < self._most_hung <= len(self._hung) and not self._told
            self._told = self._told or tell
        if tell:
            self._too_many()

    def _work(self, inbox: SimpleQueue[_Call]) -> None:
        try:
            self._prepare()
        except Exception as error:
            log.error("a thread for calls could not be prepared: %s", type(error).__name__)
        call = inbox.get()
        while True:
            _refresh_django()
            try:
                call.result = call.context.run(call.function)
            except BaseException as error:  # SystemExit too: raised where it was called
                call.error = error
            _refresh_django()
            with self._lock:
                call.end()
                hung = call.hung
            if hung and call.error is None and call.late is not None:
                try:
                    call.late()
                except Exception as error:
                    log.error("a late result was not recorded: %s", type(error).__name__)
            with self._lock:
                # Not before its result is recorded: until then it is not called once more.
                self._hung.discard(call)
                del self._running[call]
                if self._waiting:
                    call = self._waiting.popleft()
                    self._running[call] = time.monotonic()
                    continue
                if len(self._idle) >= self._most_idle:
                    return
                self._idle.append(inbox)
            del call
            call = inbox.get()


def _refresh_django() -> None:
    """Close database connections of this thread that are broken, or older than CONN_MAX_AGE, as
    Django does before and after each request."""
    db, conf = sys.modules.get("django.db"), sys.modules.get("django.conf")
    try:
        # While another thread imports Django, its modules are there and their contents are not.
        settings = getattr(conf, "settings", None)
        close = getattr(db, "close_old_connections", None)
        if close is not None and settings is not None and settings.configured:
            close()
    except Exception as error:
        log.warning("Django's connections could not be closed: %s", type(error).__name__)
