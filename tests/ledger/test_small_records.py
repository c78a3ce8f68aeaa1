"""Records are small, and those that older versions wrote are read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from smsqueue import OutgoingMessage
from smsqueue.ids import new_id
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
    brief.redis.hdel(brief.key("msg", id), "refs")
    brief.redis.sadd(brief.key("refs", id), *refs)
    for n in range(3):
        brief.report("delivered", msgid=f"part{n}")
    assert brief.state(id) == "delivered"
    assert forget(brief, id) == set()


def test_damaged_references_stop_nobody(brief: Bench) -> None:
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


def test_a_child_process_makes_other_ids_than_its_parent() -> None:
    new_id()
    receiving, sending = os.pipe()
    if os.fork() == 0:
        os.write(sending, new_id()[9:].encode())
        os._exit(0)
    os.wait()
    assert os.read(receiving, 100).decode() != new_id()[9:]
