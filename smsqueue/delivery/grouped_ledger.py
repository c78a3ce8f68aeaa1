"""Combines ledger operations of many functions on a loop into group calls.

While a group call of one operation is in progress, the items of the next group are collected. A
single message waits for nothing. The messages of a campaign wait for others for a few milliseconds,
so that they share calls even if Redis is quick. Outside of the loop, for example in the threads of
handlers, each operation is a group of one.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, ParamSpec, TypeVar

from smsqueue import exc
from smsqueue.broker.queue import Queue
from smsqueue.concurrency.greenlet_loop import Loop, Pending, blocking, current_loop, is_bulk
from smsqueue.ledger import (
    GROUP_LIMIT,
    AttemptOutcome,
    BeginAnswer,
    Beginning,
    ClaimAnswer,
    Claiming,
    EventClaimAnswer,
    EventSettlement,
    EventTransition,
    Ledger,
    Settlement,
    Transition,
    Unclaimed,
)
from smsqueue.settings import Settings

__all__ = ["GroupingLedger", "GroupingQueue"]

#: Up to this number of events of single messages each get a trigger of their own.
_MAX_SINGLE_TRIGGERS = 8
#: Largest number of events in one trigger.
_BATCH = 100
#: Seconds for publishing what is left when the worker stops; upkeep publishes the rest.
_CLOSE_SECONDS = 5.0

#: Number of bulk items with which a group begins at once, and the seconds for which a smaller group
#: waits for more: a call costs as much CPU time as several items.
_LARGE, _LINGER_SECONDS = 32, 0.01

Item = TypeVar("Item")
Answer = TypeVar("Answer")
P = ParamSpec("P")
T = TypeVar("T")


def _not_confirmed(error: Exception) -> exc.QueueUnavailable:
    """The error of a ledger operation for which no thread could be started."""
    return exc.QueueUnavailable(
        f"no thread could be started for a call of Redis: {type(error).__name__}"
    )


def _in_thread(function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> T:
    """Call the ledger in a thread if the caller runs on a loop.

    Raises:
        QueueUnavailable: Redis did not confirm the call, or no thread could be started.
    """
    try:
        return blocking(function, *args, **options)
    except RuntimeError as error:
        raise _not_confirmed(error) from None


class _Grouped(Generic[Item, Answer]):
    """Group calls of one operation.

    Args:
        run: Runs the operation for a group; returns the answer or the error of each item, in order.
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
        # By whether the caller is bulk: single messages do not wait for the groups of a campaign.
        self._waiting: dict[bool, deque[tuple[Item, Pending[Answer]]]] = {
            False: deque(),
            True: deque(),
        }
        self._in_progress = {False: False, True: False}
        #: Begins the next group of a campaign, which waits for more items.
        self._lingering: asyncio.TimerHandle | None = None

    def ask(self, item: Item) -> Answer:
        """Run the operation for one item, in a function on the loop; raises its error."""
        answer: Pending[Answer] = Pending(self._loop)
        bulk = is_bulk()
        self._waiting[bulk].append((item, answer))
        if not self._in_progress[bulk]:
            self._in_progress[bulk] = True
            self._next_soon(bulk)
        elif bulk and self._lingering is not None and len(self._waiting[True]) >= _LARGE:
            self._lingering.cancel()
            self._next_soon(bulk)
        return answer.wait()

    def _next_soon(self, bulk: bool) -> None:
        """Begin the next group soon; functions that run in the meantime join it."""
        if bulk and len(self._waiting[True]) < _LARGE:
            later = self._loop.asyncio.call_later(_LINGER_SECONDS, self._next, True)
            self._lingering = later
        else:
            self._lingering = None
            self._loop.asyncio.call_soon(self._next, bulk)

    def _next(self, bulk: bool) -> None:
        if bulk:
            self._lingering = None
        waiting = self._waiting[bulk]
        group = [waiting.popleft() for _ in range(min(GROUP_LIMIT, len(waiting)))]
        if not group:
            self._in_progress[bulk] = False
            return
        items = [item for item, _ in group]
        try:
            called = self._loop.in_thread(lambda: self._run(items), self._threads)
        except Exception as error:
            # No thread can be started, so the operation is not called.
            self._loop.asyncio.call_soon(self._next, bulk)
            self._fail(group, _not_confirmed(error))
        else:
            called.add_done_callback(lambda done: self._set_answers(bulk, group, done))

    def _fail(self, group: list[tuple[Item, Pending[Answer]]], error: BaseException) -> None:
        for _, waiting in group:
            waiting.set_exception(error)

    def _set_answers(
        self,
        bulk: bool,
        group: list[tuple[Item, Pending[Answer]]],
        done: asyncio.Future[Sequence[Answer | exc.QueueUnavailable]],
    ) -> None:
        self._next_soon(bulk)  # Redis runs the next group in the meantime
        error = done.exception()
        if error is not None:
            self._fail(group, error)
            return
        for (_, waiting), answer in zip(group, done.result(), strict=True):
            if isinstance(answer, BaseException):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)


