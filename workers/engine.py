"""Delivers messages and runs event handlers in one worker process; the tasks hand it triggers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from importlib import import_module
from typing import Any

from smsqueue import exc
from smsqueue.broker.queue import DELIVER, HOOK
from smsqueue.concurrency.call_threads import CallThreads
from smsqueue.concurrency.greenlet_loop import Loop
from smsqueue.delivery import Delivery, Slots, TriggerResult
from smsqueue.delivery.event_runner import EventRunner
from smsqueue.delivery.grouped_ledger import GroupingLedger, GroupingQueue
from smsqueue.delivery.waiting_ids import Intake, Kind
from smsqueue.gateway import Gateway
from smsqueue.ledger import SlotUse
from smsqueue.logs import get_logger
from smsqueue.message.masking import place_of
from smsqueue.message.states import EventState, State
from smsqueue.settings import Settings
from workers.task_display import TaskResult, task_result
from workers.task_events import TaskEvents

__all__ = ["HANDLERS", "Engine"]

log = get_logger("smsqueue.worker")

#: The slot group that all event handlers share.
HANDLERS = "(hooks)"

#: Timeout of the ledger's commands in a worker, in seconds.
_TIMEOUT = 10.0
#: Beyond this number of single messages and events in progress (plus the slots of all providers), a
#: task waits for its message even if few threads are left, because a router or lookup may hold a
#: thread for each of them.
_MAX_SINGLE = 500
#: Largest number of batch ids that wait in a process; fewer if there are few slots.
_MAX_WAITING = 1000


class Engine:
    """Delivers messages and runs event handlers on one loop.

    Args:
        app: The worker's Celery application.
        hostname: The worker's name.
        concurrency: Number of threads in the task pool, and of handlers that run at once.
        handlers: Threads for event handlers.
        others: Threads for routers and lookups.
    """

    def __init__(
        self,
        app: Any,
        gateway: Gateway,
        settings: Settings,
        hostname: str,
        concurrency: int,
        *,
        handlers: CallThreads,
        others: CallThreads,
    ) -> None:
        self._gateway = gateway
        import_module("smsqueue.providers.base.aiohttp_transport")  # slow, so not on the loop
        in_flight = {name: gateway.max_in_flight(name) for name in gateway.providers}
        self._max_in_flight = sum(in_flight.values())
        self._loop = loop = Loop("smsqueue-engine", watched=False)
        self.slots = Slots(concurrency, in_flight)
        self.ledger = GroupingLedger(settings, loop, timeout=_TIMEOUT)
        self.queue = GroupingQueue(settings, loop, app)
        self.delivery = Delivery(
            gateway, self.ledger, self.queue, self.slots, hostname, threads=others
        )
        self.hooks = EventRunner(gateway, self.ledger, hostname, gateway.retry, threads=handlers)
        self._task_events = TaskEvents(app, hostname)
        self._calls = (handlers, others)
        #: Tasks that may wait in a pool thread until their message ends. The other threads keep
        #: accepting triggers, however slow the providers are.
        self._may_wait = threading.BoundedSemaphore(concurrency * 3 // 4)
        self.messages = Intake(
            loop,
            self._deliver,
            may_begin=self._may_deliver,
            most_waiting=min(_MAX_WAITING, 2 * self._max_in_flight),
            longest_wait=settings.grace / 3,
            ended=partial(self._show_batch_result, DELIVER),
            give_back=partial(self._give_back, "msg"),
        )
        self.events = Intake(
            loop,
            self._run_event,
            may_begin=lambda kind: self.slots.free(HANDLERS, bulk=kind.bulk),
            most_waiting=min(_MAX_WAITING, 8 * concurrency),
            longest_wait=settings.grace / 3,
            ended=partial(self._show_batch_result, HOOK),
            give_back=partial(self._give_back, "event"),
        )

    # --- called by tasks -----------------------------------------------------------------------

    def run(self, task: str, id: str) -> str:
        """Do what is due for one message or event; returns the result of its task.

        Raises:
            Retry, NotDelivered, Ignore: as :meth:`TaskResult.end_task`.
        """
        running = (self.events if task == HOOK else self.messages).submit(id)
        may_wait = self._may_wait.acquire(blocking=False)
        if not may_wait and self._single_running() <= self._max_in_flight + _MAX_SINGLE:
            running.add_done_callback(partial(self._show_late_result, task, id))
            return TaskResult("IGNORED").end_task()
        try:
            trigger_result = running.result()
        except exc.QueueUnavailable as error:
            # The claim was not confirmed, so nothing was sent. Upkeep publishes it again.
            return TaskResult("RETRY", type(error).__name__).end_task()
        finally:
            if may_wait:
                self._may_wait.release()
        return task_result(task, trigger_result).end_task()

    def _single_running(self) -> int:
        """Number of messages and events in progress that are not bulk."""
        bulk = self.messages.bulk_running + self.events.bulk_running
        return self.running() - bulk

    # --- on the loop ---------------------------------------------------------------------------

    def _may_deliver(self, kind: Kind) -> bool:
        # Messages whose call has ended and that are not settled yet count, too.
        bulk = self.messages.bulk_running
        if (bulk if kind.bulk else self.messages.running - bulk) >= self._max_in_flight:
            return False
        default = self._gateway.default_provider
        return kind.routed or default is None or self.slots.free(default, bulk=kind.bulk)

    def _deliver(self, id: str, kind: Kind | None) -> TriggerResult:
        return self.delivery.deliver(id, bulk=None if kind is None else kind.bulk)

    def _run_event(self, event: str, kind: Kind | None) -> TriggerResult:
        bulk = kind is not None and kind.bulk
        with self.slots.held(HANDLERS, bulk=bulk) as busy:
            if not busy:
                return self.hooks.run(event)
        self.hooks.later(event, busy)
        return TriggerResult(EventState.WAITING, wait=busy + 1, error="WorkerBusy")

    def _show_batch_result(self, task: str, id: str, trigger_result: TriggerResult) -> None:
        """Show how a message of a batch ended."""
        self._task_events.add(
            task, id, trigger_result, started=False, retries=trigger_result.earlier
        )

    def _show_late_result(self, task: str, id: str, running: Future[TriggerResult]) -> None:
        """Show how a message ended whose task did not wait for it."""
        error = running.exception()
        if error is None:
            self._task_events.add(task, id, running.result(), started=True)
        elif isinstance(error, exc.QueueUnavailable):
            waiting = EventState.WAITING if task == HOOK else State.RETRYING
            trigger_result = TriggerResult(waiting, error=type(error).__name__)
            self._task_events.add(task, id, trigger_result, started=True)
        else:
            name, place = type(error).__name__, place_of(error)
            extra = {"id": id, "error": name}
            log.error("%s: %s at %s: please report this", id, name, place, extra=extra)

    def _give_back(self, kind: str, ids: list[str]) -> None:
        try:
            self.ledger.put_back(kind, ids)
        except exc.QueueUnavailable as error:  # upkeep finds them later
            log.warning("%d triggers were not given back: %s", len(ids), error)

    # --- state and end of the worker -----------------------------------------------------------

    def running(self) -> int:
        """Number of messages and events that have begun and not ended."""
        return self.messages.running + self.events.running

    def hung(self) -> Counter[str]:
        """Number of calls that are past their time limit, by kind."""
        calls = self._calls[0].hung() + self._calls[1].hung()
        calls["provider"] += self.slots.hung().total()
        return +calls

    def provider_slots(self) -> dict[str, SlotUse]:
        """The slots of each provider."""
        usage = self.slots.usage()
        usage.pop(HANDLERS, None)
        return usage

    def handler_slots(self) -> SlotUse | None:
        """The slots of event handlers; None: none has run."""
        return self.slots.usage().get(HANDLERS)

    def rooms(self, *, sends: bool, hooks: bool) -> dict[str, Callable[[], int]]:
        """For upkeep: functions that return for how many ids of a lane there is room. There is none
        in a lane that this worker does not consume; those that do have room of their own.

        Args:
            sends: Whether this worker consumes the queue of messages.
            hooks: Whether it consumes the queue of events.
        """
        return {
            "send": self.messages.room if sends else lambda: 0,
            "hook": self.events.room if hooks else lambda: 0,
        }

    def stop(self) -> None:
        """Begin nothing more, and give ids that have not begun back to the ledger."""
        self.hooks.stop()
        self.messages.close()
        self.events.close()

    def close(self) -> None:
        """Close connections and threads; nothing runs any more."""
        self.delivery.close()
        self.hooks.close()
        self.queue.close()
        self._task_events.close()
        self._loop.close(1.0)
