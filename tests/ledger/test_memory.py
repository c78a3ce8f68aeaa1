"""Which messages Redis has memory for: accepted ones keep what they need until they are final."""

from __future__ import annotations

import collections
import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from smsqueue import IncomingMessage, OutgoingMessage, exc
from smsqueue.ledger import Room
from smsqueue.message.messages import Part
from tests.ledger.bench import Bench

Make = Callable[..., Any]

#: How Redis keeps hashes with fields of more than 64 bytes.
ENCODINGS = [("hashtable", "64"), ("packed", "4096")]


@pytest.fixture
def on(make_bench: Callable[..., Bench]) -> Callable[..., Bench]:
    """A bench on a Redis process of its own."""

    def make(server: Any, **changed: Any) -> Bench:
        bench = make_bench(**({"redis_url": server.url} | changed))
        bench.add("a")
        bench.gateway.onSend.connect(lambda message: None, name="shop.sms:sent")
        bench.gateway.onStatus.connect(lambda status: None, name="shop.sms:reported")
        return bench

    return make


def _batch(count: int, *, reports: bool, first: int = 0) -> list[OutgoingMessage]:
    numbers = range(first, first + count)
    return [
        OutgoingMessage(f"1555{n:07}", "x" * 100).options(status_report=reports) for n in numbers
    ]


def _taken(room: Room) -> int:
    return room.used + room.reserved


def _limit(bench: Bench, left: int) -> None:
    """Have Redis a maxmemory at which so many bytes are left for new messages."""
    redis = bench.redis
    redis.config_set("maxmemory", 1_000_000_000)
    room = bench.ledger.room()
    redis.config_set("maxmemory", int((_taken(room) + left) / 0.98))


def _refusal(attempt: Callable[[int], object]) -> str:
    """Repeat something until it is refused; what the error says."""
    for n in range(1000):
        try:
            attempt(n)
        except exc.QueueUnavailable as error:
            return str(error)
    raise AssertionError("nothing was refused")


@pytest.mark.parametrize(("encoding", "value"), ENCODINGS)
@pytest.mark.parametrize("reports", [True, False], ids=["reports", "no reports"])
def test_what_becomes_of_a_message_fits_into_what_was_reserved_for_it(
    redis_server: Make, on: Callable[..., Bench], encoding: str, value: str, reports: bool
) -> None:
    """Two failed attempts, two signed reports, all events waiting at once, all handlers failing."""
    bench = on(redis_server("--maxmemory", "200mb", "--hash-max-ziplist-value", value))
    provider, many = bench.gateway.get_provider("a"), 200
    fine: list[bool] = []

    def handler(event: object) -> None:
        if not fine:
            raise OSError("the database does not answer: could not connect to server")

    bench.gateway.onSend.connect(handler, name="shop.sms:on_send")
    bench.gateway.onStatus.connect(handler, name="shop.sms:on_status")
    for warm in bench.gateway.send_many(_batch(5, reports=reports, first=9_000_000)):
        bench.deliver(warm.id or "")
    bench.run_hooks()
    bench.drain()
    bench.drain("hook")
    ids = [m.id or "" for m in bench.gateway.send_many(_batch(many, reports=reports))]
    bench.drain()
    packed = bench.redis.object("encoding", bench.key("msg", ids[0])) != "hashtable"
    assert packed == (encoding == "packed")
    before = bench.ledger.room().reserved
    bench.gateway.cancel(ids.pop())  # what one message reserves
    bench.redis.delete(bench.key("due", "hook"))
    reserve = before - bench.ledger.room().reserved
    first, used = bench.ledger.room(), []
    for answer in (exc.ServerError("busy", code="E1"), exc.ServerError("busy", code="E2"), None):
        for id in ids:
            provider.then(answer)  # type: ignore[attr-defined]
            bench.redis.delete(bench.key("pause", "a"))
            bench.ripe(id)
            bench.deliver(id)
        bench.drain("hook")
        used.append(bench.ledger.room().used)
    for state in ("accepted", "delivered") if reports else ():
        for id in ids:
            signature = f"{id} {state}"
            assert bench.gateway.note_signature("a", signature, "request", math.inf) == "new"
            bench.report(state, msgid=bench.record(id).msgid, reference=f"{id}.3")
        bench.drain("hook")
        used.append(bench.ledger.room().used)
    bench.run_hooks()
    bench.drain("hook")
    used.append(bench.ledger.room().used)
    fine.append(True)
    for event in bench.events():
        bench.ripe_event(event)
    bench.run_hooks()
    assert len(bench.events()) <= 1  # of the message that was cancelled
    last = bench.ledger.room()
    assert bench.ledger.counts()["delivered" if reports else "sent"] == len(ids) + 5 * (not reports)
    growth = [round((each - first.used) / many) for each in (*used, last.used)]
    assert max(used) < first.used + first.reserved, growth
    # Something is left for longer names and the like.
    assert max(growth) < 0.97 * reserve, (growth, reserve)


