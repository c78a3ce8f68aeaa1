"""What a worker does on its loop: lost claims, threads that do not start, handlers that close."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from smsqueue import IncomingMessage, OutgoingMessage, exc
from smsqueue.concurrency.greenlet_loop import Loop
from smsqueue.delivery import Delivery
from smsqueue.delivery.event_runner import EventRunner
from smsqueue.delivery.grouped_ledger import GroupingLedger, GroupingQueue
from smsqueue.ledger import ClaimedEvent
from tests.ledger.bench import Bench
from tests.workers.conftest import until


class Deaf(GroupingLedger):
    """Redis reads what this ledger asks for; while it is deaf, no answer comes back."""

    deaf = False
    #: Settles of events that Redis answered.
    settled = 0

    def _hear(self, answers: Any) -> Any:
        if self.deaf:
            raise exc.QueueUnavailable("no answer")
        return answers

    def claim_many(self, items: Any) -> Any:
        return self._hear(super().claim_many(items))

    def claim_events(self, items: Any, worker: str) -> Any:
        return self._hear(super().claim_events(items, worker))

    def unclaim_many(self, items: Any) -> Any:
        self._hear(None)
        return super().unclaim_many(items)

    def settle_events(self, items: Any) -> Any:
        self._hear(None)
        answers = super().settle_events(items)
        self.settled += 1
        return answers


class OnLoop:
    """What a worker has, on a loop."""

    def __init__(self, bench: Bench) -> None:
        self.loop = Loop("test", watched=False)
        self.ledger = Deaf(bench.settings, self.loop, timeout=5.0)
        self.delivery = Delivery(bench.gateway, self.ledger, bench.queue, bench.slots, "w")
        self.hooks = EventRunner(bench.gateway, self.ledger, "w")

    def run(self, function: Callable[[], Any]) -> Any:
        return self.loop.run(function).result(20)

    @contextmanager
    def deaf(self) -> Iterator[None]:
        self.ledger.deaf = True
        yield
        self.ledger.deaf = False

    def deliver_deaf(self, id: str) -> None:
        with pytest.raises(exc.QueueUnavailable):
            self.run(lambda: self.delivery.deliver(id))

    def run_event_deaf(self, event: str) -> None:
        with pytest.raises(exc.QueueUnavailable):
            self.run(lambda: self.hooks.run(event))


@pytest.fixture
def worker(bench: Bench) -> Iterator[OnLoop]:
    worker = OnLoop(bench)
    yield worker
    worker.delivery.close()
    worker.loop.close()
    worker.ledger.close()


@contextmanager
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        yield


def receive(bench: Bench) -> str:
    message = IncomingMessage("1555", "YES")
    message.provider = "a"
    bench.gateway.receive_message(message)
    return message.id or ""


def test_a_message_whose_claim_was_lost_goes_on_without_another_claim(
    bench: Bench, worker: OnLoop
) -> None:
    a = bench.add("a")
    id = bench.send()
    with worker.deaf():
        worker.deliver_deaf(id)
        assert bench.state(id) == "sending"
    until(lambda: bench.state(id) == "retrying", 20)
    assert worker.run(lambda: worker.delivery.deliver(id)).state == "sent"
    assert len(a.calls) == 1


def test_a_worker_that_stops_gives_lost_claims_back(bench: Bench, worker: OnLoop) -> None:
    bench.add("a")
    bench.gateway.onReceive += lambda message: None
    id, event = bench.send(), receive(bench)
    with worker.deaf():
        worker.deliver_deaf(id)
        worker.run_event_deaf(event)
    worker.delivery.close()
    worker.hooks.close()
    assert bench.state(id) == "retrying"
    assert (bench.ledger.read_event(event) or {})["state"] == "waiting"


def test_an_event_whose_claim_was_lost_goes_on_without_another_claim(
    bench: Bench, worker: OnLoop
) -> None:
    bench.add("a")
    called: list[Any] = []
    bench.gateway.onReceive.connect(called.append, name="handler")
    event = receive(bench)
    with worker.deaf():
        worker.run_event_deaf(event)
        assert (bench.ledger.read_event(event) or {})["state"] == "running"
    until(lambda: (bench.ledger.read_event(event) or {})["state"] == "waiting", 20)
    assert (bench.ledger.read_event(event) or {}).get("tries") is None
    assert worker.run(lambda: worker.hooks.run(event)).state == "done"
    assert len(called) == 1


def test_a_lost_claim_of_an_event_that_redis_reads_late_is_given_back(
    bench: Bench, worker: OnLoop
) -> None:
    """The first "back" comes before the claim that it is about, as from another connection."""
    bench.add("a")
    event = receive(bench)
    worker.run(lambda: worker.hooks.lost.add(event, "token"))
    until(lambda: worker.ledger.settled, 20)
    assert isinstance(bench.ledger.claim_event(event, "token", "w"), ClaimedEvent)
    until(lambda: (bench.ledger.read_event(event) or {})["state"] == "waiting", 20)
    until(lambda: not worker.hooks.lost.ids, 20)


def test_after_a_thread_could_not_be_started_messages_go_on(
    bench: Bench, worker: OnLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = bench.add("a")
    id = bench.send()
    with no_threads(monkeypatch), pytest.raises(exc.QueueUnavailable, match="thread"):
        worker.run(lambda: worker.delivery.deliver(id))
    until(lambda: not worker.delivery.claims.lost.ids, 20)
    bench.ripe(id)
    assert worker.run(lambda: worker.delivery.deliver(id)).state == "sent"
    assert len(a.calls) == 1


def test_after_a_thread_could_not_be_started_events_are_published(
    bench: Bench, worker: OnLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = GroupingQueue(bench.settings, worker.loop, bench.queue.app)
    with no_threads(monkeypatch):
        worker.run(lambda: queue.hook(["one"]))
        worker.run(lambda: None)
    worker.run(lambda: queue.hook(["two"]))
    until(lambda: bench.published(bench.settings.hook_key) == 1, 20)  # upkeep finds the first one
    queue.close()


def test_a_handler_that_closes_its_gateway_leaves_the_worker_its_connections(
    bench: Bench, worker: OnLoop
) -> None:
    def handler(message: OutgoingMessage) -> None:
        with bench.gateway:
            pass

    bench.add("a")
    bench.gateway.onSend.connect(handler, name="handler")
    queue = GroupingQueue(bench.settings, worker.loop, bench.queue.app)
    delivery = Delivery(bench.gateway, worker.ledger, queue, bench.slots, "w")
    ids = [bench.send(), bench.send()]
    bench.gateway.ledger, bench.gateway.queue = worker.ledger, queue
    hooks = bench.settings.hook_key
    worker.run(lambda: delivery.deliver(ids[0]))
    until(lambda: bench.published(hooks) == 1, 20)
    (event,) = bench.events("sent")
    assert worker.run(lambda: worker.hooks.run(event)).state == "done"
    worker.run(lambda: delivery.deliver(ids[1]))
    until(lambda: bench.published(hooks) == 2, 20)
    assert bench.gateway.queue is queue
    queue.close()
