"""Calls while Redis fails: they end with QueueUnavailable, and nothing is lost or sent twice."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from smsqueue import IncomingMessage, OutgoingMessage, Settings, exc
from tests.ledger.bench import Bench

Make = Callable[..., Any]


#: Seconds for which Redis stays frozen: far longer than a call may wait for it.
FROZEN = 10.0


@contextmanager
def frozen(server: Any) -> Iterator[None]:
    """Freeze Redis. What the block does has to end while it is frozen."""
    ended = threading.Event()
    thawed = threading.Event()

    def thaw() -> None:
        if not ended.wait(FROZEN):
            thawed.set()
        os.kill(server.process.pid, signal.SIGCONT)

    os.kill(server.process.pid, signal.SIGSTOP)
    thread = threading.Thread(target=thaw)
    thread.start()
    try:
        yield
        assert not thawed.is_set(), "the call waited for Redis"
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def on(make_bench: Callable[..., Bench]) -> Callable[..., Bench]:
    """A bench on a Redis process of its own."""

    def make(server: Any, **changed: Any) -> Bench:
        bench = make_bench(**({"redis_url": server.url} | changed))
        bench.add("a")
        return bench

    return make


def test_a_wrong_password(redis_server: Make, on: Callable[..., Bench]) -> None:
    server = redis_server("--requirepass", "right")
    for url in (server.url.replace("//", "//:wrongpass@"), server.url):
        bench = on(server, redis_url=url)
        message = OutgoingMessage("1555", "hi")
        with pytest.raises(exc.QueueUnavailable, match="SMSQUEUE_REDIS_URL") as e:
            bench.gateway.send(message)
        assert "wrongpass" not in str(e.value)
        assert message.id is None
    bench = on(server, redis_url=server.url.replace("//", "//:right@"))
    bench.deliver(bench.send())


def test_redis_that_is_not_there(redis_server: Make, on: Callable[..., Bench]) -> None:
    server = redis_server()
    server.stop()
    bench = on(server)
    message = OutgoingMessage("1555", "hi")
    with pytest.raises(exc.QueueUnavailable, match="cannot be reached"):
        bench.gateway.send(message)
    with pytest.raises(exc.QueueUnavailable) as caught:
        bench.gateway.send_many([message])
    assert caught.value.accepted == []
    with pytest.raises(exc.QueueUnavailable):
        bench.gateway.receive_message(IncomingMessage("1555", "hi"))
    with pytest.raises(exc.QueueUnavailable):
        bench.gateway.lookup("x")
    id = message.unconfirmed_id
    assert id is not None
    server.start()
    assert bench.gateway.send(message).id == id


def test_a_host_without_an_address(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(redis_url="redis://nowhere.invalid:6379/0")
    with pytest.raises(exc.QueueUnavailable):
        bench.gateway.send(OutgoingMessage("1555", "hi"))


@pytest.mark.parametrize("warm", [False, True])
def test_a_frozen_redis(redis_server: Make, on: Callable[..., Bench], warm: bool) -> None:
    server = redis_server()
    bench = on(server)
    if warm:
        bench.send("warm")
    message = OutgoingMessage("1555", "hi")
    for _ in range(2):
        with frozen(server), pytest.raises(exc.QueueUnavailable):
            bench.gateway.send(message)
    id = message.unconfirmed_id
    # What was written before the freeze may be executed now: it is the same message.
    assert bench.gateway.send(message).id == id
    assert bench.ledger.counts()["queued"] == (2 if warm else 1)


def test_a_publish_that_fails_does_not_fail_the_send(
    redis_server: Make, on: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = redis_server()
    bench = on(server)
    bench.send("warm")
    accept = bench.gateway.ledger.accept

    with ExitStack() as frozen_after_accept:

        def then_freeze(*args: Any, **options: Any) -> Any:
            answer = accept(*args, **options)
            frozen_after_accept.enter_context(frozen(server))
            return answer

        monkeypatch.setattr(bench.gateway.ledger, "accept", then_freeze)
        id = bench.send("kept")
    assert bench.state(id) == "queued"
    assert id in bench.due()


def test_a_restart(redis_server: Make, on: Callable[..., Bench]) -> None:
    server = redis_server("--appendfsync", "always")
    bench = on(server)
    before = bench.send("before")
    server.stop(kill=True)
    message = OutgoingMessage("1555", "hi")
    with pytest.raises(exc.QueueUnavailable):
        bench.gateway.send(message)
    server.start()
    bench.gateway.send(message)
    bench.send("after")
    assert bench.state(before) == "queued"
    assert bench.deliver(before).state == "sent"
    assert bench.ledger.counts()["queued"] == 2


def test_a_settle_is_repeated_until_redis_is_back(
    redis_server: Make, on: Callable[..., Bench]
) -> None:
    server = redis_server("--appendfsync", "always")
    bench = on(server)
    provider = bench.gateway.get_provider("a")

    def meanwhile(message: object) -> None:
        server.stop(kill=True)
        threading.Timer(0.5, server.start).start()

    provider.then(meanwhile)  # type: ignore[attr-defined]
    id = bench.send()
    assert bench.deliver(id).state == "sent"
    assert bench.state(id) == "sent"
    assert provider.calls == [f"{id}.1"]  # type: ignore[attr-defined]


def test_an_outcome_that_redis_always_refuses_is_damage_and_delays_no_others(
    redis_server: Make, on: Callable[..., Bench]
) -> None:
    bench = on(redis_server())
    provider = bench.gateway.get_provider("a")
    id = bench.send()
    # Somebody else's data under a key of the ledger.
    key = bench.key("msg", id)

    def overwrite(message: OutgoingMessage) -> None:
        bench.redis.delete(key)
        bench.redis.set(key, "mine")

    provider.then(overwrite)  # type: ignore[attr-defined]
    assert bench.deliver(id).state == "damaged"
    assert [damaged.id for damaged in bench.ledger.damaged()] == [id]
    assert id not in bench.due()
    assert bench.deliver(bench.send()).state == "sent"


def test_a_claim_that_is_not_confirmed_sends_nothing(
    redis_server: Make, on: Callable[..., Bench]
) -> None:
    server = redis_server()
    bench = on(server)
    id = bench.send()
    event = "e"
    server.stop()
    with pytest.raises(exc.QueueUnavailable):
        bench.deliver(id)
    with pytest.raises(exc.QueueUnavailable):
        bench.hooks.run(event)
    with pytest.raises(exc.QueueUnavailable):
        bench.upkeep.turn()
    assert bench.gateway.get_provider("a").calls == []  # type: ignore[attr-defined]


def test_scripts_that_redis_forgot(bench: Bench) -> None:
    bench.add("a")
    bench.gateway.onReceive.connect(lambda message: None, name="x")
    for _ in range(2):
        id = bench.send()
        bench.redis.script_flush()
        bench.gateway.send_many([OutgoingMessage("1555", "hi")])
        bench.redis.script_flush()
        assert bench.deliver(id).state == "sent"
        bench.redis.script_flush()
        bench.upkeep.turn()
        bench.redis.script_flush()
        bench.gateway.receive_message(IncomingMessage("1555", "hi"))
        bench.redis.script_flush()
        bench.run_hooks()
    assert bench.ledger.counts()["sent"] == 2


def _used(bench: Bench) -> int:
    info: Any = bench.redis.info("memory")
    return int(info["used_memory"])


def test_a_nearly_full_redis_takes_nothing_new_and_ends_what_it_has(
    redis_server: Make, on: Callable[..., Bench]
) -> None:
    server = redis_server()
    bench = on(server)
    ids = [bench.send(str(n), status_report=True) for n in range(20)]
    bench.redis.config_set("maxmemory", int(_used(bench) * 1.08))
    refused = None
    for n in range(500):  # only some of the sends look
        try:
            ids.append(bench.send(str(n), status_report=True))
        except exc.QueueUnavailable as error:
            refused = error
            break
    assert refused is not None
    assert "maxmemory" in str(refused)
    for id in ids:
        assert bench.deliver(id).state == "sent"
    bench.redis.config_set("maxmemory", 0)
    assert bench.send("room again")


def test_a_full_redis_still_settles_reports_and_hooks(
    redis_server: Make, on: Callable[..., Bench], settings: Settings
) -> None:
    server = redis_server()
    bench = on(server)
    bench.gateway.onSend.connect(lambda message: None, name="sent")
    heard = bench.listen()
    id, other = bench.send(status_report=True), bench.send("other")
    bench.gateway.get_provider("a").then(None, exc.RequestError())  # type: ignore[attr-defined]
    bench.redis.config_set("maxmemory", 1)
    with pytest.raises(exc.QueueUnavailable, match="maxmemory"):
        bench.send("no")
    with pytest.raises(exc.QueueUnavailable, match="maxmemory"):
        bench.gateway.send_many([OutgoingMessage("1555", "no")])
    with pytest.raises(exc.QueueUnavailable, match="maxmemory"):
        bench.gateway.receive_message(IncomingMessage("1555", "hi"))
    assert bench.deliver(id).state == "sent"
    assert bench.deliver(other).state == "failed"
    fresh = on(server)  # a receiver that has just started
    fresh.report("delivered", reference=f"{id}.1")
    assert bench.state(id) == "delivered"
    bench.run_hooks()
    assert {status.id for status in heard} == {id, other}
    bench.upkeep.turn()
    assert bench.gateway.requeue(other) is True


def test_what_would_break_a_promise_is_said(redis_server: Make, on: Callable[..., Bench]) -> None:
    good = on(redis_server())
    assert list(good.ledger.warnings()) == []
    bad = on(redis_server("--appendonly", "no", "--maxmemory-policy", "allkeys-lru"))
    aof, policy = bad.ledger.warnings()
    assert "appendonly yes" in aof
    assert "allkeys-lru" in policy


def test_after_an_error_the_same_object_is_the_same_message(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = bench.gateway.ledger.accept

    def lossy(*args: Any, **options: Any) -> Any:
        accept(*args, **options)
        monkeypatch.undo()
        raise exc.QueueUnavailable("the answer was lost")

    monkeypatch.setattr(bench.gateway.ledger, "accept", lossy)
    message = OutgoingMessage("1555", "hi")
    with pytest.raises(exc.QueueUnavailable):
        bench.gateway.send(message)
    assert message.id is None
    first = message.unconfirmed_id
    bench.gateway.send(message)
    assert (message.id, message.duplicate, message.unconfirmed_id) == (first, False, None)
    assert bench.ledger.counts()["queued"] == 1
    assert bench.gateway.send(message).id != first


def test_a_gateway_that_was_closed_opens_again(bench: Bench) -> None:
    bench.send()
    bench.gateway.close()
    bench.send()
    assert bench.ledger.counts()["queued"] == 2


def test_a_gateway_survives_a_fork(bench: Bench) -> None:
    bench.send("before")
    pid = os.fork()
    if pid == 0:
        try:
            bench.send("child")
        except BaseException:
            os._exit(1)
        os._exit(0)
    bench.send("parent")
    assert os.waitpid(pid, 0)[1] == 0
    assert bench.ledger.counts()["queued"] == 3
