"""Runs synchronous functions concurrently on one asyncio loop.

:meth:`Loop.run` runs a function in a greenlet on the loop's thread. Where the function would block,
:func:`wait` or :func:`blocking` switch to the loop, which runs other functions in the meantime.
SQLAlchemy's asyncio extension works in the same way. Outside of a loop, :func:`blocking` and
:func:`sleep` simply block, so the same code runs in any thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar, cast

from greenlet import getcurrent, greenlet

from smsqueue.logs import get_logger

__all__ = ["Loop", "Pending", "RemoteCall", "blocking", "current_loop", "is_bulk", "sleep", "wait"]

log = get_logger("smsqueue.worker")

P = ParamSpec("P")
T = TypeVar("T")

#: Threads of one loop for blocking calls: locks, credentials, other HTTP clients.
_THREADS = 128
#: Threads of one loop for name resolution, which may be slow. Each host name is resolved once at a
#: time, so a name server that does not answer holds one thread per name.
_RESOLVERS = 32
#: Seconds in one iteration of a loop during which bulk functions are resumed.
_BULK_SECONDS = 0.002


def _new_loop() -> asyncio.AbstractEventLoop:
    """A loop of uvloop if it is installed: its calls take a fifth less CPU time."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()

    class ResolvingLoop(uvloop.Loop):
        """Resolves names in the loop's executor, as asyncio does. uvloop would use four threads,
        which all loops of the process share."""

        async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
            return await self.run_in_executor(
                None, partial(socket.getaddrinfo, host, port, **options)
            )

    return ResolvingLoop()


class _Running(greenlet):
    """A function that runs on a loop."""

    def __init__(self, run: Callable[[], None], loop: Loop, *, bulk: bool) -> None:
        super().__init__(run, parent=loop.hub)
        self.loop = loop
        self.bulk = bulk


