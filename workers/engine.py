"""What one worker process delivers with: the tasks hand triggers to it, and it does the work."""

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
from smsqueue.concurrency.loop import Loop
from smsqueue.delivery import Delivery, Outcome, Slots
from smsqueue.delivery.event_runner import Hooks
from smsqueue.delivery.gathering import GatheringLedger, GatheringQueue
from smsqueue.delivery.intake import Intake, Kind
from smsqueue.gateway import Gateway
from smsqueue.logs import get_logger
from smsqueue.message.masking import place_of
from smsqueue.message.states import EventState, State
from smsqueue.settings import Settings
from workers.rows import Rows
from workers.shown import Shown, shown

__all__ = ["HANDLERS", "Engine"]

log = get_logger("smsqueue.worker")

#: Group of slots that the handlers of events share.
HANDLERS = "(hooks)"

#: Seconds that a command of a worker's ledger may take.
_TIMEOUT = 10.0
#: Messages and events that came alone and are under way, at most, before a task waits for its own
#: however few threads are left: each may have a thread of its own, in a router or look-up.
_MOST_ALONE = 500
#: Ids of batches that wait in a process, at most; with few slots fewer.
_MOST_WAITING = 1000


class Engine:
    """Delivers messages and runs events on one loop.

    Args:
        app: The worker's Celery application.
        hostname: This worker's name.
        concurrency: Threads of its pool, and calls of handlers at once.
        handlers, others: What handlers, and routers and look-ups, run in.
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
        import_module("smsqueue.providers.loop_transport")  # takes a while, so not on the loop
        in_flight = {name: gateway.max_in_flight(name) for name in gateway.providers}
        self._most = sum(in_flight.values())
        self._loop = loop = Loop("smsqueue-engine", watched=False)
        self.slots = Slots(concurrency, in_flight)
        self.ledger = GatheringLedger(settings, loop, timeout=_TIMEOUT)
        self.queue = GatheringQueue(settings, loop, app)
        self.delivery = Delivery(
            gateway, self.ledger, self.queue, self.slots, hostname, threads=others
        )
        self.hooks = Hooks(gateway, self.ledger, hostname, gateway.retry, threads=handlers)
        self._rows = Rows(app, hostname)
        self._calls = (handlers, others)
        #: Tasks that may wait in the pool's threads for how theirs ends. The rest of the threads
        #: takes in what comes, however long providers take.
        self._may_wait = threading.BoundedSemaphore(concurrency * 3 // 4)
        self.messages = Intake(
            loop,
            self._deliver,
            may_begin=self._may_deliver,
            most_waiting=min(_MOST_WAITING, 2 * self._most),
            longest_wait=settings.grace / 3,
            ended=partial(self._tell, DELIVER),
            give_back=partial(self._give_back, "msg"),
        )
        self.events = Intake(
            loop,
            self._run_event,
            may_begin=lambda kind: self.slots.free(HANDLERS, bulk=kind.bulk),
            most_waiting=min(_MOST_WAITING, 8 * concurrency),
            longest_wait=settings.grace / 3,
            ended=partial(self._tell, HOOK),
            give_back=partial(self._give_back, "event"),
        )

    # --- what tasks ask for --------------------------------------------------------------------

    def do(self, task: str, id: str) -> str:
        """Do what is due for one message or event: what its task returns.

        Raises:
            Retry, NotDelivered, Ignore: as :meth:`Shown.end_task`.
        """
        running = (self.events if task == HOOK else self.messages).submit(id)
        may_wait = self._may_wait.acquire(blocking=False)
        if not may_wait and self._alone() <= self._most + _MOST_ALONE:
            running.add_done_callback(partial(self._tell_later, task, id))
            return Shown("IGNORED").end_task()
        try:
            outcome = running.result()
        except exc.QueueUnavailable as error:
            # The claim was not confirmed, nothing was sent: upkeep finds it.
            return Shown("RETRY", type(error).__name__).end_task()
        finally:
            if may_wait:
                self._may_wait.release()
        return shown(task, outcome).end_task()

    def _alone(self) -> int:
        """Messages and events under way that are of no campaign."""
        bulk = self.messages.bulk_running + self.events.bulk_running
        return self.running() - bulk

    # --- what runs on the loop -----------------------------------------------------------------

    def _may_deliver(self, kind: Kind) -> bool:
        # Those whose calls have ended and that are not settled yet count, too.
        bulk = self.messages.bulk_running
        if (bulk if kind.bulk else self.messages.running - bulk) >= self._most:
            return False
        usual = self._gateway.default_provider
        return kind.routed or usual is None or self.slots.free(usual, bulk=kind.bulk)

    def _deliver(self, id: str, kind: Kind | None) -> Outcome:
        return self.delivery.deliver(id, bulk=None if kind is None else kind.bulk)

    def _run_event(self, event: str, kind: Kind | None) -> Outcome:
        bulk = kind is not None and kind.bulk
        with self.slots.held(HANDLERS, bulk=bulk) as busy:
            if not busy:
                return self.hooks.run(event)
        self.hooks.later(event, busy)
        return Outcome(EventState.WAITING, wait=busy + 1, error="WorkerBusy")

    def _tell(self, task: str, id: str, outcome: Outcome) -> None:
        """Show how one of a batch ended."""
        self._rows.tell(task, id, outcome, started=False, retries=outcome.earlier)

    def _tell_later(self, task: str, id: str, running: Future[Outcome]) -> None:
        """Show how one ended whose task did not wait for it."""
        error = running.exception()
        if error is None:
            self._rows.tell(task, id, running.result(), started=True)
        elif isinstance(error, exc.QueueUnavailable):
            waiting = EventState.WAITING if task == HOOK else State.RETRYING
            outcome = Outcome(waiting, error=type(error).__name__)
            self._rows.tell(task, id, outcome, started=True)
        else:
            name, place = type(error).__name__, place_of(error)
            extra = {"id": id, "error_class": name}
            log.error("%s: %s at %s: please report this", id, name, place, extra=extra)

    def _give_back(self, kind: str, ids: list[str]) -> None:
        try:
            self.ledger.put_back(kind, ids)
        except exc.QueueUnavailable as error:  # upkeep finds them later
            log.warning("%d triggers were not given back: %s", len(ids), error)

    # --- the life of the worker ----------------------------------------------------------------

    def running(self) -> int:
        """Messages and events that have begun and not ended."""
        return self.messages.running + self.events.running

    def hung(self) -> Counter[str]:
        """Calls that are past their time limit, by kind."""
        calls = self._calls[0].hung() + self._calls[1].hung()
        calls["provider"] += self.slots.hung().total()
        return +calls

    def rooms(self, *, sends: bool, hooks: bool) -> dict[str, Callable[[], int]]:
        """For upkeep: for how many ids of a lane there is room. None if the triggers of that lane
        come to other workers only: those know how much room they have.

        Args:
            sends, hooks: Does this worker consume the queues of messages, and of events?
        """
        return {
            "send": self.messages.room if sends else lambda: 0,
            "hook": self.events.room if hooks else lambda: 0,
        }

    def stop(self) -> None:
        """Begin with nothing more; what was taken in and not begun goes back to the ledger."""
        self.hooks.stop()
        self.messages.close()
        self.events.close()

    def close(self) -> None:
        """Nothing runs any more: close what is open."""
        self.delivery.close()
        self.hooks.close()
        self.queue.close()
        self._rows.close()
        self._loop.close(1.0)
