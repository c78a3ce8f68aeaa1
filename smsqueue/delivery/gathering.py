"""What many functions on a loop ask of Redis at the same time becomes one call.

While a call of one kind is under way, the items of the next one gather. So a lone message waits for
nothing, a crowd makes full groups by itself, and there are no timers. Everywhere else, such as in
the threads of handlers, the same operations are groups of one.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, ParamSpec, TypeVar

from smsqueue import exc
from smsqueue.broker.queue import Queue
from smsqueue.concurrency.loop import Loop, blocking, current_loop, is_bulk, wait
from smsqueue.ledger import (
    GROUP_LIMIT,
    Beginning,
    Claiming,
    HookSettlement,
    Ledger,
    Settlement,
    Transition,
)
from smsqueue.settings import Settings

__all__ = ["GatheringLedger", "GatheringQueue"]

#: So many events of single messages are published each by itself at most; of more, and of bulk, so
#: many together.
_FEW, _BATCH = 8, 100
#: Seconds that publishing what is left takes at most: upkeep finds the rest.
_CLOSING = 5.0

Item = TypeVar("Item")
Answer = TypeVar("Answer")
P = ParamSpec("P")
T = TypeVar("T")


def _not_confirmed(error: Exception) -> exc.QueueUnavailable:
    """The error of a call of the ledger for which no thread could be started."""
    return exc.QueueUnavailable(f"no thread for a call of Redis: {type(error).__name__}")


def _in_thread(function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> T:
    """Call the ledger beside the loop.

    Raises:
        QueueUnavailable: also if no thread can be started.
    """
    try:
        return blocking(function, *args, **options)
    except RuntimeError as error:
        raise _not_confirmed(error) from None


class _Gathered(Generic[Item, Answer]):
    """One operation.

    Args:
        run: Does it for a group; the answers, or the error of each, in order.
    """

    def __init__(
        self,
        loop: Loop,
        threads: ThreadPoolExecutor,
        run: Callable[[list[Item]], Sequence[Answer | exc.QueueUnavailable]],
    ) -> None:
        self._loop = loop
        self._threads = threads
        self._run = run
        # Single messages and bulk each have groups of their own: nobody waits for a campaign's.
        self._waiting: dict[bool, deque[tuple[Item, asyncio.Future[Answer]]]] = {
            False: deque(),
            True: deque(),
        }
        self._under_way = {False: False, True: False}

    def ask(self, item: Item) -> Answer:
        """The answer for one item, from a function on the loop; its error is raised."""
        answer: asyncio.Future[Answer] = self._loop.asyncio.create_future()
        bulk = is_bulk()
        self._waiting[bulk].append((item, answer))
        if not self._under_way[bulk]:
            self._under_way[bulk] = True
            # Others that go on in the same turn of the loop are in the first group, too.
            self._loop.asyncio.call_soon(self._next, bulk)
        return wait(answer)

    def _next(self, bulk: bool) -> None:
        waiting = self._waiting[bulk]
        group = [waiting.popleft() for _ in range(min(GROUP_LIMIT, len(waiting)))]
        if not group:
            self._under_way[bulk] = False
            return
        items = [item for item, _ in group]
        try:
            called = self._loop.in_thread(lambda: self._run(items), self._threads)
        except Exception as error:
            # No thread can be started, so it is not called.
            self._loop.asyncio.call_soon(self._next, bulk)
            self._fail(group, _not_confirmed(error))
        else:
            called.add_done_callback(lambda done: self._hand_out(bulk, group, done))

    def _fail(self, group: list[tuple[Item, asyncio.Future[Answer]]], error: BaseException) -> None:
        for _, waiting in group:
            waiting.set_exception(error)

    def _hand_out(
        self,
        bulk: bool,
        group: list[tuple[Item, asyncio.Future[Answer]]],
        done: asyncio.Future[Sequence[Answer | exc.QueueUnavailable]],
    ) -> None:
        self._next(bulk)  # Redis works on the next group meanwhile
        error = done.exception()
        if error is not None:
            self._fail(group, error)
            return
        for (_, waiting), answer in zip(group, done.result(), strict=True):
            if isinstance(answer, BaseException):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)


class GatheringLedger(Ledger):
    """The ledger of a worker.

    Args:
        loop: Where messages are delivered and events run.
    """

    #: The worker closes it, not the gateway that uses it.
    of_worker = True

    def __init__(self, settings: Settings, loop: Loop, *, timeout: float) -> None:
        super().__init__(settings, timeout=timeout)
        self._loop = loop
        threads = ThreadPoolExecutor(8, "smsqueue-ledger")
        self._claims = _Gathered(loop, threads, self.claim_many)
        self._begins = _Gathered(loop, threads, self.begin_many)
        self._settles = _Gathered(loop, threads, self.settle_many)
        self._hook_claims = _Gathered(loop, threads, self._hook_claim_each)
        self._hook_settles = _Gathered(loop, threads, self.hook_settle_many)

    def _hook_claim_each(
        self, items: list[tuple[str, str, str]]
    ) -> list[list[Any] | exc.QueueUnavailable]:
        (worker,) = {worker for _, _, worker in items}
        return self.hook_claim_many([(event, token) for event, token, _ in items], worker)

    def claim(
        self,
        id: str,
        token: str,
        *,
        lease: float,
        worker: str,
        usual: tuple[str, float] | None = None,
        if_single: bool = False,
    ) -> list[Any]:
        if current_loop() is not self._loop:
            return super().claim(
                id, token, lease=lease, worker=worker, usual=usual, if_single=if_single
            )
        provider, at = usual or ("", 0.0)
        return self._claims.ask(Claiming(id, token, lease, worker, provider, at, if_single))

    def begin(
        self, id: str, token: str, provider: str, *, lease: float, attempt: int
    ) -> tuple[str, int]:
        if current_loop() is not self._loop:
            return super().begin(id, token, provider, lease=lease, attempt=attempt)
        return self._begins.ask(Beginning(id, token, provider, lease, attempt))

    def settle(self, id: str, token: str, attempt: int, outcome: dict[str, Any]) -> Transition:
        if current_loop() is not self._loop:
            return super().settle(id, token, attempt, outcome)
        return self._settles.ask(Settlement(id, token, attempt, outcome))

    def hook_claim(self, event: str, token: str, worker: str) -> list[Any]:
        if current_loop() is not self._loop:
            return super().hook_claim(event, token, worker)
        return self._hook_claims.ask((event, token, worker))

    def hook_settle(
        self,
        event: str,
        token: str,
        verdict: str,
        *,
        delay: float,
        why: str,
        succeeded: Sequence[str] = (),
    ) -> tuple[str, int | None]:
        if current_loop() is not self._loop:
            return super().hook_settle(
                event, token, verdict, delay=delay, why=why, succeeded=succeeded
            )
        item = HookSettlement(event, token, verdict, delay, why, tuple(succeeded))
        return self._hook_settles.ask(item)

    # What is rare is a call of its own, but does not keep the loop waiting.

    def unclaim(self, id: str, token: str) -> tuple[int, str | None] | None:
        return _in_thread(super().unclaim, id, token)

    def asked(self, id: str, again: float) -> None:
        _in_thread(super().asked, id, again)

    def set_aside(self, kind: str, id: str, token: str, cause: str, *, called: bool) -> str | None:
        return _in_thread(super().set_aside, kind, id, token, cause, called=called)

    def hook_renew(self, event: str, token: str) -> bool:
        return _in_thread(super().hook_renew, event, token)

    def hook_later(self, event: str, seconds: float) -> None:
        _in_thread(super().hook_later, event, seconds)

    def handler_done(self, event: str, handler: str) -> None:
        _in_thread(super().handler_done, event, handler)


class GatheringQueue(Queue):
    """The queue of a worker: functions on its loop do not wait until their triggers are published,
    and those of events that gather meanwhile become triggers of many.

    Args:
        app: The worker's Celery application.
    """

    #: The worker closes it, not the gateway that uses it.
    of_worker = True

    def __init__(self, settings: Settings, loop: Loop, app: Any) -> None:
        super().__init__(settings, app)
        #: Do all workers know triggers of many?
        self.batches: Callable[[], bool] = lambda: False
        self._loop = loop
        self._thread = ThreadPoolExecutor(1, "smsqueue-publish")
        self._events: dict[bool, list[str]] = {False: [], True: []}
        #: All that was gathered is published.
        self._idle = threading.Event()
        self._idle.set()

    def hook(self, events: Iterable[str], *, bulk: bool = False) -> None:
        """As that of every queue; for a function on the loop, it happens soon."""
        if current_loop() is not self._loop:
            super().hook(events, bulk=bulk)
            return
        self._events[bulk] += filter(None, events)
        if self._idle.is_set():
            self._idle.clear()
            self._loop.asyncio.call_soon(self._publish_next)

    def _publish_next(self) -> None:
        gathered, self._events = self._events, {False: [], True: []}
        if not any(gathered.values()):
            self._idle.set()
            return
        try:
            published = self._loop.in_thread(lambda: self._publish_gathered(gathered), self._thread)
        except Exception as error:
            # No thread can be started; the ledger has the events.
            events = [(event, 0) for some in gathered.values() for event in some]
            self._log_unpublished(events, error, "upkeep will do it")
            self._loop.asyncio.call_soon(self._publish_next)
        else:
            published.add_done_callback(lambda _: self._publish_next())

    def _publish_gathered(self, gathered: dict[bool, list[str]]) -> None:
        for bulk, events in gathered.items():
            # A trigger of one does not say that it is bulk, and takes the slot of a single event.
            if len(events) > (0 if bulk else _FEW) and self.batches():
                for start in range(0, len(events), _BATCH):
                    self.hook_many(events[start : start + _BATCH], bulk=bulk)
            else:
                super().hook(events, bulk=bulk)

    def close(self) -> None:
        """Publish what is left, within seconds, then as every queue."""
        self._idle.wait(_CLOSING)
        self._thread.shutdown(wait=False, cancel_futures=True)
        super().close()