class GroupingLedger(Ledger):
    """The ledger of a worker: operations on the loop become group calls.

    Args:
        loop: The loop that delivers messages and runs events.
    """

    #: The worker closes it, not the gateway.
    of_worker = True

    def __init__(self, settings: Settings, loop: Loop, *, timeout: float) -> None:
        super().__init__(settings, timeout=timeout)
        self._loop = loop
        threads = ThreadPoolExecutor(8, "smsqueue-ledger")
        self._claims: _Grouped[Claiming, ClaimAnswer] = _Grouped(loop, threads, self.claim_many)
        self._begins: _Grouped[Beginning, BeginAnswer] = _Grouped(loop, threads, self.begin_many)
        self._settles = _Grouped(loop, threads, self.settle_many)
        self._event_claims: _Grouped[tuple[str, str, str], EventClaimAnswer] = _Grouped(
            loop, threads, self._claim_each_event
        )
        self._event_settles = _Grouped(loop, threads, self.settle_events)

    def _claim_each_event(
        self, items: list[tuple[str, str, str]]
    ) -> list[EventClaimAnswer | exc.QueueUnavailable]:
        (worker,) = {worker for _, _, worker in items}
        return self.claim_events([(event, token) for event, token, _ in items], worker)

    def claim(
        self,
        id: str,
        token: str,
        *,
        lease: float,
        worker: str,
        default: tuple[str, float] | None = None,
        if_single: bool = False,
        exempt: Collection[str] = (),
    ) -> ClaimAnswer:
        if current_loop() is not self._loop:
            return super().claim(
                id,
                token,
                lease=lease,
                worker=worker,
                default=default,
                if_single=if_single,
                exempt=exempt,
            )
        provider, call_lease = default or ("", 0.0)
        return self._claims.ask(
            Claiming(id, token, lease, worker, provider, call_lease, if_single, exempt)
        )

    def begin(
        self,
        id: str,
        token: str,
        provider: str,
        *,
        lease: float,
        attempt: int,
        exempt: Collection[str] = (),
    ) -> BeginAnswer:
        if current_loop() is not self._loop:
            return super().begin(id, token, provider, lease=lease, attempt=attempt, exempt=exempt)
        return self._begins.ask(Beginning(id, token, provider, lease, attempt, exempt))

    def settle(self, id: str, token: str, attempt: int, outcome: AttemptOutcome) -> Transition:
        if current_loop() is not self._loop:
            return super().settle(id, token, attempt, outcome)
        return self._settles.ask(Settlement(id, token, attempt, outcome))

    def claim_event(self, event: str, token: str, worker: str) -> EventClaimAnswer:
        if current_loop() is not self._loop:
            return super().claim_event(event, token, worker)
        return self._event_claims.ask((event, token, worker))

    def settle_event(
        self,
        event: str,
        token: str,
        verdict: str,
        *,
        delay: float,
        why: str,
        succeeded: Sequence[str] = (),
    ) -> EventTransition:
        if current_loop() is not self._loop:
            return super().settle_event(
                event, token, verdict, delay=delay, why=why, succeeded=succeeded
            )
        item = EventSettlement(event, token, verdict, delay, why, tuple(succeeded))
        return self._event_settles.ask(item)

    # Rare operations are single calls, made in a thread.

    def unclaim(self, id: str, token: str) -> Unclaimed | None:
        return _in_thread(super().unclaim, id, token)

    def asked(self, id: str, again: float) -> None:
        _in_thread(super().asked, id, again)

    def set_aside(self, kind: str, id: str, token: str, cause: str, *, called: bool) -> str | None:
        return _in_thread(super().set_aside, kind, id, token, cause, called=called)

    def renew_event(self, event: str, token: str) -> bool:
        return _in_thread(super().renew_event, event, token)

    def postpone_event(self, event: str, seconds: float) -> None:
        _in_thread(super().postpone_event, event, seconds)

    def handler_done(self, event: str, handler: str) -> None:
        _in_thread(super().handler_done, event, handler)


class GroupingQueue(Queue):
    """The queue of a worker. Functions on its loop do not wait for triggers to be published, and
    events that are collected in the meantime share triggers.

    Args:
        app: The worker's Celery application.
    """

    #: The worker closes it, not the gateway.
    of_worker = True

    def __init__(self, settings: Settings, loop: Loop, app: Any) -> None:
        super().__init__(settings, app)
        #: Whether all live workers support triggers with several ids.
        self.batches: Callable[[], bool] = lambda: False
        self._loop = loop
        self._thread = ThreadPoolExecutor(1, "smsqueue-publish")
        self._events: dict[bool, list[str]] = {False: [], True: []}
        #: Set while nothing is left to be published.
        self._idle = threading.Event()
        self._idle.set()

    def hook(self, events: Iterable[str], *, bulk: bool = False) -> None:
        """Publish triggers of events; for a function on the loop, soon after this returns."""
        if current_loop() is not self._loop:
            super().hook(events, bulk=bulk)
            return
        self._events[bulk] += filter(None, events)
        if self._idle.is_set():
            self._idle.clear()
            self._loop.asyncio.call_soon(self._publish_next)

    def _publish_next(self) -> None:
        collected, self._events = self._events, {False: [], True: []}
        if not any(collected.values()):
            self._idle.set()
            return
        try:
            published = self._loop.in_thread(
                lambda: self._publish_collected(collected), self._thread
            )
        except Exception as error:
            # No thread can be started. The ledger has the events.
            events = [(event, 0) for some in collected.values() for event in some]
            self._log_unpublished(events, error, "upkeep will do it")
            self._loop.asyncio.call_soon(self._publish_next)
        else:
            published.add_done_callback(lambda _: self._publish_next())

    def _publish_collected(self, collected: dict[bool, list[str]]) -> None:
        for bulk, events in collected.items():
            # A trigger of one id does not say that it is bulk, and would take the slot of a single
            # event.
            if len(events) > (0 if bulk else _MAX_SINGLE_TRIGGERS) and self.batches():
                for start in range(0, len(events), _BATCH):
                    self.hook_many(events[start : start + _BATCH], bulk=bulk)
            else:
                super().hook(events, bulk=bulk)

    def close(self) -> None:
        """Publish what is left, within a few seconds, and close the connection."""
        self._idle.wait(_CLOSE_SECONDS)
        self._thread.shutdown(wait=False, cancel_futures=True)
        super().close()