def test_in_one_pipeline_no_more_are_accepted_than_there_is_memory_for(
    redis_server: Make, on: Callable[..., Bench]
) -> None:
    """500 messages are recorded within milliseconds: some of them ask Redis, whatever its clock."""
    bench = on(redis_server("--hash-max-ziplist-value", "64"))
    bench.gateway.send_many(_batch(20, reports=True, first=9_000_000))
    _limit(bench, 100 * 9000)
    with pytest.raises(exc.QueueUnavailable, match="Raise maxmemory") as refused:
        bench.gateway.send_many(_batch(500, reports=True))
    assert 90 <= len(refused.value.accepted) <= 130  # what each really needs, and 16 more
    # The buffers of the pipeline counted while it ran: what fits now is taken, and then no more.
    singles = itertools.chain.from_iterable(
        _batch(1, reports=True, first=8_000_000 + n) for n in range(50)
    )
    with pytest.raises(exc.QueueUnavailable, match="Raise maxmemory"):
        collections.deque(map(bench.gateway.send, singles), maxlen=0)
    assert bench.ledger.room().refuses
    # It goes on as soon as there is memory again, without a time to wait.
    bench.redis.config_set("maxmemory", 0)
    assert bench.send("room again")
    assert not bench.ledger.room().refuses


def test_messages_that_need_less_leave_room_for_more(
    redis_server: Make, on: Callable[..., Bench]
) -> None:
    counts = []
    for value, reports in (("64", True), ("4096", True), ("64", False), ("4096", False)):
        bench = on(redis_server("--hash-max-ziplist-value", value))
        bench.gateway.send_many(_batch(20, reports=reports, first=9_000_000))
        _limit(bench, 700_000)
        with pytest.raises(exc.QueueUnavailable) as refused:
            bench.gateway.send_many(_batch(500, reports=reports))
        counts.append(len(refused.value.accepted))
    assert counts == sorted(counts)
    assert counts[-1] > 1.8 * counts[0]


def test_a_large_message_always_asks(redis_server: Make, on: Callable[..., Bench]) -> None:
    bench = on(redis_server())
    bench.send("first")  # the next one that asks by itself is the seventeenth
    _limit(bench, 30_000)
    large = OutgoingMessage("15550001", "x").options(context={"cart": "y" * 50_000})
    with pytest.raises(exc.QueueUnavailable, match="maxmemory"):
        bench.gateway.send(large)
    assert bench.send("small")


def _incoming(n: int, provider: str = "a", body: str = "hi" * 500) -> IncomingMessage:
    message = IncomingMessage("15550001", body)
    message.msgid, message.provider = str(n), provider
    return message


