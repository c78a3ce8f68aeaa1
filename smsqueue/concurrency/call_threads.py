"""Calls the application's code in threads, with a time limit.

Python cannot end a thread from outside. A call that exceeds its limit therefore keeps its daemon
thread: its caller goes on, and the process can end without it.

Quick calls from a loop share a few threads, because competing for the interpreter lock would cost
more than the calls themselves. A slow call delays no other: the others get more threads.
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

from smsqueue.concurrency.greenlet_loop import Loop, current_loop, wait
from smsqueue.logs import get_logger

__all__ = ["CallThreads", "CallTimeout"]

log = get_logger("smsqueue.worker")

#: Quick calls from a loop that run at once, and the duration, in seconds, up to which one is quick.
_MAX_QUICK, _QUICK_SECONDS = 4, 0.01

T = TypeVar("T")


class CallTimeout(Exception):
    """A call exceeded its time limit, or an earlier call with the same key still runs."""


class _Call:
    """One call."""

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
        #: The loop of its caller; None if the caller has a thread of its own.
        self.loop = current_loop()
        self._woken = self.loop.asyncio.create_future() if self.loop is not None else None

    def end(self) -> None:
        """Wake the caller: the call has ended."""
        self.ended.set()
        if self.loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self.loop.post(self._wake)

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def wait(self, seconds: float) -> bool:
        """Wait until the call has ended, up to a timeout; returns whether it has."""
        if self.loop is None or self._woken is None:
            return self.ended.wait(seconds)
        over = self.loop.asyncio.call_later(seconds, self._wake)
        wait(self._woken)
        over.cancel()
        return self.ended.is_set()


class CallThreads:
    """Runs calls in daemon threads. The threads are reused, and with them what they hold, such as
    connections to a database.

    Args:
        prepare: Called once in each new thread.
        most_hung: Number of calls past their limit at which ``too_many`` is called, once.
        idle: Number of idle threads that are kept.
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
        #: Running calls with the time at which they began (monotonic), and calls that wait.
        self._running: dict[_Call, float] = {}
        self._waiting: deque[_Call] = deque()
        self._check_scheduled = False
        self._hung: set[_Call] = set()
        self._reported = False

    def call(
        self,
        function: Callable[[], T],
        *,
        limit: float,
        kind: str,
        key: Hashable = None,
        late: Callable[[], None] | None = None,
    ) -> T:
        """Call a function in a thread, in a copy of the caller's context.

        Returns its result and raises its exceptions.

        Args:
            limit: Time limit in seconds.
            kind: What is called, for :meth:`hung`.
            key: While an earlier call with this key is past its limit, the function is not called.
            late: Called in the thread if the function succeeds after its limit.

        Raises:
            CallTimeout: It did not end in time, or was not called because of its key.
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
                self._check_soon(call.loop)
        if not call.wait(limit):
            self._give_up(call)
            if not call.ended.is_set():
                raise CallTimeout(f"did not end within {limit:g} s")
        if call.error is not None:
            raise call.error
        result: T = call.result
        return result

    def hung(self) -> Counter[str]:
        """Number of running calls that are past their limit, by kind."""
        with self._lock:
            return Counter(call.kind for call in self._hung)

    def _is_crowded(self) -> bool:
        """Whether enough quick calls run; called with the lock held."""
        latest = time.monotonic() - _QUICK_SECONDS
        return sum(began > latest for began in self._running.values()) >= _MAX_QUICK

    def _begin(self, call: _Call) -> None:
        """Hand a call to an idle thread or to a new one; called with the lock held.

        Raises:
            RuntimeError: No thread can be started; the call has not begun.
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

    def _check_soon(self, loop: Loop) -> None:
        """Schedule a check for calls that wait behind slow ones; called on the loop."""
        if not self._check_scheduled:
            self._check_scheduled = True
            loop.asyncio.call_later(_QUICK_SECONDS, self._begin_waiting, loop)

    def _begin_waiting(self, loop: Loop) -> None:
        with self._lock:
            self._check_scheduled = False
            with suppress(RuntimeError):  # no new thread: the existing threads begin the calls
                while self._waiting and not self._is_crowded():
                    self._begin(self._waiting[0])
                    self._waiting.popleft()
            if self._waiting:
                self._check_soon(loop)

    def _give_up(self, call: _Call) -> None:
        with self._lock:
            if call.ended.is_set():
                return
            if call in self._waiting:
                self._waiting.remove(call)
                return
            call.hung = True
            self._hung.add(call)
            report = 0 < self._most_hung <= len(self._hung) and not self._reported
            self._reported = self._reported or report
        if report:
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
            except BaseException as error:  # also SystemExit; raised in the caller
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
                # After its result is recorded: until then its key is not called again.
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
    """Close this thread's Django connections that are broken or older than CONN_MAX_AGE, as Django
    does before and after each request."""
    db, conf = sys.modules.get("django.db"), sys.modules.get("django.conf")
    try:
        # While another thread imports Django, its modules exist without their contents.
        settings = getattr(conf, "settings", None)
        close = getattr(db, "close_old_connections", None)
        if close is not None and settings is not None and settings.configured:
            close()
    except Exception as error:
        log.warning("Django's connections could not be closed: %s", type(error).__name__)