class Loop:
    """An asyncio loop in a daemon thread.

    Functions that work for a campaign are bulk. Hundreds of them may become ready at once, so only
    a few are resumed in each iteration of the loop. All other functions are resumed at once.

    Args:
        watched: Measure for how long functions block the loop. This takes a few microseconds each
            time that a function is resumed.

    Attributes:
        hub: The loop's own greenlet. A function that waits switches to it.
    """

    def __init__(self, name: str = "smsqueue-loop", *, watched: bool = True) -> None:
        self._watched = watched
        self.asyncio = _new_loop()
        self.hub: greenlet
        self._threads = ThreadPoolExecutor(_THREADS, f"{name}-blocking")
        self.asyncio.set_default_executor(ThreadPoolExecutor(_RESOLVERS, f"{name}-resolver"))
        #: When the running function was resumed (monotonic); None if none runs.
        self._held_since: float | None = None
        self._blocked = 0.0
        self._closing: list[Callable[[], Awaitable[object]]] = []
        #: Callbacks from other threads, and whether the loop was woken up to fetch them.
        self._posted: deque[Callable[[], object]] = deque()
        self._woken = False
        #: Bulk functions that are ready, and whether they are scheduled to be resumed.
        self._ready_bulk: deque[_Running] = deque()
        self._bulk_scheduled = False
        started = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(started,), name=name, daemon=True)
        self._thread.start()
        started.wait()

    def _work(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self.asyncio)
        self.hub = getcurrent()
        started.set()
        self.asyncio.run_forever()

    def run(self, function: Callable[[], T]) -> Future[T]:
        """Run a function on the loop, in a copy of the caller's context; from any thread.

        It is bulk if the calling function is.

        Returns:
            A future with its result or exception, which can be cancelled until the function begins.
        """
        ended: Future[T] = Future()
        context = contextvars.copy_context()
        self.post(partial(self._start, function, context, ended, is_bulk()))
        return ended

    def post(self, callback: Callable[[], object]) -> None:
        """Schedule a callback on the loop's thread; from any thread.

        Callbacks that are posted before the loop wakes up share one wake-up.
        """
        self._posted.append(callback)
        if not self._woken:
            self._woken = True
            self.asyncio.call_soon_threadsafe(self._fetch)

    def _fetch(self) -> None:
        self._woken = False  # before reading: a callback posted from now on wakes the loop again
        for _ in range(len(self._posted)):
            self.asyncio.call_soon(self._posted.popleft())

    def _start(
        self,
        function: Callable[[], T],
        context: contextvars.Context,
        ended: Future[T],
        bulk: bool,
    ) -> None:
        if not ended.set_running_or_notify_cancel():
            return

        def run() -> None:
            try:
                result = function()
            except BaseException as error:  # raised by ended.result()
                ended.set_exception(error)
            else:
                ended.set_result(result)

        self._begin(run, context, bulk=bulk)

    def _begin(
        self, function: Callable[[], None], context: contextvars.Context, *, bulk: bool
    ) -> None:
        """Begin a function, at once or soon if it is bulk; from a callback of the loop."""
        running = _Running(function, self, bulk=bulk)
        running.gr_context = context
        self._resume(running)

    def spawn(self, function: Callable[[], None], *, bulk: bool) -> None:
        """Begin a function at once; from a callback of the loop. It must not raise."""
        running = _Running(function, self, bulk=bulk)
        running.gr_context = contextvars.copy_context()
        self._switch(running)

    def _resume(self, running: _Running) -> None:
        """Run a function until it waits or ends: at once, or later if it is bulk."""
        if not running.bulk:
            return self._switch(running)
        self._ready_bulk.append(running)
        if not self._bulk_scheduled:
            self._bulk_scheduled = True
            self.asyncio.call_soon(self._resume_bulk)

    def _resume_bulk(self) -> None:
        ends = time.monotonic() + _BULK_SECONDS
        try:
            while self._ready_bulk:
                self._switch(self._ready_bulk.popleft())
                if time.monotonic() > ends:
                    break
        finally:  # the others are resumed even if one raised
            self._bulk_scheduled = bool(self._ready_bulk)
            if self._bulk_scheduled:
                self.asyncio.call_soon(self._resume_bulk)

    def _switch(self, running: _Running) -> None:
        """Run a function until it waits or ends."""
        if not self._watched:
            running.switch()
            return
        began = self._held_since = time.monotonic()
        before = time.thread_time()
        try:
            running.switch()
        finally:
            self._held_since = None
            computed = time.thread_time() - before
            self._blocked += time.monotonic() - began - computed

    def blocked(self) -> float:
        """Total seconds for which functions blocked the loop: they neither computed nor called
        :func:`wait`. Waiting for the interpreter lock and for the processor counts, too."""
        return self._blocked + self.held()

    def held(self) -> float:
        """Seconds since the running function was resumed; 0 if none runs."""
        since = self._held_since
        return 0.0 if since is None else time.monotonic() - since

    def at_close(self, close: Callable[[], Awaitable[object]]) -> None:
        """Call a coroutine function when the loop is closed."""
        self._closing.append(close)

    def close(self, seconds: float = 5.0) -> None:
        """End the loop. Functions that still wait are never resumed.

        Args:
            seconds: Timeout.
        """
        self.asyncio.call_soon_threadsafe(self.asyncio.create_task, self._end())
        self._thread.join(seconds)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _end(self) -> None:
        for close in self._closing:
            try:
                await close()
            except Exception as error:
                log.warning("connections were not closed: %s", type(error).__name__)
        self.asyncio.stop()

    def in_thread(
        self, function: Callable[[], T], threads: Executor | None = None
    ) -> asyncio.Future[T]:
        """Call a blocking function in a thread, in a copy of the caller's context; from the loop's
        thread.

        Args:
            threads: The executor; by default the loop's own.

        Raises:
            RuntimeError: No thread can be started; the function will not be called.
        """
        context, called = contextvars.copy_context(), Future[T]()
        threads = threads or self._threads
        try:
            threads.submit(_call, called, partial(context.run, function))
        except RuntimeError:
            # The system refused a new thread. The executor has queued the call all the same, and
            # one of its threads may have begun it.
            if called.cancel():
                raise
        ended: asyncio.Future[T] = self.asyncio.create_future()
        called.add_done_callback(lambda _: self.post(partial(_copy_result, called, ended)))
        return ended

    def _wait(self, awaitable: Awaitable[T]) -> T:
        running = cast(_Running, getcurrent())
        future = asyncio.ensure_future(awaitable, loop=self.asyncio)
        if not future.done():
            future.add_done_callback(lambda _: self._resume(running))
            self.hub.switch()
        return future.result()