def test_webhooks_are_refused_long_before_send_and_reports_of_accepted_messages_never(
    redis_server: Make, on: Callable[..., Bench]
) -> None:
    bench = on(redis_server())
    ids = [bench.send(str(n), status_report=True) for n in range(30)]
    bench.redis.config_set("maxmemory", 12_000_000)
    heard = bench.listen()
    received, reported = bench.gateway.receive_message, bench.report

    def incoming(n: int) -> IncomingMessage:
        return _incoming(n, f"p{n % 12}", "hi" * 4000)

    # As many as come, of many providers and by either webhook, until they are refused.
    assert "webhooks are refused" in _refusal(lambda n: received(incoming(n)))
    assert "webhooks are refused" in _refusal(
        lambda n: reported("delivered", msgid=f"no-{n}", provider=f"p{n % 12}")
    )
    recorded, room = len(bench.events("received")), bench.ledger.room()
    assert room.refuses_webhooks
    # send() has a tenth of the memory left, and more.
    assert not room.refuses
    assert room.left > 0.1 * room.max
    assert bench.gateway.send_many(_batch(50, reports=True))
    # One that was recorded is a repetition: it is not refused.
    received(incoming(0))
    for id in ids:
        assert bench.deliver(id).state == "sent"
        bench.report("accepted", reference=f"{id}.1")
        bench.report("delivered", msgid=bench.record(id).msgid)
    # What says nothing new of a message is refused as well.
    with pytest.raises(exc.QueueUnavailable, match="webhooks are refused"):
        bench.report("accepted", reference=f"{ids[0]}.1", code="other")
    assert {bench.state(id) for id in ids} == {"delivered"}
    bench.run_hooks()
    assert {status.id for status in heard} == set(ids)
    assert bench.ledger.room().used < bench.ledger.room().max
    bench.redis.config_set("maxmemory", 0)
    # What was refused comes in when its provider repeats it.
    received(incoming(recorded))
    assert len(bench.events("received")) == recorded + 1


def test_a_part_of_a_long_message_is_refused_too(
    redis_server: Make, on: Callable[..., Bench]
) -> None:
    bench = on(redis_server())
    bench.send("first")
    _limit(bench, -500_000)
    message = IncomingMessage("15550001", "hi")
    message.provider, message.part = "a", Part("7", 1, 2, 60.0)
    with pytest.raises(exc.QueueUnavailable, match="webhooks are refused"):
        bench.gateway.receive_message(message)
    assert len(bench.events()) <= 1  # of the message that was cancelled


def test_a_redis_that_tells_nothing_of_its_memory(
    redis_server: Make, on: Callable[..., Bench]
) -> None:
    """INFO may be forbidden on a managed server: nothing is refused but by Redis itself."""
    bench = on(redis_server())
    bench.redis.acl_setuser(
        "app",
        enabled=True,
        nopass=True,
        keys="*",
        channels="*",
        commands=["+@all", "-info", "-config"],
    )
    url = bench.settings.redis_url.replace("//", "//app:any@")
    dumb = on(_At(url))
    for n in range(40):
        assert dumb.send(str(n))
    dumb.gateway.receive_message(IncomingMessage("15550001", "hi"))
    room = dumb.ledger.room()
    assert room._replace(webhooks=()) == Room(0, 0, 0, 0, quota=dumb.settings.webhook_quota)
    assert [found.waiting for found in room.webhooks] == [1]
    assert not dumb.ledger.room().refuses
    assert dumb.ledger.packs_records() is True


def test_counters_stay_as_they_are_while_redis_has_no_memory(
    redis_server: Make, on: Callable[..., Bench]
) -> None:
    bench = on(redis_server())
    message = IncomingMessage("15550001", "hi", "m1")
    message.provider = "a"
    bench.gateway.receive_message(message)
    name = ("incoming", "a", "repeated")
    bench.redis.hset(bench.key("counts"), "|".join(name), 1000)
    used: Any = bench.redis.info("memory")
    bench.redis.config_set("maxmemory", int(used["used_memory"]) - 100_000)
    bench.gateway.receive_message(message)  # a repetition: nothing is to be recorded
    assert bench.ledger.counters()[name] == 1000
    bench.redis.config_set("maxmemory", 0)
    bench.gateway.receive_message(message)
    assert bench.ledger.counters()[name] == 1001


class _At:
    """A server by its address."""

    def __init__(self, url: str) -> None:
        self.url = url


def test_a_damaged_record_among_those_that_wait(
    redis_server: Make, on: Callable[..., Bench]
) -> None:
    bench = on(redis_server("--maxmemory", "500mb"))
    for n in range(4):
        id = bench.send(str(n))
        bench.redis.delete(bench.key("msg", id))
        if n:
            bench.redis.set(bench.key("msg", id), json.dumps("not a hash"))
    bench.redis.hset(bench.key("counts"), "accepted", 16)
    assert bench.send("another")
    assert bench.ledger.room().reserved > 0


def test_whether_records_are_packed_is_known(redis_server: Make, on: Callable[..., Bench]) -> None:
    assert on(redis_server()).ledger.packs_records() is True
    assert on(redis_server("--hash-max-ziplist-value", "64")).ledger.packs_records() is False
