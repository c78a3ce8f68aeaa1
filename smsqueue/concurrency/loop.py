"""One asyncio loop for many calls at once, while the code that makes them stays synchronous.

A function that :meth:`Loop.run` is given runs in a greenlet on the loop's thread. Where it would
wait, it switches to the loop (:func:`wait`, :func:`blocking`), which meanwhile runs others; this is
how SQLAlchemy's asyncio extension works. Outside of such a function both do what a synchronous
program would do, so the same code runs in any thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast

from greenlet import getcurrent, greenlet

from smsqueue.logs import get_logger

__all__ = ["Loop", "blocking", "current_loop", "is_bulk", "sleep", "wait"]

log = get_logger("smsqueue.worker")

P = ParamSpec("P")
T = TypeVar("T")

#: Threads of one loop for what blocks: waiting for a lock, credentials, another HTTP client.
_THREADS = 128
#: Threads of one loop that ask the system's resolver, which may take long. A host name is asked for
#: once at a time, so one that is not answered holds one of them.
_RESOLVERS = 32
#: Seconds for which functions of bulk go on, one after the other, in one turn of a loop.
_SLICE = 0.002


class _Running(greenlet):
    """A function that runs on a loop."""

    def __init__(self, run: Callable[[], None], loop: Loop, *, bulk: bool) -> None:
        super().__init__(run, parent=loop.hub)
        self.loop = loop
        self.bulk = bulk


class Loop:
    """An asyncio loop in a daemon thread.

    What is done for a campaign is bulk: hundreds of functions can go on at the same moment, and
    then a few of them do so in each turn of the loop. All others go on at once.

    Args:
        watched: Measure for how long functions block it, which takes a few microseconds each time
            that one goes on.

    Attributes:
        hub: The loop's own greenlet, to which every function switches where it waits.
    """

    def __init__(self, name: str = "smsqueue-loop", *, watched: bool = True) -> None:
        self._watched = watched
        self.asyncio = asyncio.new_event_loop()
        self.hub: greenlet
        self._threads = ThreadPoolExecutor(_THREADS, f"{name}-blocking")
        self.asyncio.set_default_executor(ThreadPoolExecutor(_RESOLVERS, f"{name}-resolver"))
        #: Since when (monotonic) a function runs without waiting; None: none does.
        self._held_since: float | None = None
        self._blocked = 0.0
        self._closing: list[Callable[[], Awaitable[object]]] = []
        #: What other threads want to be called on the loop's, and is it on its way there?
        self._posted: deque[Callable[[], object]] = deque()
        self._fetched = False
        #: Functions of bulk that can go on, and is their turn to come?
        self._bulk: deque[_Running] = deque()
        self._bulk_due = False
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
        """Run a function on the loop, in a copy of the caller's context; from any thread. It is
        bulk if the calling function is.

        Returns:
            Its result, or what it raised. It can be cancelled until the function begins.
        """
        ended: Future[T] = Future()
        context = contextvars.copy_context()
        self.post(partial(self._start, function, context, ended, is_bulk()))
        return ended

    def post(self, callback: Callable[[], object]) -> None:
        """Have something called soon on the loop's thread; from any thread. What is posted while
        the loop has not come to it costs no system call of its own."""
        self._posted.append(callback)
        if not self._fetched:
            self._fetched = True
            self.asyncio.call_soon_threadsafe(self._fetch)

    def _fetch(self) -> None:
        self._fetched = False  # before it looks: what is posted from now on is fetched again
        for _ in range(len(self._posted)):
            self.asyncio.call_soon(self._posted.popleft())

    def result(self, running: Future[T]) -> T:
        """The result of what runs elsewhere, or what it raised; for a function on this loop."""
        ended: asyncio.Future[None] = self.asyncio.create_future()
        running.add_done_callback(lambda _: self.post(lambda: ended.set_result(None)))
        self._wait(ended)
        return running.result()

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
            except BaseException as error:  # raised where its result is asked for
                ended.set_exception(error)
            else:
                ended.set_result(result)

        running = _Running(run, self, bulk=bulk)
        running.gr_context = context
        self._go_on(running)

    def spawn(self, function: Callable[[], None], *, bulk: bool) -> None:
        """Begin a function, which must not raise, at once; from a callback of the loop."""
        running = _Running(function, self, bulk=bulk)
        running.gr_context = contextvars.copy_context()
        self._enter(running)

    def _go_on(self, running: _Running) -> None:
        """Let a function run until it waits or ends: now, or when its turn comes."""
        if not running.bulk:
            return self._enter(running)
        self._bulk.append(running)
        if not self._bulk_due:
            self._bulk_due = True
            self.asyncio.call_soon(self._go_on_with_bulk)

    def _go_on_with_bulk(self) -> None:
        ends = time.monotonic() + _SLICE
        try:
            while self._bulk:
                self._enter(self._bulk.popleft())
                if time.monotonic() > ends:
                    break
        finally:  # whatever one of them raised, the others go on
            self._bulk_due = bool(self._bulk)
            if self._bulk_due:
                self.asyncio.call_soon(self._go_on_with_bulk)

    def _enter(self, running: _Running) -> None:
        """Let a function run until it waits or ends."""
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
        """Seconds, since the loop began, for which functions held it and did not compute: they
        waited for something else than :func:`wait` (Python's lock and the processor included), and
        nothing else on the loop went on."""
        return self._blocked + self.held()

    def held(self) -> float:
        """Seconds for which a function has held the loop until now; 0 if none does."""
        since = self._held_since
        return 0.0 if since is None else time.monotonic() - since

    def at_close(self, close: Callable[[], Awaitable[object]]) -> None:
        """Have something closed with the loop."""
        self._closing.append(close)

    def close(self, seconds: float = 5.0) -> None:
        """End the loop; functions that still wait never go on.

        Args:
            seconds: How long this may take.
        """
        self.asyncio.call_soon_threadsafe(self.asyncio.create_task, self._end())
        self._thread.join(seconds)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _end(self) -> None:
        for close in self._closing:
            try:
                await close()
            except Exception as error:
                log.warning("the loop's connections: %s", type(error).__name__)
        self.asyncio.stop()

    def in_thread(
        self, function: Callable[[], T], threads: Executor | None = None
    ) -> asyncio.Future[T]:
        """Call what may block in a thread, in a copy of the caller's context; on the loop's thread.

        Args:
            threads: Where; those of the loop if not given.

        Raises:
            RuntimeError: there is no thread for it, and it will not be called.
        """
        context, made = contextvars.copy_context(), Future[T]()
        threads = threads or self._threads
        try:
            threads.submit(_make, made, partial(context.run, function))
        except RuntimeError:
            # The system refuses another thread. The call is in the queue all the same, and a thread
            # that is there may have taken it.
            if made.cancel():
                raise
        ended: asyncio.Future[T] = self.asyncio.create_future()
        made.add_done_callback(lambda _: self.post(partial(_hand_over, made, ended)))
        return ended

    def _wait(self, awaitable: Awaitable[T]) -> T:
        running = cast(_Running, getcurrent())
        future = asyncio.ensure_future(awaitable, loop=self.asyncio)
        if not future.done():
            future.add_done_callback(lambda _: self._go_on(running))
            self.hub.switch()
        return future.result()


def _make(made: Future[T], function: Callable[[], T]) -> None:
    """Call a function, unless that was cancelled; what it raises is the future's error."""
    if not made.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except StopIteration:  # asyncio's futures do not take it
        made.set_exception(RuntimeError("StopIteration was raised"))
    except BaseException as error:  # raised where the result is asked for
        made.set_exception(error)
    else:
        made.set_result(result)


def _hand_over(made: Future[T], ended: asyncio.Future[T]) -> None:
    if ended.done():
        return
    error = made.exception()
    if error is not None:
        ended.set_exception(error)
    else:
        ended.set_result(made.result())


def current_loop() -> Loop | None:
    """The loop on which the calling function runs; None: it runs in a thread of its own."""
    running = getcurrent()
    return running.loop if isinstance(running, _Running) else None


def is_bulk() -> bool:
    """Is the calling function, on a loop, bulk?"""
    running = getcurrent()
    return isinstance(running, _Running) and running.bulk


def wait(awaitable: Awaitable[T]) -> T:
    """The result of an awaitable, from a function that runs on a loop.

    Raises:
        RuntimeError: the calling function does not run on a loop.
    """
    loop = current_loop()
    if loop is None:
        raise RuntimeError("wait() is for functions that Loop.run() runs")
    return loop._wait(awaitable)


def sleep(seconds: float) -> None:
    """Wait for some time, while the loop runs others if the calling function runs on one."""
    if current_loop() is None:
        time.sleep(seconds)
    else:
        wait(asyncio.sleep(seconds))


def blocking(function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> T:
    """Call what may block: in a thread if the calling function runs on a loop, else here."""
    loop = current_loop()
    call: Callable[[], Any] = partial(function, *args, **options)
    result: T = call() if loop is None else loop._wait(loop.in_thread(call))
    return result
