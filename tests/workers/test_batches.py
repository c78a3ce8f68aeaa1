"""A backlog is published in triggers of many, and delivered in groups."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import redis
from celery import Celery

from smsqueue import Gateway, OutgoingMessage, Settings
from smsqueue.broker.queue import DELIVER_MANY, HOOK_MANY, celery_config
from smsqueue.message.states import EventState, State

GATEWAY = """
import asyncio
import os
from smsqueue import Gateway, RetryPolicy
from smsqueue.providers.http import HttpProvider

class Plain(HttpProvider):
    def send(self, message):
        if message.body == "exit":
            raise SystemExit(3)
        answer = self.call("POST", f"/{self.name}", json={"text": message.body})
        message.msgid = answer.require("id")
        if message.body == "cancelled":
            raise asyncio.CancelledError
        return message

gateway = Gateway(retry=RetryPolicy(base=0.05, cap=0.1, attempts=3))
gateway.add_provider("first", Plain, url=os.environ["CARRIER"])
gateway.add_provider("second", Plain, url=os.environ["CARRIER"])
"""

HANDLER = """
def on_send(message):
    with open("heard", "a") as file:
        file.write(message.body + "\\n")

gateway.onSend += on_send
"""


class Carrier:
    """The API of both providers: it counts what it gets, and the first one waits if it shall."""

    def __init__(self) -> None:
        #: While it is not set, the first provider does not answer.
        self.answers = threading.Event()
        self.answers.set()
        #: By the text of the message.
        self.taken: Counter[str] = Counter()
        self.inside = self.most_inside = 0
        self._lock = threading.Lock()
        carrier = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                refused = carrier.take(self.path, json.loads(self.rfile.read(length))["text"])
                self.send_response(400 if refused else 200)
                self.send_header("Content-Length", "11")
                self.end_headers()
                self.wfile.write(b'{"id": "1"}')

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128  # connections that all come at once

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, path: str, text: str) -> bool:
        with self._lock:
            self.taken[text] += 1
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        if path == "/first":
            self.answers.wait(120)
        with self._lock:
            self.inside -= 1
        return text == "refused"

    def close(self) -> None:
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def carrier() -> Iterator[Carrier]:
    carrier = Carrier()
    yield carrier
    carrier.close()


@pytest.fixture
def start(start_worker: Callable[..., Any], carrier: Carrier) -> Callable[..., Any]:
    """Starts a worker that calls the carrier."""

    def start(gateway: str = GATEWAY, *options: str, **environment: str) -> Any:
        return start_worker(gateway, *options, CARRIER=carrier.url, **environment)

    return start


@pytest.fixture
def campaign(gateway: Gateway) -> Callable[..., list[str]]:
    """Takes many messages in that nobody has triggers of."""

    def send(number: int, *texts: str) -> list[str]:
        bodies = [*(f"campaign {i}" for i in range(number)), *texts]
        messages = [OutgoingMessage("15550001", body) for body in bodies]
        ids = [message.id or "" for message in gateway.send_many(messages)]
        ledger = gateway.ledger
        ledger.redis.delete(gateway.settings.send_key)
        ledger.put_back("msg", ids)
        return ids

    return send


#: Options of a worker whose log has a line for each task.
TASKS_ARE_LOGGED = ("-l", "DEBUG")


def states(gateway: Gateway, ids: list[str]) -> Counter[str]:
    return Counter(gateway.lookup(id).state for id in ids)


def batches(text: str, task: str) -> list[str]:
    """What the batches said that a worker took."""
    return [line.rpartition(": ")[2] for line in text.splitlines() if f"Task {task}[" in line]


def test_a_campaign_is_sent_once_in_few_triggers(
    gateway: Gateway,
    start: Callable[..., Any],
    campaign: Callable[..., list[str]],
    carrier: Carrier,
    until: Callable[..., None],
) -> None:
    ids = campaign(400)
    worker = start(GATEWAY, *TASKS_ARE_LOGGED, SMSQUEUE_MAX_IN_FLIGHT="50")
    until(lambda: states(gateway, ids) == {State.SENT: 400})
    assert set(carrier.taken.values()) == {1}
    assert len(carrier.taken) == 400
    assert carrier.most_inside <= 50
    text = worker.text()
    assert 1 <= text.count(f"Task {DELIVER_MANY}[") // 2 <= 40
    assert text.count("Task smsqueue.deliver[") // 2 <= 100
    worker.stop()
    assert "Traceback" not in worker.text()


def test_events_of_a_campaign_come_in_batches_and_are_heard_once(
    gateway: Gateway,
    start: Callable[..., Any],
    campaign: Callable[..., list[str]],
    until: Callable[..., None],
    tmp_path: Any,
) -> None:
    campaign(400)
    worker = start(
        GATEWAY + HANDLER, *TASKS_ARE_LOGGED, SMSQUEUE_WATERMARK="1", SMSQUEUE_BULK_WATERMARK="1"
    )
    heard = tmp_path / "heard"
    until(lambda: heard.exists() and len(heard.read_text().splitlines()) >= 400)
    until(lambda: not gateway.ledger.counts()[EventState.WAITING])
    until(lambda: not gateway.ledger.counts()[EventState.RUNNING])
    assert set(Counter(heard.read_text().splitlines()).values()) == {1}
    assert f"Task {HOOK_MANY}[" in worker.text()


def test_one_that_is_damaged_and_one_that_is_refused_harm_no_other(
    gateway: Gateway,
    start: Callable[..., Any],
    campaign: Callable[..., list[str]],
    until: Callable[..., None],
) -> None:
    ids = campaign(100, "refused")
    bad, *others, refused = ids
    gateway.ledger.redis.hset(f"{gateway.settings.namespace}:msg:{bad}", "attempt", "many")
    start()
    until(lambda: states(gateway, others) == {State.SENT: 99})
    until(lambda: gateway.lookup(refused).state == State.FAILED)
    assert [each.id for each in gateway.ledger.damaged()] == [bad]


def test_code_that_ends_its_program_ends_no_worker(
    gateway: Gateway,
    start: Callable[..., Any],
    campaign: Callable[..., list[str]],
    until: Callable[..., None],
) -> None:
    router = "gateway.router = lambda message, *values: sys.exit(3)\n"
    *others, last = campaign(50, "exit")
    worker = start(f"import sys\n{GATEWAY}{router}")
    alone = gateway.send(OutgoingMessage("15550001", "exit"))
    routed = gateway.send(OutgoingMessage("15550001", "hi").route("somewhere"))
    until(lambda: states(gateway, others) == {State.SENT: 50})
    # Nothing was written, so both are tried again until their tries are over.
    until(lambda: states(gateway, [last, alone.id or ""]) == {State.FAILED: 2})
    until(lambda: gateway.lookup(routed.id or "").state == State.FAILED)
    after = gateway.send(OutgoingMessage("15550001", "after"))
    until(lambda: gateway.lookup(after.id or "").state == State.SENT)
    worker.stop()
    assert worker.process.returncode == 0


def test_a_call_that_was_written_and_then_cancelled_is_not_made_again(
    gateway: Gateway,
    start: Callable[..., Any],
    carrier: Carrier,
    until: Callable[..., None],
) -> None:
    start()
    sent = gateway.send(OutgoingMessage("15550001", "cancelled"))
    until(lambda: gateway.lookup(sent.id or "").state == State.UNKNOWN)
    assert carrier.taken["cancelled"] == 1


def test_a_single_message_does_not_wait_for_a_campaign_that_does_not_move(
    gateway: Gateway,
    start: Callable[..., Any],
    campaign: Callable[..., list[str]],
    carrier: Carrier,
    until: Callable[..., None],
) -> None:
    carrier.answers.clear()
    ids = campaign(200)
    start(GATEWAY, SMSQUEUE_MAX_IN_FLIGHT="16")
    until(lambda: carrier.inside == 14)  # an eighth of the slots is not for campaigns
    same = gateway.send(OutgoingMessage("15550001", "a password"))
    until(lambda: carrier.taken["a password"] == 1)
    elsewhere = gateway.send(OutgoingMessage("15550001", "another", provider="second"))
    until(lambda: gateway.lookup(elsewhere.id or "").state == State.SENT)
    # Nothing is claimed that cannot be called.
    assert states(gateway, ids)[State.SENDING] == 14
    assert max(gateway.lookup(id).timeline.__len__() for id in ids) <= 2
    carrier.answers.set()
    until(lambda: states(gateway, [*ids, same.id or ""]) == {State.SENT: 201})
    assert set(carrier.taken.values()) == {1}


def test_tasks_that_wait_for_a_slow_provider_leave_threads_to_others(
    gateway: Gateway,
    start: Callable[..., Any],
    carrier: Carrier,
    until: Callable[..., None],
) -> None:
    carrier.answers.clear()
    worker = start(GATEWAY, SMSQUEUE_MAX_IN_FLIGHT="50")  # more than the pool's 8 threads
    slow = [gateway.send(OutgoingMessage("15550001", f"slow {i}")).id or "" for i in range(30)]
    until(lambda: carrier.inside == 30)
    other = gateway.send(OutgoingMessage("15550001", "other", provider="second"))
    until(lambda: gateway.lookup(other.id or "").state == State.SENT)
    carrier.answers.set()
    until(lambda: states(gateway, slow) == {State.SENT: 30})
    assert set(carrier.taken.values()) == {1}
    worker.stop()
    assert "Traceback" not in worker.text()


def test_a_worker_that_stops_gives_back_what_it_has_not_begun(
    gateway: Gateway,
    start: Callable[..., Any],
    campaign: Callable[..., list[str]],
    carrier: Carrier,
    until: Callable[..., None],
) -> None:
    carrier.answers.clear()
    ids = campaign(40)
    worker = start(GATEWAY, *TASKS_ARE_LOGGED, SMSQUEUE_MAX_IN_FLIGHT="8")
    until(lambda: carrier.inside == 7)
    until(lambda: f"Task {DELIVER_MANY}[" in worker.text())
    worker.process.send_signal(signal.SIGTERM)
    # The default grace for lost triggers is a minute; the others are due now.
    due = f"{gateway.settings.namespace}:due:send_bulk"
    rest = redis.Redis.from_url(gateway.settings.redis_url)
    until(lambda: rest.zcount(due, "-inf", gateway.ledger.now() * 1000) >= 16)
    carrier.answers.set()
    assert worker.process.wait(60) == 0
    assert not states(gateway, ids)[State.SENDING]
    start()
    until(lambda: states(gateway, ids) == {State.SENT: 40})
    assert set(carrier.taken.values()) == {1}


def test_older_workers_get_no_batches(
    gateway: Gateway,
    start: Callable[..., Any],
    campaign: Callable[..., list[str]],
    until: Callable[..., None],
) -> None:
    gateway.ledger.record_heartbeat(
        "older@host/1", {"queues": [], "concurrency": 8, "version": "0.9"}
    )
    ids = campaign(100)
    worker = start()
    until(lambda: states(gateway, ids) == {State.SENT: 100})
    assert DELIVER_MANY not in worker.text().partition(" ready.")[2]


def test_a_message_of_a_batch_that_failed_has_a_row_for_monitors(
    gateway: Gateway,
    settings: Settings,
    start: Callable[..., Any],
    campaign: Callable[..., list[str]],
    until: Callable[..., None],
) -> None:
    app = Celery("test", set_as_current=False)
    app.config_from_object(celery_config(settings, worker=False))
    rows: dict[str, str] = {}

    def note(event: dict[str, Any]) -> None:
        if event["type"] in ("task-failed", "task-retried", "task-succeeded"):
            rows[event["uuid"]] = event["type"]

    *others, refused = campaign(50, "refused")
    with app.connection() as connected:
        receiver = app.events.Receiver(connected, handlers={"*": note})
        with receiver.consumer_context(wakeup=False) as (connection, _, _):
            start()
            while refused not in rows:
                connection.drain_events(timeout=60)
    assert rows[refused] == "task-failed"
    until(lambda: states(gateway, others) == {State.SENT: 50})
    assert not rows.keys() & set(others)


def test_a_worker_of_events_only_leaves_campaigns_to_others(
    gateway: Gateway,
    start: Callable[..., Any],
    campaign: Callable[..., list[str]],
    until: Callable[..., None],
) -> None:
    ids = campaign(100)
    hooks = start(GATEWAY, "-Q", gateway.settings.hook_queue)
    single = gateway.send(OutgoingMessage("15550001", "single"))
    until(lambda: len(gateway.ledger.workers()) == 1)
    start(GATEWAY, "-Q", gateway.settings.send_queue)
    until(lambda: states(gateway, [*ids, single.id or ""]) == {State.SENT: 101})
    assert "smsqueue.deliver" not in hooks.text().partition(" ready.")[2]
