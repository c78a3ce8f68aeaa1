"""Task events of messages that have no task of their own, as monitors receive them."""

from __future__ import annotations

import json
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import pytest
import redis
from celery import Celery

from smsqueue import Gateway, OutgoingMessage, Settings
from smsqueue.broker.queue import DELIVER, HOOK, celery_config
from smsqueue.delivery import TriggerResult
from smsqueue.message.ids import new_id
from tests.conftest import RedisServer
from tests.workers.conftest import Ask
from workers.task_events import TaskEvents

RETRYING = TriggerResult("retrying", wait=2.0, error="ServerError")
UNKNOWN = TriggerResult("unknown", wait=20.0, error="ConnectionError")
FAILED = TriggerResult("failed", error="RequestError")
SENT = TriggerResult("sent")

# Beside real messages, the worker has a task that hands its id over, as a busy worker does, and
# one that is a batch of one.
GATEWAY = """
from celery.exceptions import Ignore
from celery.utils.nodenames import default_nodename

from smsqueue import Gateway, IProvider, RetryPolicy, exc
from smsqueue.delivery import TriggerResult
from smsqueue.broker.queue import DELIVER
from workers import app
from workers.task_events import TaskEvents

class Moody(IProvider):
    def send(self, message):
        if message.body == "bad text":
            raise exc.RequestError("15557654321 is bad text", code="bad-number")
        if message.body == "lost text":
            raise exc.ConnectionError("lost text", ambiguous=True)
        message.msgid = "m-1"
        return message

gateway = Gateway(retry=RetryPolicy(base=0.01, cap=0.01))
gateway.add_provider("moody", Moody)
rows = TaskEvents(app, default_nodename(None))

@app.task(name="test.hand_over")
def hand_over(id, state, error):
    rows.add(DELIVER, id, TriggerResult(state, error=error), started=True, runtime=0.5)
    raise Ignore

@app.task(name="test.batch")
def batch(ids, state, error):
    for id in ids:
        rows.add(DELIVER, id, TriggerResult(state, error=error), started=False)
"""


def celery_app(settings: Settings) -> Celery:
    app = Celery("smsqueue", set_as_current=False)
    app.config_from_object(celery_config(settings, worker=True))
    return app


@pytest.fixture
def app(settings: Settings) -> Iterator[Celery]:
    made = celery_app(settings)
    yield made
    made.close()


@pytest.fixture
def rows(app: Celery) -> Iterator[TaskEvents]:
    made = TaskEvents(app, "celery@here")
    yield made
    made.close()


class Monitor:
    """Celery's own receiver of events, and the state that it makes of them, as in Flower."""

    def __init__(self, app: Any) -> None:
        self.state: Any = app.events.State(max_tasks_in_memory=50_000)
        self._connections = [app.connection_for_read(), app.connection_for_write()]
        reads, writes = self._connections
        self._receiver = app.events.Receiver(reads, handlers={"*": self.state.event})
        self._dispatcher = app.events.Dispatcher(writes, hostname="test")
        self._thread = threading.Thread(target=self._receiver.capture, kwargs={"wakeup": False})
        self._thread.start()

    def row(self, id: str) -> Any:
        return self.state.tasks.get(id)

    def states(self) -> dict[str, str]:
        return {id: task.state for id, task in list(self.state.tasks.items())}

    def receives(self) -> bool:
        self._dispatcher.send("worker-online")
        return bool(self.state.workers)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._receiver.should_stop = True
            self._dispatcher.send("worker-offline")  # the receiver waits for an event
            self._thread.join()
            for connection in self._connections:
                connection.close()


@pytest.fixture
def start_monitor(until: Callable[..., None]) -> Iterator[Callable[[Celery], Monitor]]:
    started: list[Monitor] = []

    def start(app: Celery) -> Monitor:
        started.append(Monitor(app))
        until(started[-1].receives)
        return started[-1]

    yield start
    for monitor in started:
        monitor.stop()


@pytest.fixture
def monitor(app: Celery, start_monitor: Callable[[Celery], Monitor]) -> Monitor:
    return start_monitor(app)