class Pending(Generic[T]):
    """A result for which one function on a loop waits. It costs less than an asyncio future.

    Args:
        loop: The loop of that function. All methods are called on its thread.
    """

    __slots__ = ("_error", "_loop", "_result", "_waiting", "is_set")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: _Running | None = None
        self._result: T | None = None
        self._error: BaseException | None = None
        self.is_set = False

    def set_result(self, result: T) -> None:
        """Resume the function soon."""
        self._result = result
        self._set()

    def set_exception(self, error: BaseException) -> None:
        """Raise an error in the function soon."""
        self._error = error
        self._set()

    def _set(self) -> None:
        self.is_set = True
        if self._waiting is None:
            return
        if self._waiting.bulk:
            self._loop._resume(self._waiting)
        else:  # not at once: others may have to be resumed, too
            self._loop.asyncio.call_soon(self._loop._switch, self._waiting)

    def wait(self) -> T:
        """Wait for the result, in a function on the loop; raises the error."""
        if not self.is_set:
            self._waiting = cast(_Running, getcurrent())
            self._loop.hub.switch()
        if self._error is not None:
            raise self._error
        return cast(T, self._result)


class RemoteCall(Generic[T]):
    """A function that a function on one loop runs on another, in a copy of its context.

    It costs less than :meth:`Loop.run`. It is bulk if the caller is.

    Args:
        target: The loop that runs the function.
        caller: The loop of the caller.

    Attributes:
        cancelled: The function has not run and will not.
    """

    def __init__(self, function: Callable[[], T], target: Loop, caller: Loop) -> None:
        self._function = function
        self._target = target
        self._caller = caller
        self._context = contextvars.copy_context()
        self._bulk = is_bulk()
        self._ended: Pending[T] = Pending(caller)
        #: Acquired once, by the loop that begins the call or by the one that cancels it.
        self._decided = threading.Lock()
        self.cancelled = False
        target.post(self._start)

    def cancel(self) -> None:
        """Cancel the call unless it has begun; on the caller's loop."""
        if self._decided.acquire(blocking=False):
            self.cancelled = True
            self._ended.set_exception(CancelledError())

    def wait(self) -> T:
        """Wait for the function's result; raises its exceptions.

        Raises:
            CancelledError: The call was cancelled.
        """
        return self._ended.wait()

    def _start(self) -> None:
        if self._decided.acquire(blocking=False):
            self._target._begin(self._run, self._context, bulk=self._bulk)

    def _run(self) -> None:
        try:
            result = self._function()
        except BaseException as error:  # raised by wait()
            self._caller.post(partial(self._ended.set_exception, error))
        else:
            self._caller.post(partial(self._ended.set_result, result))


def _call(called: Future[T], function: Callable[[], T]) -> None:
    """Call a function unless its future was cancelled, and set the future's result or exception."""
    if not called.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except StopIteration:  # asyncio futures do not accept it
        called.set_exception(RuntimeError("StopIteration was raised"))
    except BaseException as error:  # raised by called.result()
        called.set_exception(error)
    else:
        called.set_result(result)


def _copy_result(called: Future[T], ended: asyncio.Future[T]) -> None:
    if ended.done():
        return
    error = called.exception()
    if error is not None:
        ended.set_exception(error)
    else:
        ended.set_result(called.result())


def current_loop() -> Loop | None:
    """The loop that runs the calling function, or None."""
    running = getcurrent()
    return running.loop if isinstance(running, _Running) else None


def is_bulk() -> bool:
    """Whether the calling function runs on a loop and is bulk."""
    running = getcurrent()
    return isinstance(running, _Running) and running.bulk


def wait(awaitable: Awaitable[T]) -> T:
    """Wait for an awaitable, in a function that runs on a loop; returns its result.

    Raises:
        RuntimeError: The calling function does not run on a loop.
    """
    loop = current_loop()
    if loop is None:
        raise RuntimeError("wait() is for functions that Loop.run() runs")
    return loop._wait(awaitable)


def sleep(seconds: float) -> None:
    """Sleep; on a loop, other functions run in the meantime."""
    if current_loop() is None:
        time.sleep(seconds)
    else:
        wait(asyncio.sleep(seconds))


def blocking(function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> T:
    """Call a blocking function: in a thread if the caller runs on a loop, else directly."""
    loop = current_loop()
    call: Callable[[], Any] = partial(function, *args, **options)
    result: T = call() if loop is None else loop._wait(loop.in_thread(call))
    return result
