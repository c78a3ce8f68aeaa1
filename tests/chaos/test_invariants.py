"""The checks themselves: each sees what it is there for, and tells where."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from smsqueue import OutgoingMessage
from smsqueue.ledger import Claimed
from tests.chaos.carrier import Carrier, incoming
from tests.chaos.invariants import check
from tests.chaos.load import send
from tests.chaos.rig import Rig


def _ask(rig: Rig, id: str, attempt: int, **line: object) -> None:
    """Have the provider's file tell of one more request."""
    fields = {"id": id, "attempt": attempt, "account": "a", "word": "accept", "took": True}
    with rig.stub_file.open("a") as file:
        file.write(json.dumps(fields | {"refused": False, "at": 0} | line) + "\n")


def _line(rig: Rig, id: str, **line: object) -> None:
    """Add a line to a message's timeline."""
    record = rig.key("msg", id)
    lines = json.loads(rig.direct.hget(record, "timeline") or "")
    rig.direct.hset(record, "timeline", json.dumps([*lines, {"at": 0, **line}]))


def test_what_is_broken_is_seen(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(seed=4711)
    carrier = Carrier(rig)
    lost, twice, again, unsent, story, place, due, moved, parked, stray, queued, unheard = ids = [
        str(send(rig, OutgoingMessage(f"15550{n}", "accept"))) for n in range(12)
    ]
    carrier.tell(*incoming("heard"))
    carrier.tell("a/status", {"id": f"a-{moved}.1", "state": "delivered"})
    rig.settle()
    check(rig)
    for worker in rig.workers:  # they would mend some of it
        worker.stop()

    rig.direct.delete(rig.key("msg", lost))
    _ask(rig, twice, 1)
    _ask(rig, again, 2)
    _ask(rig, "never-sent", 1)
    lines = rig.stub_file.read_text().splitlines(keepends=True)
    rig.stub_file.write_text("".join(line for line in lines if unsent not in line))
    calls = rig.heard_file.read_text().splitlines(keepends=True)
    rig.heard_file.write_text("".join(line for line in calls if unheard not in line))
    _line(rig, story, state="cancelled", attempt=1)
    rig.direct.zadd(rig.key("state", "failed"), {place: 1})
    rig.direct.zadd(rig.key("due", "send"), {due: 1})
    _line(rig, moved, state="delivered", attempt=1, why="report")
    rig.direct.hset(rig.key("msg", parked), "state", "unknown")
    rig.direct.hset(rig.key("msg", stray), "attempt", 2)
    rig.direct.hset(rig.key("msg", queued), "state", "queued")
    rig.book.told += [incoming("swallowed"), ("b/status", {"id": "nobody", "state": "accepted"})]
    rig.direct.zadd(rig.key("due", "hook"), {"gone": 1})

    with pytest.raises(AssertionError) as told:
        check(rig)
    text = str(told.value)
    assert "seed 4711" in text
    for line in (
        f"lost: {lost} is None",
        f"twice: {twice} the same attempt again",
        f"twice: {again} attempt 2 although 1 was accept",
        f"attempts that the ledger does not know: {again}",
        "sent without a record: never-sent",
        f"told as sent, and is not: {unsent}",
        f"timeline: {story} cancelled after sent",
        f"index: {place} state:failed",
        f"due: {due} is sent and in ['due:send', 'ends']",
        f"report: {moved}",
        f"timeline: {parked} ends as sent, and is unknown",
        f"timeline: {stray} 1 attempts, and the record has 2",
        f"due: {queued} is queued and in ['ends']",
        f"unheard: {unheard} was sent",
        "webhook:  swallowed is not there",
        "unheard:  swallowed came in",
        "unheard:  report {'id': 'nobody'",
        "due: gone an event in due:hook that is None",
        "counters:  accepted is 12, messages 11",
    ):
        assert line in text, f"{line!r} is missing from\n{text}"
    # With the timeline of each that is concerned.
    assert f"{twice}: sent, 1 attempts" in text
    assert len(ids) == 12


def test_a_lease_without_end_is_seen(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(workers=0)
    id = str(send(rig, OutgoingMessage("15550001", "accept")))
    assert isinstance(rig.gateway.ledger.claim(id, "token", lease=3.0, worker="w"), Claimed)
    rig.leases_end()
    rig.direct.zincrby(rig.key("due", "watch"), 3000, id)
    with pytest.raises(AssertionError, match=f"{id}: its lease ends"):
        rig.leases_end()