def test_messages_of_a_batch_have_a_row_unless_they_were_sent(
    rows: TaskEvents, monitor: Monitor, until: Callable[..., None]
) -> None:
    shown = {new_id(): outcome for outcome in (RETRYING, UNKNOWN, FAILED)}
    # Sent; claimed by another worker; no provider was free; too early.
    hidden = [SENT, TriggerResult("sending"), TriggerResult("queued", 1.0, "ProviderPaused")]
    hidden.append(TriggerResult("retrying", 1.0))
    for outcome in hidden:
        rows.add(DELIVER, new_id(), outcome, started=False)
    for id, outcome in shown.items():
        rows.add(DELIVER, id, outcome, started=False)
    last = new_id()
    rows.add(DELIVER, last, FAILED, started=False)
    until(lambda: monitor.row(last))
    assert monitor.states() == dict(
        zip([*shown, last], ["RETRY", "RETRY", "FAILURE", "FAILURE"], strict=True)
    )
    errors = [monitor.row(id).exception for id in shown]
    assert errors == [
        "Waiting('ServerError')",
        "Waiting('ConnectionError')",
        "NotDelivered('failed: RequestError')",
    ]


def test_events_of_a_batch_have_a_row_unless_their_handlers_succeeded(
    rows: TaskEvents, monitor: Monitor, until: Callable[..., None]
) -> None:
    repeated, dead, done, early = (new_id() for _ in range(4))
    rows.add(HOOK, done, TriggerResult("done"), started=False)
    rows.add(HOOK, early, TriggerResult("waiting", wait=0.0), started=False)
    rows.add(HOOK, repeated, TriggerResult("waiting", 2.0, "KeyError"), started=False)
    rows.add(HOOK, dead, TriggerResult("dead", error="KeyError"), started=False)
    until(lambda: monitor.row(dead))
    assert monitor.states() == {repeated: "RETRY", dead: "FAILURE"}
    assert (monitor.row(dead).name, monitor.row(dead).args) == (HOOK, f"('{dead}',)")


def test_the_row_of_an_earlier_attempt_ends_with_the_message(
    rows: TaskEvents, monitor: Monitor, until: Callable[..., None]
) -> None:
    tried, published = new_id(), new_id()
    rows.add(DELIVER, tried, RETRYING, started=False)
    until(lambda: monitor.states() == {tried: "RETRY"})
    rows.add(DELIVER, tried, SENT, started=False, retries=1)
    rows.add(DELIVER, published, SENT, started=False, has_row=True)
    until(lambda: monitor.states() == {tried: "SUCCESS", published: "SUCCESS"})
    assert (monitor.row(tried).retries, monitor.row(tried).result) == (1, "'sent'")


def test_nothing_is_sent_while_task_events_are_off(
    app: Celery, rows: TaskEvents, monitor: Monitor, until: Callable[..., None]
) -> None:
    off, on = new_id(), new_id()
    app.conf.worker_send_task_events = False
    rows.add(DELIVER, off, FAILED, started=False)
    app.conf.worker_send_task_events = True
    rows.add(DELIVER, on, FAILED, started=False)
    until(lambda: monitor.row(on))
    assert monitor.states() == {on: "FAILURE"}


def test_rows_look_in_flower_like_those_of_single_messages(
    gateway: Gateway,
    start_worker: Callable[..., Any],
    flower: Ask,
    until: Callable[..., None],
) -> None:
    start_worker(GATEWAY)
    until(lambda: flower("/api/tasks") is not None)
    until(lambda: flower("/api/workers?refresh=1"))
    outcomes = {"bad": ("failed", "RequestError"), "lost": ("unknown", "ConnectionError")}
    ends = {"bad": "FAILURE", "lost": "RETRY", "good": "SUCCESS"}
    outcomes["good"] = ("sent", "")

    def send(task: str, id: str, *args: Any) -> None:
        queue = gateway.settings.send_queue
        gateway.queue.app.send_task(task, args=args, task_id=id, queue=queue)

    single = {
        word: gateway.send(OutgoingMessage("15557654321", f"{word} text")).id or ""
        for word in outcomes
    }
    in_batch = {word: new_id() for word in ("bad", "lost")}
    for word, id in in_batch.items():
        send("test.batch", new_id(), [id], *outcomes[word])
    handed_over = {word: [new_id() for _ in range(20)] for word in outcomes}
    for word, ids in handed_over.items():
        for id in ids:
            send("test.hand_over", id, id, *outcomes[word])

    def ended() -> bool:
        found = flower("/api/tasks?limit=1000") or {}
        ids = [*single.values(), *in_batch.values(), *chain(*handed_over.values())]
        names = ("succeeded", "failed", "retried")
        return all(any(found.get(id, {}).get(name) for name in names) for id in ids)

    until(ended)
    tasks = flower("/api/tasks?limit=1000")
    # Not STARTED: the event of the worker that says so comes first.
    assert {word: {tasks[id]["state"] for id in ids} for word, ids in handed_over.items()} == {
        word: {state} for word, state in ends.items()
    }
    for word, ids in handed_over.items():
        assert looks(tasks[ids[0]]) == looks(tasks[single[word]])
    for word, id in in_batch.items():
        assert looks(tasks[id]) == looks(tasks[single[word]])
        assert tasks[id]["received"]
    assert "15557654321" not in json.dumps(tasks)


