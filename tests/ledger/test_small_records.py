"""Records are small, and those that older versions wrote are read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from smsqueue import OutgoingMessage
from smsqueue.message.ids import new_id
from tests.ledger.bench import Bench


@pytest.fixture
def brief(make_bench: Callable[..., Bench]) -> Bench:
    """A bench that forgets final messages at once."""
    bench = make_bench(retention=0.001)
    bench.add("a")
    return bench


def keys(bench: Bench, *kinds: str) -> set[str]:
    """The ledger's keys of some kinds."""
    found = bench.keys()
    return {key for key in found if key.startswith(tuple(f"{kind}:" for kind in kinds))}


def forget(bench: Bench, id: str) -> set[str]:
    """The message's time is over; what is left of it and its references."""
    bench.redis.zadd(bench.key("ends"), {id: 1})
    bench.upkeep.turn()
    return keys(bench, "msg", "ref", "refs")


def with_ids(count: int) -> Callable[[OutgoingMessage], object]:
    def take(message: OutgoingMessage) -> None:
        message.msgid = [f"part{n}" for n in range(count)]

    return take


def test_a_sent_message_has_no_key_for_its_references(brief: Bench) -> None:
    id = brief.send()
    brief.deliver(id)
    assert len(keys(brief, "ref")) == 1
    assert keys(brief, "refs") == set()
    assert forget(brief, id) == set()


def test_references_of_both_sendings_are_forgotten(brief: Bench) -> None:
    other = brief.add("b")
    id = brief.send_by("a", "b")
    brief.deliver(id)
    assert brief.field(id, "refs") is None
    brief.report("undelivered", reference=f"{id}.1")
    assert brief.gateway.requeue(id)
    brief.gateway.router = lambda message, *values: "b"
    brief.deliver(id)
    assert other.calls
    assert len(keys(brief, "ref")) == 2
    assert brief.field(id, "refs") is not None
    assert forget(brief, id) == set()


def test_all_of_many_references_are_forgotten(brief: Bench) -> None:
    brief.gateway.get_provider("a").then(with_ids(9))  # type: ignore[attr-defined]
    id = brief.send()
    brief.deliver(id)
    assert len(keys(brief, "ref")) == 9
    assert forget(brief, id) == set()


def test_references_that_an_older_version_wrote_count_and_are_forgotten(brief: Bench) -> None:
    brief.gateway.get_provider("a").then(with_ids(3))  # type: ignore[attr-defined]
    id = brief.send(status_report=True)
    brief.deliver(id)
    refs = json.loads(brief.field(id, "refs") or "")
    assert len(refs) == 3
    brief.redis.hdel(brief.key("msg", id), "refs")
    brief.redis.sadd(brief.key("refs", id), *refs)
    for n in range(3):
        brief.report("delivered", msgid=f"part{n}")
    assert brief.state(id) == "delivered"
    assert forget(brief, id) == set()


def test_damaged_references_do_not_stop_others(brief: Bench) -> None:
    id = brief.send(status_report=True)
    brief.deliver(id)
    for text in ("zzz", "[1]", "7"):
        brief.redis.hset(brief.key("msg", id), "refs", text)
        brief.report("accepted", reference=f"{id}.1", msgid=f"id of {text}")
    assert brief.state(id) == "accepted"
    assert brief.upkeep.failing == {}
    assert not [key for key in forget(brief, id) if key.startswith("msg:")]


def test_a_timeline_of_an_older_version_grows_by_lines(bench: Bench) -> None:
    bench.add("a")
    id = bench.send(status_report=True)
    # The order of a line's entries is not the same in each version of Redis.
    lines = json.loads(bench.field(id, "timeline") or "")
    older = json.dumps([dict(sorted(line.items(), reverse=True)) for line in lines])
    bench.redis.hset(bench.key("msg", id), "timeline", older)
    bench.deliver(id)
    bench.report("accepted", reference=f"{id}.1")
    bench.report("accepted", reference=f"{id}.1", code="again")
    bench.report("accepted", reference=f"{id}.1", code="again", event_id="another")
    timeline = bench.record(id).timeline
    assert [line["state"] for line in timeline] == ["queued", "sending", "sent"] + ["accepted"] * 2
    assert timeline[-1]["times"] == 2


