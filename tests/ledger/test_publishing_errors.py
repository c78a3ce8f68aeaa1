"""An accepted message is kept, and ``send`` returns, whatever publishing its trigger does."""

from __future__ import annotations

import base64
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import Celery, signals
from kombu.exceptions import LimitExceeded

from smsqueue import Gateway, MessageDelivered, OutgoingMessage
from smsqueue.broker.queue import Queue, celery_config
from smsqueue.message.messages import IncomingMessage
from smsqueue.message.states import State
from tests.ledger.bench import Bench

NUMBER = "15557654321"


@contextmanager
def handler(
    function: Callable[..., Any], signal: Any = signals.before_task_publish
) -> Iterator[None]:
    signal.connect(function, weak=False)
    try:
        yield
    finally:
        signal.disconnect(function)


def triggers(bench: Bench, key: str = "") -> list[dict[str, Any]]:
    """The triggers in a queue, the oldest first, with their bodies read."""
    texts: Any = bench.redis.lrange(key or bench.settings.send_key, 0, -1)
    found = [json.loads(text) for text in reversed(texts)]
    return [each | {"body": json.loads(base64.b64decode(each["body"]))} for each in found]


def queue_to(gateway: Gateway, url: str) -> Queue:
    """A queue that publishes through an application whose broker cannot be used."""
    app = Celery("theirs", set_as_current=False)
    app.config_from_object(celery_config(gateway.settings, worker=False))
    app.conf.broker_url = url
    return Queue(gateway.settings, app)


# --- What may go wrong -----------------------------------------------------------------------


@contextmanager
def unknown_transport(gateway: Gateway, patch: pytest.MonkeyPatch) -> Iterator[None]:
    gateway.queue = queue_to(gateway, "pigeon://nowhere")
    yield


@contextmanager
def refused(gateway: Gateway, patch: pytest.MonkeyPatch) -> Iterator[None]:
    gateway.queue = queue_to(gateway, "redis://127.0.0.1:1/0")
    yield


@contextmanager
def no_celery(gateway: Gateway, patch: pytest.MonkeyPatch) -> Iterator[None]:
    gateway.queue = Queue(gateway.settings)
    with patch.context() as inside:
        inside.setitem(sys.modules, "celery", None)
        yield


def raising(error: Exception) -> Any:
    @contextmanager
    def trouble(gateway: Gateway, patch: pytest.MonkeyPatch) -> Iterator[None]:
        def fails(*args: object, **options: object) -> None:
            raise error

        queue = Queue(gateway.settings)
        queue.app.producer_or_acquire = fails
        gateway.queue = queue
        yield
        queue.close()

    return trouble


@contextmanager
def broken_logging(gateway: Gateway, patch: pytest.MonkeyPatch) -> Iterator[None]:
    def fails(record: logging.LogRecord) -> bool:
        raise AttributeError("tenant")

    logs = [logging.getLogger(name) for name in ("smsqueue.gateway", "smsqueue.queue")]
    gateway.queue = queue_to(gateway, "redis://127.0.0.1:1/0")
    for log in logs:
        patch.setattr(log, "level", logging.DEBUG)
        log.addFilter(fails)
    yield
    for log in logs:
        log.removeFilter(fails)