def looks(row: dict[str, Any]) -> dict[str, Any]:
    """What a row shows, apart from its id and times."""
    names = ("name", "args", "kwargs", "state", "worker", "result", "exception", "retries")
    shown = {name: str(row[name]).replace(row["uuid"], "(id)") for name in (*names, "root_id")}
    shown["traceback"] = (row["traceback"] or "").strip().splitlines()[-1:]
    for name in ("received", "started", "runtime", "succeeded", "failed", "retried"):
        shown[name] = bool(row[name])
    return shown


def test_rows_are_dropped_while_redis_is_away(
    redis_server: Callable[..., RedisServer],
    start_monitor: Callable[[Celery], Monitor],
    until: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = redis_server()
    app = celery_app(Settings(redis_url=server.url))
    rows = TaskEvents(app, "celery@here")
    server.stop(kill=True)
    lost = new_id()
    rows.add(DELIVER, lost, FAILED, started=False)
    until(lambda: "events for Flower are not sent" in caplog.text)
    rows.add(DELIVER, lost, FAILED, started=False)
    server.start()
    monitor = start_monitor(app)

    def is_visible() -> bool:
        rows.add(DELIVER, new_id(), FAILED, started=False)
        return bool(monitor.state.tasks)

    until(is_visible)
    assert caplog.text.count("events for Flower are not sent") == 1
    # A connection that was cut while it was idle costs nothing.
    with redis.Redis.from_url(server.url) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    kept = new_id()
    rows.add(DELIVER, kept, FAILED, started=False)
    until(lambda: monitor.row(kept))
    assert caplog.text.count("events for Flower are not sent") == 1
    # A Redis that does not answer does not stop the worker from ending.
    monitor.stop()
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    rows.add(DELIVER, new_id(), FAILED, started=False)
    rows.close()
    until(lambda: caplog.text.count("events for Flower are not sent") == 2)
    rows.add(DELIVER, new_id(), FAILED, started=False)
    app.close()


class HangingApp(Celery):
    """Its connections to the broker take as long as the test wants."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.connecting, self.go = threading.Event(), threading.Event()

    def connection_for_write(self, *args: Any, **options: Any) -> Any:
        self.connecting.set()
        self.go.wait()
        return super().connection_for_write(*args, **options)


def test_the_newest_of_a_crowd_are_kept_and_come_in_groups(
    settings: Settings,
    redis_client: redis.Redis,
    monitor: Monitor,
    until: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = HangingApp("smsqueue", set_as_current=False)
    app.config_from_object(celery_config(settings, worker=True))
    rows = TaskEvents(app, "celery@here")
    first, ids = new_id(), [new_id() for _ in range(20_000)]
    rows.add(DELIVER, first, FAILED, started=False)
    app.connecting.wait()
    for id in ids:
        rows.add(DELIVER, id, FAILED, started=False)
    with redis_client.pubsub() as published:
        published.psubscribe(f"*{settings.broker_prefix}*")
        published.get_message(timeout=10)
        app.go.set()
        rows.close()
        until(lambda: monitor.row(ids[-1]))
        assert set(monitor.states()) == {first, *ids[10_000:]}
        messages = 0
        while published.get_message(ignore_subscribe_messages=True):
            messages += 1
    assert messages <= 2 + 10_000 // 64
    assert "10000 events for Flower were dropped: 10000 wait to be sent at most" in caplog.text
    app.close()


@pytest.fixture(autouse=True)
def _worker_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "smsqueue.worker")