def delivered(bench: Bench) -> str:
    """A message that was delivered, and is told of by two reports."""
    id = bench.send(status_report=True)
    bench.deliver(id)
    bench.report("accepted", reference=f"{id}.1")
    bench.report("delivered", reference=f"{id}.1")
    return id


def test_a_final_message_keeps_no_unused_fields(bench: Bench) -> None:
    bench.add("a")
    id = delivered(bench)
    fields: list[str] = bench.redis.hkeys(bench.key("msg", id))  # type: ignore[assignment]
    assert {"worker", "token", "called", "calling", "sent_at", "out", "published_at"}.isdisjoint(
        fields
    )
    assert keys(bench, "seen", "ends") == set()


def test_a_repeated_report_is_known_by_its_message_and_by_what_older_versions_noted(
    bench: Bench,
) -> None:
    bench.add("a")
    heard = bench.listen()
    id = delivered(bench)
    bench.report("delivered", reference=f"{id}.1")
    bench.run_hooks()
    assert [str(status.state) for status in heard] == ["accepted", "delivered"]
    # An older version noted each report in a key.
    marks = (bench.field(id, "seen") or "").split()
    assert len(marks) == 2
    bench.redis.hdel(bench.key("msg", id), "seen")
    with_keys = bench.keys()
    bench.report("delivered", msgid="not known")
    (noted,) = {key for key in bench.keys() - with_keys if key.startswith("seen:")}
    bench.redis.delete(*[bench.key("event", event) for event in bench.events()])
    bench.report("delivered", msgid="not known")
    assert bench.events() == []
    assert bench.redis.exists(bench.key(*noted.split(":", 1)))


def test_of_a_message_with_many_reports_the_rest_is_noted_beside_it(bench: Bench) -> None:
    bench.add("a")
    id = delivered(bench)
    for n in range(20):
        bench.report("accepted", reference=f"{id}.1", code=n)
    assert len((bench.field(id, "seen") or "").split()) == 16
    assert len(keys(bench, "seen")) == 6
    before = bench.redis.hget(bench.key("counts"), "reports|a|accepted|matched")
    for n in range(20):
        bench.report("accepted", reference=f"{id}.1", code=n)
    assert bench.redis.hget(bench.key("counts"), "reports|a|accepted|matched") == before


def test_what_is_over_is_forgotten_by_the_time_of_its_state(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(retention=3600.0)
    bench.add("a")
    old, new, again, older_version = (delivered(bench) for _ in range(4))
    bench.redis.zadd(bench.key("state", "delivered"), {old: 1, older_version: 1})
    bench.redis.zadd(bench.key("ends"), {older_version: 1})
    bench.redis.zadd(bench.key("state", "failed"), {again: 1})  # where it is not any more
    bench.upkeep.turn()
    assert keys(bench, "msg") == {f"msg:{new}", f"msg:{again}"}
    assert bench.redis.zscore(bench.key("state", "failed"), again) is None
    assert bench.redis.exists(bench.key("ends")) == 0
    assert len(keys(bench, "ref")) == 2


def test_what_an_older_version_ended_leaves_its_place_when_it_is_sent_again(bench: Bench) -> None:
    bench.add("a")
    id = bench.send()
    bench.gateway.cancel(id)
    bench.redis.hset(bench.key("msg", id), "state", "failed")
    bench.redis.zrem(bench.key("state", "cancelled"), id)
    bench.redis.zadd(bench.key("state", "failed"), {id: bench.now()})
    bench.redis.zadd(bench.key("ends"), {id: 1})
    bench.gateway.requeue(id)
    bench.upkeep.turn()
    assert bench.state(id) == "queued"
    assert bench.redis.zscore(bench.key("ends"), id) is None


def test_a_child_process_makes_other_ids_than_its_parent() -> None:
    new_id()
    receiving, sending = os.pipe()
    if os.fork() == 0:
        os.write(sending, new_id()[9:].encode())
        os._exit(0)
    os.wait()
    assert os.read(receiving, 100).decode() != new_id()[9:]