TROUBLES: dict[str, Any] = {
    "unknown transport": unknown_transport,
    "refused": refused,
    "no celery": no_celery,
    "pool": raising(LimitExceeded(20)),
    "attribute": raising(AttributeError("'NoneType' object has no attribute 'send_command'")),
    "shutdown": raising(RuntimeError("cannot schedule new futures after shutdown")),
    "lookup": raising(LookupError(NUMBER)),
    "logging": broken_logging,
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_nothing_raises_out_of_send_after_the_message_was_accepted(
    bench: Bench,
    trouble: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = bench.add("a")
    made = [OutgoingMessage(NUMBER, f"secret {n}") for n in range(4)]
    with TROUBLES[trouble](bench.gateway, monkeypatch):
        assert bench.gateway.send(made[0]) is made[0]
        assert bench.gateway.send_many(made[1:]) == made[1:]
    ids = [str(message.id) for message in made]
    assert [message.unconfirmed_id for message in made] == [None] * 4
    assert bench.published() == 0
    if trouble != "logging":
        assert f"{ids[0]} was not published" in caplog.text
    assert "secret" not in caplog.text
    assert NUMBER not in caplog.text
    # Upkeep publishes what is still due, and each goes out once.
    bench.redis.zadd(bench.key("due", "send"), dict.fromkeys(ids, 1), xx=True)
    bench.redis.delete(bench.key("filled", "send"))  # it would go soon: publishing takes no time
    bench.upkeep.turn()
    assert sorted(each["headers"]["id"] for each in triggers(bench)) == sorted(ids)
    for id in ids * 2:
        bench.deliver(id)
    assert [bench.state(id) for id in ids] == [State.SENT] * 4
    assert told.calls == [f"{id}.1" for id in ids]


def test_nothing_raises_out_of_what_was_recorded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add("a")
    bench.gateway.onReceive.connect(print, name="print")
    failed, waits = bench.send(), bench.send()
    told = MessageDelivered(None)
    told.provider, told.reference = "a", "nobody.1"
    incoming = IncomingMessage(NUMBER, "hello", "m1")
    incoming.provider = "a"
    with raising(RuntimeError("interpreter shutdown"))(bench.gateway, monkeypatch):
        assert bench.gateway.cancel(failed)
        bench.gateway.receive_message(incoming)
        bench.gateway.receive_status(told)
        bench.upkeep.queue = bench.gateway.queue
        bench.redis.zadd(bench.key("due", "send"), {waits: 1}, xx=True)
        bench.drain()
        bench.upkeep.turn()
    assert bench.state(failed) == State.CANCELLED
    assert len(bench.events("received")) == 1
    assert bench.state(waits) == State.QUEUED


# --- Handlers of the application's -----------------------------------------------------------


def not_json(headers: dict[str, Any], **rest: Any) -> None:
    headers["tenant"] = object()


def raises(**rest: Any) -> None:
    raise ValueError(NUMBER)


@pytest.mark.parametrize("hostile", [not_json, raises])
def test_a_hostile_handler_of_before_task_publish_stops_no_message(
    bench: Bench, hostile: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    bench.add("a")
    with handler(hostile):
        sent = bench.gateway.send(OutgoingMessage(NUMBER, "secret"))
        many = bench.gateway.send_many([OutgoingMessage(NUMBER, "secret") for _ in range(3)])
        # Also where the worker has it: nothing else would ever publish them.
        assert {each["headers"]["id"] for each in triggers(bench)} == (
            {message.id for message in [sent, *many]}
        )
    assert "secret" not in caplog.text


def test_sending_again_after_an_interrupt_is_one_message(bench: Bench) -> None:
    told = bench.add("a")

    def interrupt(**rest: Any) -> None:
        raise KeyboardInterrupt

    message = OutgoingMessage(NUMBER, "hi")
    many = [OutgoingMessage(NUMBER, str(n)) for n in range(600)]
    with handler(interrupt):
        with pytest.raises(KeyboardInterrupt):
            bench.gateway.send(message)
        with pytest.raises(KeyboardInterrupt):
            bench.gateway.send_many(many)
    assert bench.gateway.send(message).id
    assert bench.gateway.send_many(many) == many
    assert bench.ledger.counts()["queued"] == 601
    bench.deliver(str(message.id))
    assert len(told.calls) == 1
    # That was one message. Sent once more on purpose, the object is another.
    first = message.id
    assert bench.gateway.send(message).id != first


# --- Headers belong to one publish -----------------------------------------------------------


def test_each_trigger_has_the_headers_of_its_own_publish(bench: Bench) -> None:
    numbers = iter(range(100))

    def trace(headers: dict[str, Any], **rest: Any) -> None:
        headers["traceparent"] = f"00-{next(numbers):032x}-00000000000000ff-01"
        headers["stamps"] = {"tenant": "acme"}

    plain = bench.gateway.send(OutgoingMessage(NUMBER, "before"))
    with handler(trace):
        traced = [bench.gateway.send(OutgoingMessage(NUMBER, "hi")) for _ in range(2)]
        traced += bench.gateway.send_many([OutgoingMessage(NUMBER, "hi") for _ in range(3)])
    after = bench.gateway.send(OutgoingMessage(NUMBER, "after"))
    found = triggers(bench)
    assert [each["headers"]["id"] for each in found] == (
        [message.id for message in [plain, *traced, after]]
    )
    contexts = [each["headers"].get("traceparent") for each in found]
    assert contexts[0] is contexts[-1] is None
    assert len({*contexts[1:-1]}) == 5
    assert found[-1]["headers"]["stamps"] == {}


def test_a_gateway_whose_first_trigger_was_traced_keeps_nothing_of_it(bench: Bench) -> None:
    def trace(headers: dict[str, Any], properties: dict[str, Any], **rest: Any) -> None:
        headers["traceparent"] = "first"
        properties["priority"] = 7

    with handler(trace):
        bench.send()
    bench.send()
    first, second = triggers(bench)
    assert (first["headers"]["traceparent"], first["properties"]["priority"]) == ("first", 7)
    assert "first" not in json.dumps(second)
    assert second["properties"]["priority"] == 0


@pytest.mark.parametrize("signal", [signals.before_task_publish, signals.after_task_publish])
def test_listeners_hear_of_each_trigger_once(bench: Bench, signal: Any) -> None:
    heard: list[str] = []
    bench.send()

    def listen(headers: dict[str, Any], **rest: Any) -> None:
        heard.append(headers["id"])

    with handler(listen, signal):
        ids = [bench.send() for _ in range(3)]
    bench.send()
    assert heard == ids


def test_listeners_of_other_tasks_hear_nothing(bench: Bench) -> None:
    heard: list[object] = []

    def listen(**told: Any) -> None:
        heard.append(told)

    signals.before_task_publish.connect(listen, sender="theirs.count", weak=False)
    try:
        bench.send()
    finally:
        signals.before_task_publish.disconnect(listen, sender="theirs.count")
    assert (heard, len(triggers(bench))) == ([], 1)


def test_a_trigger_published_inside_a_task_has_no_parent(bench: Bench) -> None:
    theirs = Celery("theirs", broker="memory://", set_as_current=False)
    theirs.conf.task_always_eager = True

    @theirs.task(name="theirs.order", bind=True)
    def order(self: Any) -> list[Any]:
        bench.send()
        return list(self.request.children)

    assert order.apply(task_id="parent-1").get() == []
    bench.send()
    for each in triggers(bench):
        headers = each["headers"]
        assert (headers["parent_id"], headers["group"]) == (None, None)
        assert headers["root_id"] == headers["id"] == each["properties"]["correlation_id"]
        assert headers["argsrepr"] == repr((headers["id"],))
