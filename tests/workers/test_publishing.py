"""Triggers as workers and monitors find them, however they were published."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from celery import Celery

from smsqueue import Gateway, OutgoingMessage, Settings
from smsqueue.broker import queue as publishing
from smsqueue.broker.queue import Queue, celery_config
from smsqueue.concurrency.greenlet_loop import Loop
from smsqueue.delivery.grouped_ledger import GroupingQueue
from smsqueue.ledger import Ledger
from smsqueue.message.ids import new_id
from smsqueue.message.states import State
from tests.workers.conftest import until

#: Differ from one message to the next, and from one process to the next.
OWN = ("delivery_tag", "origin", "reply_to")

SHARED = """
from celery import Celery, shared_task
from smsqueue import Gateway
from smsqueue.providers import LoopbackProvider

theirs = Celery("theirs", broker="{broker}")

@shared_task(name="theirs.count")
def count(id):
    pass

gateway = Gateway()
gateway.add_provider("phone", LoopbackProvider)
gateway.onSend.connect(lambda message: count.delay(message.id), name="count")
"""


@pytest.fixture
def ledger(settings: Settings) -> Any:
    ledger = Ledger(settings)
    yield ledger
    ledger.close()


def unknown(*args: object) -> None:
    """Recording fails: kombu itself has to publish."""
    raise LookupError("kombu is another one")


def triggers(ledger: Ledger, key: str) -> list[dict[str, Any]]:
    """What lies in a queue, the oldest first, without what is of one message only."""
    texts: Any = ledger.redis.lrange(key, 0, -1)
    found = []
    for text in reversed(texts):
        message = json.loads(text)
        message["body"] = json.loads(base64.b64decode(message["body"]))
        for part in (message["headers"], message["properties"]):
            for name in OWN:
                part.pop(name, None)
        found.append(message)
    return found


def test_a_recorded_trigger_is_the_one_that_celery_makes(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [(new_id(), n) for n in range(3)]
    queue = Queue(settings)
    queue.deliver(ids)
    queue.hook(id for id, _ in ids)
    recorded = [triggers(ledger, key) for key in (settings.send_key, settings.hook_key)]
    tags: Any = ledger.redis.lrange(settings.send_key, 0, -1)
    assert len({json.loads(text)["properties"]["delivery_tag"] for text in tags}) == 3
    ledger.redis.delete(settings.send_key, settings.hook_key)
    queue.close()
    monkeypatch.setattr(publishing, "record", unknown)
    queue.deliver(ids)
    queue.hook(id for id, _ in ids)
    assert recorded == [triggers(ledger, key) for key in (settings.send_key, settings.hook_key)]
    assert [message["headers"]["retries"] for message in recorded[0]] == [0, 1, 2]
    queue.close()


def test_events_of_triggers_are_those_that_celery_makes(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = ledger.redis.pubsub()
    heard.psubscribe(f"{settings.broker_prefix}*")

    def event(queue: Queue) -> dict[str, Any]:
        queue.deliver([("1m842psghd5k1m5599r6", 2)])
        while True:
            told = heard.get_message(timeout=10)
            assert told
            if told["type"] == "pmessage":
                found: dict[str, Any] = json.loads(
                    base64.b64decode(json.loads(told["data"])["body"])
                )
                assert found.pop("timestamp") > 1e9
                found.pop("clock")
                return found | {"channel": told["channel"]}

    queue = Queue(settings)
    recorded = event(queue)
    queue.close()
    monkeypatch.setattr(publishing, "record", unknown)
    assert recorded == event(queue)
    queue.close()
    heard.close()


def test_a_users_application_with_another_broker_publishes_there(
    settings: Settings, ledger: Ledger
) -> None:
    theirs = Celery("theirs", set_as_current=False)
    other = replace(settings, namespace=f"{settings.namespace}-theirs")
    theirs.config_from_object(celery_config(other, worker=False))
    Queue(settings, theirs).deliver([(new_id(), 0)])
    assert triggers(ledger, settings.send_key) == []
    assert len(triggers(ledger, other.broker_prefix + settings.send_queue)) == 1
    theirs.close()


def test_a_shared_task_of_a_handler_goes_to_its_own_application(
    gateway: Gateway, start_worker: Callable[..., Any], until: Callable[..., None]
) -> None:
    broker = gateway.settings.redis_url.rpartition("/")[0] + "/5"
    worker = start_worker(SHARED.replace("{broker}", broker))
    sent = gateway.send(OutgoingMessage("15550001", "hello"))
    until(lambda: gateway.lookup(sent.id or "").state == State.SENT)
    with Gateway(replace(gateway.settings, redis_url=broker)) as other:
        until(lambda: other.ledger.redis.llen("celery"))
        [task] = triggers(other.ledger, "celery")
        other.ledger.redis.delete("celery")
    assert task["headers"]["task"] == "theirs.count"
    assert "Traceback" not in worker.text()


def test_a_worker_whose_gateway_sends_elsewhere_says_so_and_ends(
    start_worker: Callable[..., Any],
) -> None:
    module = """
from smsqueue import Gateway, Settings
from smsqueue.providers import NullProvider
gateway = Gateway(Settings(namespace="elsewhere"))
gateway.add_provider("main", NullProvider)
"""
    worker = start_worker(module, wait=False)
    assert worker.process.wait(timeout=60) != 0
    assert "sends through 'elsewhere' in Redis" in worker.text()
    assert "Traceback" not in worker.text()


def test_events_of_a_campaign_say_so_however_few_they_are(
    ledger: Ledger, settings: Settings
) -> None:
    """Else a worker runs them in the slots that are kept for events of single messages."""
    loop = Loop("test", watched=False)
    queue = GroupingQueue(settings, loop, Queue(settings).app)
    queue.batches = lambda: True
    loop.run(lambda: queue.hook(["one", "two"], bulk=True)).result(20)
    until(lambda: ledger.redis.llen(settings.hook_key))
    (trigger,) = triggers(ledger, settings.hook_key)
    assert trigger["headers"]["task"] == "smsqueue.hook_many"
    assert trigger["body"][:2] == [[["one", "two"]], {"bulk": True}]
    queue.close()
    loop.close()
