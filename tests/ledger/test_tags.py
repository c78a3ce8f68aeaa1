"""Tags: what they find, that they leave with their messages, and that their memory is counted."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from smsqueue import OutgoingMessage, exc
from smsqueue.message.states import State
from tests.ledger.bench import Bench


def _tag_keys(bench: Bench) -> set[str]:
    every = bench.keys()
    return {key for key in every if key.startswith("tag:")}


def _found(bench: Bench, tag: str, *states: State) -> list[str]:
    return [record.id for record in bench.ledger.select(states or list(State), tag=tag)]


def test_messages_are_found_by_tag_and_state_the_newest_first(bench: Bench) -> None:
    provider = bench.add("a", exc.RequestError())
    failed, sent, waiting = (bench.send(tag=["black-friday", f"wave:{n}"]) for n in range(3))
    bench.send()
    bench.send(tag="black")  # not a part of another tag
    bench.deliver(failed)
    provider.then(lambda message: tags.append(message.provider_options.tag))
    tags: list[tuple[str, ...]] = []
    bench.deliver(sent)
    assert tags == [("black-friday", "wave:1")]
    assert bench.record(sent).tags == ("black-friday", "wave:1")
    assert _found(bench, "black-friday") == [waiting, sent, failed]
    assert _found(bench, "black-friday", State.FAILED, State.QUEUED) == [waiting, failed]
    assert _found(bench, "wave:1") == [sent]
    bench.gateway.requeue(failed)
    assert _found(bench, "black-friday", State.QUEUED) == [waiting, failed]


def test_a_search_by_tag_goes_through_many_messages_and_past_damaged_ones(bench: Bench) -> None:
    batch = [OutgoingMessage("15550001", "hi").options(tag="many") for _ in range(450)]
    ids = [message.id or "" for message in bench.gateway.send_many(batch)]
    bench.redis.delete(bench.key("msg", ids[7]))
    bench.redis.set(bench.key("msg", ids[7]), "not a record")
    bench.redis.hset(bench.key("msg", ids[9]), "data", "not JSON")
    bench.gateway.cancel(ids[0])
    damaged: list[Any] = []
    records = bench.ledger.select(list(State), tag="many", on_damaged=damaged.append)
    assert sorted(record.id for record in records) == sorted({*ids} - {ids[7], ids[9]})
    assert {entry.id for entry in damaged} == {ids[7], ids[9]}
    assert _found(bench, "many", State.CANCELLED) == [ids[0]]


@pytest.mark.parametrize("end", ["delivered", "failed", "cancelled", "removed"])
def test_no_tag_outlives_its_messages(make_bench: Callable[..., Bench], end: str) -> None:
    bench = make_bench(retention=1.0)
    bench.add("a", *[exc.RequestError()] * (end == "failed"))
    id = bench.send(tag=["black-friday", "wave-1"], status_report=True)
    if end == "cancelled":
        bench.gateway.cancel(id)
    elif end == "removed":
        bench.redis.hset(bench.key("msg", id), "attempt", "many")
        assert bench.gateway.remove(id)
    else:
        bench.deliver(id)
    if end == "delivered":
        bench.report("delivered", msgid=bench.record(id).msgid)
    if end != "removed":
        assert _tag_keys(bench) == {"tag:black-friday", "tag:wave-1"}
        bench.redis.zadd(bench.key("state", end), {id: 1}, xx=True)
        bench.ledger.sweep(100, 3)
    assert bench.ledger.read(id) is None
    assert _tag_keys(bench) == set()


def test_a_repaired_message_is_under_its_tags_again(bench: Bench) -> None:
    id = bench.send(tag="wave-1")
    bench.redis.set(bench.key("tag", "wave-1"), "not an index")
    assert _found(bench, "wave-1") == []  # set aside
    other = bench.send(tag="wave-1")
    assert _found(bench, "wave-1") == [other]
    bench.redis.hset(bench.key("msg", id), "attempt", "many")
    bench.gateway.repair(id)
    assert _found(bench, "wave-1") == [other, id]


def test_a_repeated_send_keeps_the_tags_of_the_first(bench: Bench) -> None:
    first = bench.send(idempotency_key="cart-1", tag="wave-1")
    assert bench.send(idempotency_key="cart-1", tag="wave-2") == first
    assert bench.record(first).tags == ("wave-1",)
    assert _tag_keys(bench) == {"tag:wave-1"}


def test_the_memory_of_tags_is_counted_before_messages_are_accepted(
    redis_server: Callable[..., Any], make_bench: Callable[..., Bench]
) -> None:
    """An application that gives each message tags of its own: they take more than the message."""
    bench = make_bench(redis_url=redis_server("--hash-max-ziplist-value", "4096").url)
    numbers = itertools.count()

    def send(count: int) -> list[OutgoingMessage]:
        batch = [
            OutgoingMessage(f"1555{next(numbers):07}", "hi").options(
                tag=[f"{next(numbers)}-{n}".ljust(64, "x") for n in range(20)]
            )
            for _ in range(count)
        ]
        return bench.gateway.send_many(batch)

    send(64)
    bench.redis.config_set("maxmemory", 1_000_000_000)
    room = bench.ledger.room()
    bench.redis.config_set("maxmemory", int((room.used + room.reserved + 4_000_000) / 0.98))
    with pytest.raises(exc.QueueUnavailable, match="Raise maxmemory") as refused:
        send(1000)
    assert len(refused.value.accepted) > 100
    room = bench.ledger.room()
    assert room.left > 0, room


# --- Progress --------------------------------------------------------------------------------


def test_progress_is_right_whatever_became_of_the_messages(bench: Bench) -> None:
    bench.add("a", None, exc.RequestError(), exc.RequestError(), None)
    ids = [bench.send(tag="sale", status_report=True) for _ in range(6)]
    bench.send(tag="sale", send_at=datetime.now(UTC) + timedelta(hours=1))
    bench.send(tag="other")
    for id in ids[:4]:
        bench.deliver(id)
    bench.report("delivered", msgid=bench.record(ids[0]).msgid)
    bench.gateway.requeue(ids[1])
    bench.gateway.cancel(ids[4])
    bench.redis.hset(bench.key("msg", ids[5]), "state", "no state")
    progress = bench.gateway.progress("sale")
    assert progress.states == {"delivered": 1, "queued": 1, "failed": 1, "sent": 1} | {
        "cancelled": 1, "scheduled": 1,
    }  # fmt: skip
    assert (progress.total, progress.waiting, progress.damaged) == (6, 1, 1)
    # Two were sent and one has failed since the first of them: in a second, or a little more.
    assert 0 < progress.per_second <= 3
    assert progress.seconds_left == 1 / progress.per_second
    accepted = [bench.record(id).accepted_at for id in ids[:1]]
    assert progress.first_accepted_at == accepted[0]
    # Deleted by a version that knows no tags: it stays in the index.
    bench.redis.delete(bench.key("msg", ids[3]))
    assert bench.gateway.progress("sale").states.get(State.SENT) is None


def test_reports_are_not_counted_as_sending(bench: Bench) -> None:
    """What was sent an hour ago and is delivered now does not hide that nothing is sent."""
    bench.add("a")
    ids = [bench.send(tag="sale", status_report=True) for _ in range(3)]
    for id in ids[:2]:
        bench.deliver(id)
    assert bench.gateway.progress("sale").per_second > 0
    for id in ids[:2]:
        fields: dict[str, Any] = bench.redis.hgetall(bench.key("msg", id))
        lines = json.loads(fields["timeline"])
        for line in lines:
            line["at"] -= 3_600_000
        sent_at = float(fields["sent_at"]) - 3_600_000
        bench.redis.hset(
            bench.key("msg", id), mapping={"timeline": json.dumps(lines), "sent_at": sent_at}
        )
    bench.report("delivered", msgid=bench.record(ids[0]).msgid)
    bench.report("accepted", msgid=bench.record(ids[1]).msgid)
    progress = bench.gateway.progress("sale")
    assert progress.states == {"delivered": 1, "accepted": 1, "queued": 1}
    assert (progress.per_second, progress.seconds_left) == (0.0, None)


def test_the_progress_of_many_is_read_by_several_scripts(bench: Bench) -> None:
    batch = [OutgoingMessage("15550001", "hi").options(tag="many") for _ in range(2500)]
    bench.gateway.send_many(batch)
    sent = [message.id or "" for message in batch[:20]]
    bench.add("a")
    for id in sent:
        bench.deliver(id)
    progress = bench.gateway.progress("many")
    assert progress.states == {"queued": 2480, "sent": 20}
    assert bench.gateway.progress("none").total == 0
    with pytest.raises(ValueError, match="a tag has ' ' at index 2"):
        bench.gateway.progress("no tag")


def test_the_tags_with_the_most_waiting_messages(bench: Bench) -> None:
    assert bench.ledger.waiting_tags() == ({}, True)
    bench.send(tag=["otp", "vip"])
    bench.send(tag="vip")
    assert bench.ledger.waiting_tags() == ({"vip": 2, "otp": 1}, True)
    batch = [
        OutgoingMessage("15550001", "hi").options(tag=["sale", f"customer:{n}"]) for n in range(900)
    ]
    bench.gateway.send_many(batch)
    tags, exact = bench.ledger.waiting_tags()
    # Of the others too few are among those that were read.
    assert not exact
    assert [*tags] == ["sale"]
    assert abs(tags["sale"] - 900) < 10
