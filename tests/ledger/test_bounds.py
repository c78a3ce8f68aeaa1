"""What others can make long does not break a script, nor fill a record."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from smsqueue import IncomingMessage, OutgoingMessage
from smsqueue.ledger import AttemptBegun, AttemptOutcome, Claimed, NextAttempt
from smsqueue.message.messages import Part
from smsqueue.message.statuses import MessageDelivered
from smsqueue.providers.africastalking import AfricasTalkingProvider
from smsqueue.providers.base.webhook_errors import Malformed
from tests.ledger.bench import Bench, Told

ROOT = Path(__file__).parents[2]
#: More than Lua's stack can hold.
MANY = 8_200

#: Every place where something of a length that others choose could be read or handed over whole,
#: and what bounds it. A new one needs its line here.
BOUNDS = {
    "smsqueue/ledger/purge_webhooks.lua: #ARGV": "a page of 200 ids",
    "smsqueue/ledger/shared/webhook_memory.lua: HKEYS": "fields of a provider; spans of 6 h",
    "smsqueue/ledger/heartbeat.lua: HGETALL": "worker processes of the last hour",
    "smsqueue/ledger/client.py: unpack(command)": "250 triggers of a batch, see queue.py",
    "smsqueue/ledger/tag_progress.lua: unpack(redis.call('HMGET', key('msg', message)": "three",
    "smsqueue/ledger/claim_event.lua: SMEMBERS": "handlers of an application",
    "smsqueue/ledger/queries.py: hgetall": "fields of one record, also page by page; at most a "
    "thousand damaged records; providers; worker processes of the last hour; counters: errors by "
    "class and provider",
    "smsqueue/ledger/queries.py: smembers": "handlers or providers of an application",
    "smsqueue/ledger/receive_part.lua: unpack(ARGV, 1, 6)": "six",
    "smsqueue/ledger/repair_record.lua: #ARGV": "two fields of a record, see queries.py",
    "smsqueue/ledger/bulk_step.lua: #ARGV": "64 ids",
    "smsqueue/ledger/shared/pauses.lua: HGETALL": "100 paused tags, and everything",
    "smsqueue/ledger/shared/damage.lua: SMEMBERS": "providers of an application",
    "smsqueue/ledger/shared/damage.lua: ZRANGE 0 -1": "messages in flight: slots of all workers",
    "smsqueue/ledger/shared/damage.lua: #ARGV": "arguments of 64 items",
    "smsqueue/ledger/shared/damage.lua: unpack(ARGV, first, first + width - 1)": "of one item",
    "smsqueue/ledger/shared/damage.lua: unpack(states)": "three",
    "smsqueue/ledger/shared/opt_outs.lua: HKEYS": "scopes that one number has opted out of",
    "smsqueue/ledger/shared/reports.lua: LRANGE": "500, piece by piece",
    "smsqueue/ledger/shared/reports.lua: SMEMBERS": "ids of one message: 255 an attempt, 510 by "
    "reports",
    "smsqueue/ledger/shared/deferred_writes.lua: HGETALL": "fields of one record, one per attempt",
    "smsqueue/ledger/shared/deferred_writes.lua: unpack(stored)": "fields that one script reads",
    "smsqueue/ledger/shared/deferred_writes.lua: unpack(values)": "fields that one script changes",
    "smsqueue/ledger/shared/deferred_writes.lua: unpack(names)": "fields that one script removes",
    "smsqueue/ledger/shared/deferred_writes.lua: unpack(gone)": "fields that one script removes",
    "smsqueue/ledger/shared/deferred_writes.lua: unpack(list)": "a thousand",
    "smsqueue/ledger/shared/deferred_writes.lua: unpack(command)": "at most five words",
}


@pytest.fixture
def provider(bench: Bench) -> Told:
    return bench.add("a")


def park(bench: Bench, msgid: str, states: list[str]) -> None:
    """Have reports wait for an id as older versions did: all of them."""
    pipe: Any = bench.redis.pipeline(transaction=False)
    for i, state in enumerate(states):
        event = f"early-{msgid}-{i}"
        data = {"class": "MessageStatus", "msgid": msgid}
        fields = {"kind": "status", "state": "parked", "not_before": 9e15, "data": json.dumps(data)}
        pipe.hset(bench.key("event", event), mapping=fields)
        pipe.rpush(bench.key("parked", "a", msgid), json.dumps([event, state, "", None]))
    pipe.execute()


def named(message: OutgoingMessage) -> None:
    message.msgid = "4711"


def test_thousands_of_parked_reports_do_not_break_the_settle(bench: Bench, provider: Told) -> None:
    park(bench, "4711", ["accepted"] * MANY + ["delivered"])
    provider.then(named)
    id = bench.send(status_report=True)
    assert bench.deliver(id).state == "delivered"
    assert bench.record(id).msgid == "4711"
    assert id not in bench.due()


def test_thousands_of_parked_reports_do_not_break_a_late_settle(
    bench: Bench, provider: Told
) -> None:
    id = bench.send(status_report=True)
    bench.deliver(id)
    park(bench, "4711", ["undelivered"] * MANY)
    outcome = AttemptOutcome("sent", "a", msgids=("4711",), msgid='"4711"')
    bench.ledger.settle(id, "another", 1, outcome)
    assert bench.state(id) == "undelivered"


def test_thousands_of_parked_reports_do_not_break_a_report(bench: Bench, provider: Told) -> None:
    id = bench.send(status_report=True)
    bench.deliver(id)
    park(bench, "4711", ["accepted"] * MANY + ["undelivered"])
    bench.report("accepted", msgid="4711", reference=f"{id}.1")
    assert bench.state(id) == "undelivered"


def test_thousands_of_parked_reports_do_not_break_the_next_provider(bench: Bench) -> None:
    """The first provider refuses, with an id that reports wait for, and the second one takes it."""
    bench.add("a")
    id = bench.send(status_report=True)
    claim = bench.ledger.claim(id, "t", lease=60, worker="w", default=("a", 60))
    assert isinstance(claim, Claimed)
    assert claim.begun == AttemptBegun(1)
    park(bench, "4711", ["expired"] * MANY)
    next = NextAttempt("b", 60_000)
    outcome = AttemptOutcome("unknown", "a", msgids=("4711",), delay_ms=0, next=next)
    assert bench.ledger.settle(id, "t", 1, outcome).state == "expired"


def test_webhooks_park_a_bounded_number_of_reports_and_the_state_is_that_of_all(
    bench: Bench,
) -> None:
    bench.gateway.add_provider("open", AfricasTalkingProvider, username="sandbox", api_key="k")
    bench.gateway.default_provider = "open"
    heard = bench.listen()
    client = bench.gateway.receiver_blueprints_register(Flask("x"), "p").test_client()

    def report(status: str, reason: object) -> None:
        form = {"id": "4711", "status": status, "failureReason": reason}
        assert client.post("/p/open/status", data=form).status_code == 200

    for i in range(60):
        report("Sent", i)
    for i in range(60):
        report("Failed", i)
    report("Success", "")
    kept = bench.redis.lrange(bench.key("parked", "open", "4711"), 0, -1)
    assert len(kept) == 18  # 16, and the first of each state that these do not have
    assert len(bench.events("status")) == 121
    id = bench.send(status_report=True)
    claim = bench.ledger.claim(id, "t", lease=60, worker="w", default=("open", 60))
    assert isinstance(claim, Claimed)
    assert claim.begun == AttemptBegun(1)
    outcome = AttemptOutcome("sent", "open", msgids=("4711",), msgid='"4711"')
    assert bench.ledger.settle(id, "t", 1, outcome).state == "delivered"
    for event in bench.events("status"):
        bench.ripe_event(event)
    bench.run_hooks()
    # None is lost: those that were not kept are heard without their message.
    assert sorted(status.id or "" for status in heard) == [""] * 103 + [id] * 18


def test_a_list_of_an_older_version_is_shortened_by_the_next_report(
    bench: Bench, provider: Told
) -> None:
    park(bench, "4711", ["accepted"] * MANY + ["delivered"])
    bench.report("accepted", msgid="4711")
    assert bench.redis.llen(bench.key("parked", "a", "4711")) == 17
    provider.then(named)
    id = bench.send(status_report=True)
    assert bench.deliver(id).state == "delivered"


def test_what_a_provider_answers_is_bounded(bench: Bench, provider: Told) -> None:
    def hostile(message: OutgoingMessage) -> None:
        message.msgid = [f"{i}" for i in range(9_000)]  # type: ignore[assignment]
        message.meta = {"said": "x" * 250_000}

    provider.then(hostile)
    id = bench.send(status_report=True)
    assert bench.deliver(id).state == "sent"
    keys = bench.keys()
    assert len([key for key in keys if key.startswith("ref:")]) == 255
    assert sum(len(value) for value in bench.redis.hgetall(bench.key("msg", id)).values()) < 8_000
    bench.report("delivered", reference=f"{id}.1")
    assert bench.state(id) == "delivered"


def test_reports_that_wait_for_each_of_many_parts_all_count(bench: Bench, provider: Told) -> None:
    ids = [f"part{i}" for i in range(255)]
    for msgid in ids:
        park(bench, msgid, ["accepted"] * 40 + ["delivered"])

    def take(message: OutgoingMessage) -> None:
        message.msgid = ids  # type: ignore[assignment]

    provider.then(take)
    id = bench.send(status_report=True)
    bench.deliver(id)
    assert bench.state(id) == "delivered"
    assert len(bench.record(id).timeline) <= 60


def test_an_id_that_is_too_long_is_not_kept(bench: Bench, provider: Told) -> None:
    def hostile(message: OutgoingMessage) -> None:
        message.msgid = "x" * 250_000

    provider.then(hostile)
    id = bench.send(status_report=True)
    assert bench.deliver(id).state == "sent"
    assert bench.record(id).msgid is None
    assert bench.redis.exists(bench.key("refs", id)) == 0


def test_the_parts_of_a_message_are_together_as_long_as_a_whole_one(bench: Bench) -> None:
    bench.add("a")
    got: list[IncomingMessage] = []
    bench.gateway.onReceive.connect(got.append, name="got")
    for number in range(1, 41):
        message = IncomingMessage("15550001", f"{number:02}" + "é" * 400, number, "15550002")
        message.provider, message.part = "a", Part("9", number, 40)
        bench.gateway.receive_message(message)
    bench.run_hooks()
    (whole,) = got
    assert whole.body.startswith("01é")
    assert whole.body.endswith(" [cut by smsqueue]")
    assert 7_000 < len(whole.body.encode()) <= 8 * 1024 + 18
    assert whole.meta == {"parts": 40}


def test_ids_and_codes_that_are_huge_numbers_are_malformed(bench: Bench) -> None:
    open = bench.gateway.add_provider("a", AfricasTalkingProvider, username="u", api_key="k")
    huge = int("9" * 4000)  # JSON may hold it
    for report in (MessageDelivered(huge), MessageDelivered("1")):
        report.status_code = huge if report.msgid == "1" else None
        with pytest.raises(Malformed, match="number of more than"):
            open._receive_status(report)
    with pytest.raises(Malformed, match="number of more than"):
        open._receive_message(IncomingMessage("15550001", "", huge))
    assert bench.events() == []


def test_whatever_is_read_whole_has_a_bound() -> None:
    found = set()
    for path in sorted((ROOT / "smsqueue").rglob("*.lua")):
        text = re.sub(r"--.*", "", path.read_text("utf-8"))
        for match in re.finditer(r"unpack\([^)]*\)|#ARGV\b|ipairs\(ARGV\)", text):
            if match[0] != "#ARGV" or text[match.end()] != "[":
                found.add(f"{path.relative_to(ROOT)}: {match[0]}")
        for name in re.findall(r"'(HGETALL|HKEYS|HVALS|SMEMBERS|LRANGE|KEYS)'", text):
            found.add(f"{path.relative_to(ROOT)}: {name}")
        for name in re.findall(r"'(Z[A-Z]*RANGE)'.*, 0, -1\b", text):
            found.add(f"{path.relative_to(ROOT)}: {name} 0 -1")
    for path in sorted(path for name in ("smsqueue", "workers", "receivers")
                       for path in (ROOT / name).rglob("*.py")):  # fmt: skip
        text = path.read_text("utf-8")
        for name in re.findall(r"\.(hgetall|hkeys|hvals|smembers|lrange|keys_of)\(", text):
            found.add(f"{path.relative_to(ROOT)}: {name}")
        for name in re.findall(r"\bredis\.call\((unpack\([^)]*\))\)", text):
            found.add(f"{path.relative_to(ROOT)}: {name}")
        for name in re.findall(r"\.(z[a-z]*range)\(.*, 0, -1\b", text):
            found.add(f"{path.relative_to(ROOT)}: {name} 0 -1")
    assert found == BOUNDS.keys()
