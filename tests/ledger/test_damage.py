"""Damaged records: each stops nobody, is named, and can be repaired without a second SMS."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from smsqueue import IncomingMessage, OutgoingMessage, exc
from smsqueue.ledger import AttemptBegun, AttemptOutcome, Claimed, NextAttempt
from smsqueue.message import statuses
from smsqueue.operation.metrics import scrape
from tests.ledger.bench import Bench
from tests.ledger.former_version import FORMER_NAMES

#: What may be wrong with a record's hash.
FIELDS = [
    ("timeline", "not JSON"),
    ("timeline", "5"),
    ("timeline", '{"a":1}'),
    ("timeline", '"text"'),
    ("timeline", "null"),
    ("timeline", "[1,2]"),
    ("timeline", ""),
    ("timeline", b"\xff\xfe\x00"),
    ("attempt", "zzz"),
    ("attempt", "1.5"),
    ("attempt", b"\x80"),
    ("tries", "zzz"),
    ("state", "zzz"),
    ("state", b"\xff"),
    ("state", None),
    ("data", "not JSON"),
    ("data", "5"),
    ("data", "null"),
    ("data", "[]"),
    ("data", '{"dst":"1555"}'),
    ("data", ""),
    ("data", b"\xff\xfe"),
    ("data", None),
]
WRONG_TYPES = ["string", "list"]


def damage(bench: Bench, kind: str, id: str, field: str, value: Any) -> None:
    key, fields = bench.key(kind, id), [field]
    if field in FORMER_NAMES:
        fields.append(FORMER_NAMES[field])
    if value is None:
        bench.redis.hdel(key, *fields)
    else:
        bench.redis.hset(key, mapping=dict.fromkeys(fields, value))


def overwrite(bench: Bench, key: str, kind: str) -> None:
    bench.redis.delete(key)
    if kind == "string":
        bench.redis.set(key, "mine")
    elif kind == "list":
        bench.redis.rpush(key, "mine")
    else:
        bench.redis.sadd(key, "mine")


def work(bench: Bench) -> None:
    """What workers do, as far as it can be done now."""
    for id in bench.redis.zrange(bench.key("due", "send"), 0, -1):
        bench.redis.zadd(bench.key("due", "send"), {id: 1})
    bench.drain()
    bench.upkeep.turn()
    triggers: Any = bench.redis.lrange(bench.settings.send_key, 0, -1)
    ids = [json.loads(trigger)["headers"]["id"] for trigger in triggers]
    bench.drain()
    for id in ids:
        bench.deliver(id)


def named(bench: Bench) -> set[str]:
    return {damaged.id for damaged in bench.ledger.damaged()}


def page(bench: Bench) -> str:
    return scrape(bench.ledger).decode()


@pytest.mark.parametrize(("field", "value"), FIELDS)
def test_a_damaged_waiting_message_does_not_stop_others(
    bench: Bench, field: str, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    provider = bench.add("a")
    bad = bench.send("the secret text")
    good = [bench.send() for _ in range(3)]
    damage(bench, "msg", bad, field, value)
    with caplog.at_level(logging.INFO):
        work(bench)
    assert [bench.state(id) for id in good] == ["sent"] * 3
    assert bench.upkeep.failing == {}
    assert named(bench) == {bad}
    assert bad not in bench.due()
    assert "smsqueue_damaged 1.0" in page(bench)
    assert bad not in page(bench)
    assert any(bad in line and "damaged" in line for line in caplog.messages)
    assert "secret" not in caplog.text
    assert len(provider.calls) == 3
    # Nobody comes back to it.
    work(bench)
    assert len(provider.calls) == 3
    if field != "tries":  # which a record does not show
        with pytest.raises(exc.DamagedRecord) as caught:
            bench.gateway.lookup(bad)
        assert bad in str(caught.value)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kind", WRONG_TYPES)
def test_a_waiting_message_of_the_wrong_type_does_not_stop_others(bench: Bench, kind: str) -> None:
    bench.add("a")
    bad, good = bench.send(), bench.send()
    overwrite(bench, bench.key("msg", bad), kind)
    work(bench)
    assert bench.state(good) == "sent"
    assert named(bench) == {bad}
    assert f"a {kind}" in bench.ledger.damaged()[0].cause
    assert bench.ledger.backlog()["send"].held == 0
    assert bench.ledger.counts()["queued"] == 0


LAPSED = [each for each in FIELDS if each[0] in ("timeline", "attempt", "tries", "state")]


@pytest.mark.parametrize(("field", "value"), LAPSED)
@pytest.mark.parametrize("call", [False, True])
def test_a_damaged_message_whose_worker_died_does_not_stop_others(
    bench: Bench, field: str, value: Any, call: bool
) -> None:
    bench.add("a")
    ids = [bench.send() for _ in range(3)]
    for id in ids:
        bench.ledger.claim(id, "t", lease=60, worker="w")
        if call:
            bench.ledger.begin(id, "t", "a", lease=60, attempt=1)
        bench.redis.zadd(bench.key("due", "watch"), {id: 1})
    bad = ids[0]
    damage(bench, "msg", bad, field, value)
    bench.upkeep.turn()
    expected = "unknown" if call else "retrying"
    assert [bench.state(id) for id in ids[1:]] == [expected] * 2
    assert bench.upkeep.failing == {}
    assert named(bench) == {bad}
    assert bad not in bench.due()
    state, causes = bench.gateway.repair(bad)
    assert causes
    assert bench.state(bad) == state
    # What may have been at a provider is unknown: nobody sends it again.
    assert (state in ("queued", "retrying")) is (not call)
    if call:
        assert state == "unknown"
    assert named(bench) == set()


@pytest.mark.parametrize("kind", WRONG_TYPES)
@pytest.mark.parametrize("lane", ["watch", "ask"])
def test_a_key_of_the_wrong_type_in_the_other_lanes(bench: Bench, kind: str, lane: str) -> None:
    bench.add("a", RuntimeError())
    bad, good = bench.send(), bench.send()
    bench.deliver(bad)
    assert bench.state(bad) == "unknown"
    bench.redis.zadd(bench.key("due", lane), {bad: 1})
    overwrite(bench, bench.key("msg", bad), kind)
    work(bench)
    assert bench.state(good) == "sent"
    assert named(bench) == {bad}
    assert bad not in bench.due()


EVENTS = [
    ("data", "not JSON"),
    ("data", "5"),
    ("data", "{}"),
    ("data", b"\xff"),
    ("data", None),
    ("tries", "zzz"),
    ("not_before", "zzz"),
    ("state", "zzz"),
    ("state", None),
]


@pytest.mark.parametrize(("field", "value"), EVENTS)
def test_a_damaged_event_does_not_stop_others(bench: Bench, field: str, value: Any) -> None:
    heard: list[str] = []
    bench.gateway.onReceive.connect(lambda message: heard.append(message.body), name="hear")
    for body in ("bad", "good"):
        bench.gateway.receive_message(IncomingMessage("1777", body, body))
    (bad,) = [id for id in bench.events() if '"bad"' in (bench.ledger.read_event(id) or {})["data"]]
    damage(bench, "event", bad, field, value)
    for event in bench.events():
        bench.redis.zadd(bench.key("due", "hook"), {event: 1})
    bench.drain("hook")
    bench.upkeep.turn()
    bench.run_hooks()
    assert bench.upkeep.failing == {}
    assert heard == ["good"]
    assert named(bench) == {bad}
    assert bad not in bench.due()
    if field == "data":
        with pytest.raises(exc.DamagedRecord):
            bench.gateway.repair(bad)
        assert bench.gateway.remove(bad) is True
        assert bad not in bench.events()
    else:
        state, _ = bench.gateway.repair(bad)
        if state == "dead":  # what the handlers did of it nobody knows
            assert bench.gateway.replay(bad) is True
        bench.run_hooks()
        assert heard == ["good", "bad"]
    assert named(bench) == set()


@pytest.mark.parametrize("kind", WRONG_TYPES)
@pytest.mark.parametrize("what", ["event", "done"])
def test_an_event_with_a_key_of_the_wrong_type(bench: Bench, what: str, kind: str) -> None:
    heard: list[str] = []
    bench.gateway.onReceive.connect(lambda message: heard.append(message.body), name="hear")
    bench.gateway.receive_message(IncomingMessage("1777", "bad", "1"))
    (bad,) = bench.events()
    bench.gateway.receive_message(IncomingMessage("1777", "good", "2"))
    overwrite(bench, bench.key(what, bad), kind)
    events = [bad, *bench.redis.zrange(bench.key("due", "hook"), 0, -1)]
    bench.redis.zadd(bench.key("due", "hook"), dict.fromkeys(events, 1))
    bench.drain("hook")
    bench.upkeep.turn()
    for event in dict.fromkeys(events):
        bench.hooks.run(event)
    assert heard == ["good"]
    assert named(bench) == {bad}


def test_handlers_run_for_an_event_of_a_damaged_message(bench: Bench) -> None:
    heard = bench.listen()
    bench.add("a")
    ids = [bench.send(status_report=True) for _ in range(2)]
    for id in ids:
        bench.deliver(id)
        bench.report("delivered", reference=f"{id}.1")
    damage(bench, "msg", ids[0], "data", "not JSON")
    overwrite(bench, bench.key("msg", ids[1]), "list")
    bench.run_hooks()
    assert {status.id for status in heard} == set(ids)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeline", "{}"),
        ("first", "zzz"),
        ("sent_at", "zzz"),
        ("parts.1", "zzz"),
        ("parts.1", "[]"),
        (None, None),
    ],
)
def test_a_report_about_a_damaged_message_is_recorded(
    bench: Bench, field: str | None, value: Any
) -> None:
    bench.add("a")
    bad = bench.send(status_report=True)
    bench.deliver(bad)
    msgid = bench.record(bad).msgid
    if field is None:
        overwrite(bench, bench.key("msg", bad), "list")
    else:
        damage(bench, "msg", bad, field, value)
    heard = bench.listen()
    bench.report("delivered", msgid=msgid)
    bench.run_hooks()
    assert len(heard) == 1
    assert named(bench) == {bad}


INDEXES = [
    *(("state", state) for state in ("queued", "sending", "sent")),
    ("due", "send"),
    ("due", "send_bulk"),
    ("due", "watch"),
    ("ends",),
    ("counts",),
    ("pauses",),
    ("pause", "a"),
    ("health", "a"),
    ("workers",),
    ("passed", "send"),
    ("filled", "send"),
    ("damaged",),
]


@pytest.mark.parametrize("index", INDEXES, ids=":".join)
@pytest.mark.parametrize("kind", ["string", "list"])
def test_an_index_of_the_wrong_type_begins_anew(
    bench: Bench, index: tuple[str, ...], kind: str
) -> None:
    bench.add("a")
    before = [bench.send(status_report=True) for _ in range(3)]
    overwrite(bench, bench.key(*index), kind)
    if index[0] in ("passed", "filled") and kind == "string":
        bench.redis.set(bench.key(*index), "zzz")
    bench.upkeep.turn()
    after = bench.send(status_report=True)
    work(bench)
    work(bench)
    bench.ledger.record_heartbeat("w/1", {"queues": []})
    assert [bench.state(id) for id in (*before, after)] == ["sent"] * 4
    assert bench.upkeep.failing == {}
    bench.report("delivered", reference=f"{after}.1")
    assert bench.state(after) == "delivered"
    assert page(bench)


def test_two_indexes_of_the_wrong_type_at_once_lose_no_scheduled_message(bench: Bench) -> None:
    provider = bench.add("a")
    scheduled = bench.send(send_at=datetime.now(UTC) + timedelta(hours=1))
    overwrite(bench, bench.key("due", "send"), "string")
    overwrite(bench, bench.key("state", "queued"), "string")
    bench.upkeep.turn()
    assert bench.upkeep.failing == {}
    assert scheduled in bench.due()
    id = bench.send()
    assert bench.deliver(id).state == "sent"
    bench.ripe(scheduled)
    work(bench)
    assert bench.state(scheduled) == "sent"
    assert len(provider.calls) == 2


def test_two_indexes_of_the_wrong_type_at_once_take_no_message_in_halfway(bench: Bench) -> None:
    bench.add("a")
    overwrite(bench, bench.key("due", "send"), "list")
    overwrite(bench, bench.key("state", "retrying"), "string")
    id = bench.send(idempotency_key="k")
    assert id in bench.due()
    assert bench.deliver(id).state == "sent"


@pytest.mark.parametrize("kind", ["incoming", "report"])
def test_two_indexes_of_the_wrong_type_at_once_lose_no_webhook(bench: Bench, kind: str) -> None:
    bench.add("a")
    heard: list[Any] = []
    bench.gateway.onReceive.connect(heard.append, name="hear")
    bench.gateway.onStatus.connect(heard.append, name="listen")
    id = bench.send(status_report=True)
    bench.deliver(id)
    overwrite(bench, bench.key("due", "hook"), "string")
    overwrite(bench, bench.key("state", "parked"), "string")
    if kind == "incoming":
        message = IncomingMessage("15551234567", "hi", "m1")
        message.provider = "a"
        bench.gateway.receive_message(message)
    else:
        bench.report("delivered", reference=f"{id}.1")
    assert set(bench.events()) <= bench.due()
    bench.run_hooks()
    assert len(heard) == 1


@pytest.mark.parametrize("kind", ["incoming", "report"])
def test_a_webhook_that_was_not_written_whole_is_recorded_when_it_is_repeated(
    bench: Bench, make_bench: Callable[..., Bench], kind: str
) -> None:
    """The account may not write an index: it is answered 503, and its provider repeats it."""
    bench.add("a")
    id = bench.send(status_report=True)
    bench.deliver(id)
    message = IncomingMessage("15551234567", "hi", "m1")
    message.provider = "a"
    user = bench.settings.namespace
    bench.redis.acl_setuser(
        user,
        enabled=True,
        nopass=True,
        keys=[user, *(bench.key(each) for each in ("[^d]*", "damaged", "due:[^h]*"))],
        commands=["+@all"],
    )
    url = bench.settings.redis_url.replace("//", f"//{user}:any@")
    with make_bench(redis_url=url).gateway as limited:
        for gateway in (limited, bench.gateway):
            try:
                if kind == "incoming":
                    gateway.receive_message(message)
                else:
                    status = statuses.MessageDelivered(None)
                    status.provider, status.reference, status.event_id = "a", f"{id}.1", "r1"
                    gateway.receive_status(status)
            except exc.QueueUnavailable:
                assert gateway is limited
            else:
                assert gateway is bench.gateway
    bench.redis.acl_deluser(user)
    assert len(set(bench.events()) & bench.due()) == 1


@pytest.mark.parametrize("field", ["until", "times", "since", "next_check_at", "probe_until"])
def test_a_damaged_pause_is_ended(bench: Bench, field: str) -> None:
    bench.add("a", exc.LimitsError())
    first = bench.send()
    bench.deliver(first)
    damage(bench, "pause", "a", field, "zzz")
    bench.unpause("a") if field != "until" else None
    for id in (first, bench.send()):
        bench.ripe(id)
        bench.deliver(id)
        assert bench.state(id) == "sent"
    assert page(bench)


def test_a_damaged_number_of_what_is_kept_of_webhooks_loses_none(bench: Bench) -> None:
    provider, heard = bench.add("a"), []
    bench.gateway.onReceive.connect(lambda message: heard.append(message.body), name="hear")
    for n in range(2):
        provider._receive_message(IncomingMessage("15550001", f"text {n}", f"m{n}"))
        bench.run_hooks()
        spans: Any = bench.redis.hkeys(bench.key("kept", "a"))
        bench.redis.hset(bench.key("kept", "a"), mapping=dict.fromkeys(spans, "12.5x"))
    bench.upkeep.turn()
    assert bench.upkeep.failing == {}
    assert heard == ["text 0", "text 1"]
    assert bench.due() == set()
    assert bench.redis.zcard(bench.key("state", "done")) == 2
    for event in bench.events():
        bench.gateway.replay(event)
    bench.run_hooks()
    assert len(heard) == 4


def test_what_is_about_to_be_published_is_not_counted_for_ever(bench: Bench) -> None:
    """A key without its time to live, as after RESTORE or PERSIST."""
    bench.add("a")
    for queue in ("send", "hook"):
        bench.redis.set(bench.key("filled", queue), 5000)
    id = bench.send()
    bench.gateway.get_provider("a")._receive_message(IncomingMessage("15550001", "hi", "m1"))
    bench.upkeep.turn()
    bench.upkeep.turn()
    assert bench.published() == 1
    assert bench.published(bench.settings.hook_key) == 1
    assert bench.deliver(id).state == "sent"


@pytest.mark.parametrize("field", ["since", "times"])
def test_damaged_health_of_a_provider_does_not_stop_messages(bench: Bench, field: str) -> None:
    bench.add("a", exc.ServerError())
    first = bench.send()
    damage(bench, "health", "a", field, "zzz")
    bench.deliver(first)
    assert bench.state(first) == "retrying"
    damage(bench, "health", "a", field, b"\xff")
    bench.ripe(first)
    bench.deliver(first)
    assert bench.state(first) == "sent"


def test_damaged_workers_and_counters_are_passed_over(bench: Bench) -> None:
    bench.add("a")
    workers = {"w1": "zzz", "w2": "5", "w3": "12 []", "w4": b"\xff\xff", "w5": '7 {"queues":3}'}
    bench.redis.hset(bench.key("workers"), mapping=workers)
    bench.redis.hset(bench.key("counts"), mapping={"accepted": "zzz", "attempts|a": b"\xff"})
    bench.ledger.record_heartbeat("w/1", {"queues": ["q"], "concurrency": 3, "version": "1"})
    assert [worker.name for worker in bench.ledger.workers()] == ["w/1"]
    bench.deliver(bench.send())
    assert bench.ledger.counters()[("accepted",)] == 1
    assert "smsqueue_accepted_total 1.0" in page(bench)


@pytest.mark.parametrize("lane", ["send", "watch", "ask", "hook"])
def test_an_id_whose_record_is_gone_is_dropped(bench: Bench, lane: str) -> None:
    bench.redis.zadd(bench.key("due", lane), {"gone": 1, b"\xff\x00": 1})
    bench.upkeep.turn()
    assert bench.redis.zcard(bench.key("due", lane)) == 0
    assert named(bench) == set()
    assert bench.upkeep.failing == {}


def test_a_message_in_a_lane_that_is_not_its_own_is_not_lost(bench: Bench) -> None:
    bench.add("a")
    waiting, sent = bench.send(), bench.send()
    bench.deliver(sent)
    bench.redis.zadd(bench.key("due", "watch"), {waiting: 1})
    bench.redis.zadd(bench.key("due", "send"), {sent: 1})
    bench.upkeep.turn()
    assert bench.look("send", waiting) is not None
    assert bench.look("send", sent) is None
    assert bench.redis.zscore(bench.key("ends"), waiting) is None


def test_a_damaged_record_is_forgotten_when_its_time_is_over(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(retention=0.001)
    bench.add("a")
    ids = [bench.send(str(n)) for n in range(3)]
    for id in ids:
        bench.deliver(id)
    overwrite(bench, bench.key("msg", ids[0]), "list")
    damage(bench, "msg", ids[1], "timeline", "zzz")
    overwrite(bench, bench.key("refs", ids[2]), "string")
    bench.redis.zadd(bench.key("ends"), dict.fromkeys(ids, 1))
    bench.upkeep.turn()
    left = bench.keys()
    assert not [key for key in left if key.startswith("msg:")]


def test_one_lane_that_fails_stops_no_other(bench: Bench, caplog: Any) -> None:
    bench.add("a")
    ids = [bench.send() for _ in range(2)]
    # An error that no damaged record explains.
    scripts: Any = bench.ledger._scripts
    sweep = bench.redis.register_script("return redis.error_reply('ERR of the sweep')")
    scripts._scripts["sweep"] = sweep
    work(bench)
    assert [bench.state(id) for id in ids] == ["sent"] * 2
    assert set(bench.upkeep.failing) == {"sweep"}
    assert "of the sweep" in bench.upkeep.failing["sweep"]
    assert any("sweep" in line and "of the sweep" in line for line in caplog.messages)
    del scripts._scripts["sweep"]
    bench.upkeep.turn()
    assert bench.upkeep.failing == {}


def test_more_damaged_records_than_can_be_named_are_looked_at_later(bench: Bench) -> None:
    bench.add("a")
    entry = '{"kind":"msg","cause":"old","at":1}'
    bench.redis.hset(bench.key("damaged"), mapping={f"d{n}": entry for n in range(1000)})
    bad, good = bench.send(), bench.send()
    damage(bench, "msg", bad, "attempt", "zzz")
    work(bench)
    assert bench.state(good) == "sent"
    assert bench.redis.hlen(bench.key("damaged")) == 1000
    assert (bench.look("send", bad) or 0) > bench.now() + 50_000


# --- repairing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["zzz", "{}", "[1]", ""])
def test_a_timeline_is_made_anew_and_the_message_goes_out_once(bench: Bench, text: str) -> None:
    provider = bench.add("a")
    id = bench.send()
    damage(bench, "msg", id, "timeline", text)
    bench.deliver(id)
    assert provider.calls == []
    assert bench.gateway.repair(id)[0] in ("queued", "retrying")
    assert bench.gateway.repair(id)[1] == []  # nothing is wrong any more
    work(bench)
    assert bench.state(id) == "sent"
    assert len(provider.calls) == 1


def test_what_was_settled_halfway_is_not_sent_again(bench: Bench) -> None:
    def ruin(message: OutgoingMessage) -> None:
        damage(bench, "msg", message.id or "", "timeline", "zzz")

    provider = bench.add("a", ruin, None)
    id = bench.send()
    assert bench.deliver(id).state == "damaged"
    assert bench.gateway.repair(id)[0] == "sent"
    work(bench)
    assert provider.calls == [f"{id}.1"]


def test_an_uncertain_attempt_that_is_damaged_becomes_unknown(bench: Bench) -> None:
    id = bench.send(on_unknown="resend")
    bench.ledger.claim(id, "t", lease=60, worker="w")
    bench.ledger.begin(id, "t", "a", lease=60, attempt=1)
    damage(bench, "msg", id, "tries", "zzz")
    bench.lapse(id)
    assert named(bench) == {id}
    assert bench.gateway.repair(id)[0] == "unknown"


def test_a_message_whose_validity_cannot_be_read_is_not_sent_without_one(bench: Bench) -> None:
    heard = bench.listen()
    provider = bench.add("a")
    id = bench.send(expires=5)
    damage(bench, "msg", id, "expires", "zzz")
    assert bench.deliver(id).state == "damaged"
    assert bench.gateway.repair(id)[0] == "failed"
    bench.run_hooks()
    assert [status.id for status in heard] == [id]
    assert provider.calls == []
    assert bench.gateway.requeue(id, expires=5) is True
    assert bench.deliver(id).state == "sent"


def test_a_message_whose_text_cannot_be_read_fails_with_an_event(bench: Bench) -> None:
    heard = bench.listen()
    bench.add("a")
    id = bench.send()
    damage(bench, "msg", id, "data", "zzz")
    bench.deliver(id)
    assert bench.gateway.repair(id)[0] == "failed"
    bench.run_hooks()
    assert [status.id for status in heard] == [id]


def test_a_scheduled_message_keeps_its_time(bench: Bench) -> None:
    at = datetime.now(UTC) + timedelta(hours=3)
    id = bench.send(send_at=at)
    damage(bench, "msg", id, "not_before", "zzz")
    bench.redis.zadd(bench.key("due", "send"), {id: 1})
    assert bench.deliver(id).state == "damaged"
    assert bench.gateway.repair(id)[0] == "scheduled"
    assert abs((bench.look("send", id) or 0) - at.timestamp() * 1000) < 2


def test_only_what_is_damaged_is_removed(bench: Bench) -> None:
    id = bench.send(idempotency_key="k")
    assert bench.gateway.remove(id) is False
    overwrite(bench, bench.key("msg", id), "list")
    assert bench.gateway.remove(id) is True
    with pytest.raises(LookupError):
        bench.gateway.lookup(id)
    with pytest.raises(LookupError):
        bench.gateway.remove(id)
    # Whoever repeats that send does not send it twice.
    with pytest.raises(exc.IdempotencyConflict):
        bench.send(idempotency_key="k")


def test_cancel_does_nothing_to_a_damaged_message(bench: Bench) -> None:
    id = bench.send()
    damage(bench, "msg", id, "timeline", "zzz")
    with pytest.raises(exc.DamagedRecord):
        bench.gateway.cancel(id)
    assert bench.field(id, "state") == "queued"
    assert bench.gateway.repair(id)[0] == "queued"
    assert bench.gateway.cancel(id) is True


def test_a_send_that_an_index_stopped_halfway_is_not_taken_for_accepted(bench: Bench) -> None:
    bench.add("a")
    number = bench.key("number", bench.ledger.hash_of("15550001"))
    bench.redis.set(number, "mine")
    id = bench.send()
    assert bench.deliver(id).state == "sent"
    assert [record.id for record in bench.gateway.find("15550001")] == [id]


def test_find_passes_over_damaged_records(bench: Bench) -> None:
    bad, good = bench.send(), bench.send()
    damage(bench, "msg", bad, "timeline", "zzz")
    assert [record.id for record in bench.gateway.find("15550001")] == [good]


# --- What ends a transition halfway ------------------------------------------------------------


def test_a_damaged_length_of_a_queue_ends_no_transition_halfway(bench: Bench) -> None:
    """The provider took the message: an error in the middle of settling that would let its lease
    lapse, and send it again."""
    provider = bench.add("a")
    bench.gateway.onSend.connect(lambda message: None, name="look")
    bench.redis.set(bench.key("filled", "send"), "zzz")
    id = bench.send()
    assert id in bench.due()
    provider.then(lambda message: bench.redis.set(bench.key("filled", "hook"), "zzz"))
    bench.deliver(id)
    assert bench.state(id) == "sent"
    assert set(bench.events("sent")) == bench.due() != set()


def test_a_queue_of_hooks_of_the_wrong_type_sends_nothing_twice(bench: Bench) -> None:
    provider, told = bench.add("a"), []
    bench.gateway.onSend.connect(lambda message: told.append(message.id), name="tell")
    bench.redis.set(bench.settings.hook_key, "another program's")
    id = bench.send()
    assert bench.deliver(id).state == "sent"
    bench.redis.delete(bench.settings.hook_key)
    bench.upkeep.turn()
    assert bench.published(bench.settings.hook_key) == 1
    bench.run_hooks()
    assert told == [id]
    assert len(provider.calls) == 1


def test_a_queue_of_sends_of_the_wrong_type_loses_no_message(
    redis_server: Callable[..., Any], make_bench: Callable[..., Bench]
) -> None:
    # Redis with a limit counts the queues, to know how much memory is reserved.
    bench = make_bench(redis_url=redis_server("--maxmemory", "500mb").url)
    bench.add("a")
    bench.redis.set(bench.settings.send_key, "another program's")
    ids = [bench.send(idempotency_key="k"), bench.send_by("a")]
    bench.redis.delete(bench.settings.send_key)
    work(bench)
    assert [bench.state(id) for id in ids] == ["sent", "sent"]


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (
            AttemptOutcome("wait", "a", delay_ms=1000, waiting_for="a", wait_queue="single"),
            "queued",
        ),
        (AttemptOutcome("retry", "a", next=NextAttempt("b", 60_000)), "sending"),
    ],
)
def test_a_damaged_pause_ends_no_settle_halfway(
    bench: Bench, outcome: AttemptOutcome, state: str
) -> None:
    """It is deleted, and the settle is done once more: not taken for one that was done."""
    id, called = bench.send(), outcome.verdict == "retry"
    default = ("a", 60.0) if called else None
    bench.ledger.claim(id, "token", lease=60.0, worker="w", default=default)
    damaged = {"until": bench.now() + 30_000, "since": 1, "times": 1, "single": "zzz"}
    bench.redis.hset(bench.key("pause", "a"), mapping=damaged)
    bench.redis.hset(bench.key("pause", "b"), mapping=damaged | {"until": "zzz"})
    bench.redis.sadd(bench.key("pauses"), "a", "b")
    answer = bench.ledger.settle(id, "token", int(called), outcome)
    assert (answer.state, answer.attempt) == (state, 2 if called else None)
    assert bench.record(id).state == state
    assert bench.look("watch" if called else "send", id) is not None
    # Repeating it, as its worker does whose answer was lost, gives the same.
    assert bench.ledger.settle(id, "token", int(called), outcome)[:3:2] == (
        *(state, 2 if called else None),
    )


def test_an_expired_damaged_message_gets_its_event_after_the_repair(
    bench: Bench,
) -> None:
    provider, heard, id = bench.add("a"), bench.listen(), bench.send()
    bench.outdated(id)
    damage(bench, "msg", id, "timeline", "zzz")
    bench.deliver(id)
    assert named(bench) == {id}
    bench.gateway.repair(id)
    bench.deliver(id)
    bench.run_hooks()
    assert (bench.state(id), provider.calls) == ("expired", [])
    assert [status.id for status in heard] == [id]


def test_a_damaged_number_of_resends_is_named(bench: Bench) -> None:
    bench.add("a", ConnectionResetError())
    id = bench.send(on_unknown="resend")
    damage(bench, "msg", id, "resent", "zzz")
    bench.deliver(id)
    work(bench)
    assert [damaged.cause for damaged in bench.ledger.damaged()] == ["resent is not a whole number"]


def test_repair_knows_that_a_message_was_sent_whose_settle_failed(bench: Bench) -> None:
    provider, id = bench.add("a"), bench.send()
    provider.then(lambda message: damage(bench, "msg", id, "timeline", "zzz"))
    bench.deliver(id)
    assert named(bench) == {id}
    bench.gateway.repair(id)
    assert bench.state(id) == "sent"
    assert bench.look("send", id) is None


@pytest.mark.parametrize("same_object", [True, False])
def test_a_message_that_an_older_version_took_in_halfway_is_taken_in_when_it_is_repeated(
    bench: Bench, same_object: bool
) -> None:
    """Its sender got an error then."""
    bench.add("a")
    message = OutgoingMessage("15550001", "hi").options(idempotency_key="k")
    assert bench.ledger.accept(message, "first").verdict == "accepted"
    bench.redis.hdel(bench.key("msg", "first"), "state", "out")
    bench.redis.zrem(bench.key("due", "send"), "first")
    bench.redis.zrem(bench.key("state", "queued"), "first")
    id = "first" if same_object else "second"
    assert bench.ledger.accept(message, id)[:2] == ("accepted", id)
    work(bench)
    assert bench.state(id) == "sent"
    # An operator sees in its timeline when it was taken in, once.
    assert [line["state"] for line in bench.record(id).timeline] == ["queued", "sending", "sent"]


@pytest.mark.parametrize(
    ("settled", "state"), [("sent", "sent"), ("unknown", "unknown"), ("failed", "unknown")]
)
def test_a_message_that_an_older_version_settled_halfway_is_not_sent_again(
    bench: Bench, settled: str, state: str
) -> None:
    """It had removed the mark of the call before an error ended it."""
    provider, id = bench.add("a"), bench.send(status_report=True)
    bench.ledger.claim(id, "token", lease=60.0, worker="w", default=("a", 60.0))
    bench.redis.hset(bench.key("msg", id), "settled", f"token.1.{settled}")
    bench.redis.hdel(bench.key("msg", id), "calling", "gathers")
    bench.lapse(id)
    assert bench.state(id) == state
    assert (bench.look("watch", id) or 0) > bench.now()  # its report may come
    work(bench)
    assert provider.calls == []


def test_a_message_whose_next_provider_was_paused_is_sent_though_its_worker_dies(
    bench: Bench,
) -> None:
    """The first one refused it: that is no call whose end nobody knows."""
    provider, id = bench.add("a"), bench.send()
    bench.ledger.claim(id, "token", lease=60.0, worker="dies", default=("a", 60.0))
    pause = {"until": bench.now() + 60_000, "since": bench.now(), "times": 1}
    bench.redis.hset(bench.key("pause", "b"), mapping=pause)
    onward = AttemptOutcome("retry", "a", next=NextAttempt("b", 60_000))
    assert bench.ledger.settle(id, "token", 1, onward).state == "sending"
    bench.lapse(id)
    assert bench.state(id) == "retrying"
    bench.ripe(id)
    assert bench.deliver(id).state == "sent"
    assert len(provider.calls) == 1


@pytest.mark.parametrize("kind", ["incoming", "report"])
def test_a_webhook_is_recorded_whatever_is_damaged(bench: Bench, kind: str) -> None:
    bench.add("a")
    heard: list[Any] = []
    bench.gateway.onReceive.connect(heard.append, name="hear")
    bench.gateway.onStatus.connect(heard.append, name="listen")
    id = bench.send(status_report=True)
    bench.deliver(id)
    pid = bench.record(id).msgid
    bench.redis.set(bench.key("filled", "hook"), "zzz")
    if kind == "incoming":
        message = IncomingMessage("15551234567", "hi", "m1")
        message.provider = "a"
        bench.gateway.receive_message(message)
    else:
        bench.redis.hset(bench.key("msg", id), "msgid", "[zzz")
        bench.report("delivered", msgid=pid)
    [event] = bench.events("received" if kind == "incoming" else "status")
    assert event in bench.due()
    bench.run_hooks()
    assert len(heard) == 1


# --- What repair must not send -----------------------------------------------------------------


@pytest.mark.parametrize("value", ["zzz", "", b"\xff", None])
def test_repair_of_a_message_at_its_provider_never_sends_it_again(bench: Bench, value: Any) -> None:
    """Nobody can read since when its provider has it."""
    bench.add("a")
    id = bench.send()
    claim = bench.ledger.claim(id, "token", lease=60.0, worker="w", default=("a", 60.0))
    assert isinstance(claim, Claimed)
    assert claim.begun == AttemptBegun(1)
    damage(bench, "msg", id, "calling", value)
    if value is None:
        damage(bench, "msg", id, "tries", "zzz")
    state, causes = bench.gateway.repair(id)
    assert state == "unknown"
    assert causes
    assert bench.look("send", id) is None


@pytest.mark.parametrize("ended", ["cancelled", "expired"])
@pytest.mark.parametrize("aside", [False, True])
@pytest.mark.parametrize("value", ["zzz", None])
def test_repair_sends_nothing_that_was_over(
    bench: Bench, ended: str, aside: bool, value: str | None
) -> None:
    provider = bench.add("a")
    id = bench.send()
    if ended == "cancelled":
        bench.gateway.cancel(id)
    else:
        bench.outdated(id)
        bench.deliver(id)
        damage(bench, "msg", id, "expires", None)
    assert bench.state(id) == ended
    damage(bench, "msg", id, "state", value)
    if aside:
        damage(bench, "msg", id, "timeline", "zzz")
        bench.redis.zadd(bench.key("due", "watch"), {id: 1})
        bench.upkeep.turn()
        assert named(bench) == {id}
    bench.gateway.repair(id)
    assert bench.state(id) == ended
    bench.deliver(id)
    assert provider.calls == []
    assert bench.ledger.counts()[ended] == 1


@pytest.mark.parametrize("value", ["not JSON", "[]", '{"dst":"1555","body":5}', b"\xff", "list"])
def test_a_report_of_a_part_of_a_damaged_message_is_recorded(bench: Bench, value: Any) -> None:
    bench.add("a")
    bench.listen()
    id = bench.send(status_report=True)
    bench.deliver(id)
    if value == "list":
        overwrite(bench, bench.key("msg", id), "list")
    else:
        damage(bench, "msg", id, "data", value)
    bench.report("delivered", reference=f"{id}.1", msgid="p1", of_part=True)
    for event in bench.events():  # nobody can tell any more to which message it belongs
        bench.ripe_event(event)
    bench.run_hooks()
    assert [status.msgid for status in bench.heard] == ["p1"]


@pytest.mark.parametrize("field", ["wait_queue", "checked_at"])
def test_a_message_that_lost_its_place_in_a_line_goes_out(bench: Bench, field: str) -> None:
    provider = bench.add("a")
    bench.fail_in_a_row(provider, exc.ConnectionError("refused"))
    id = bench.send_by("a")
    bench.deliver(id)
    assert bench.field(id, "waiting_for") == "a"
    damage(bench, "msg", id, field, None)
    bench.unpause("a")
    work(bench)
    assert bench.upkeep.failing == {}
    assert bench.state(id) == "sent"


def test_a_message_that_is_bound_to_a_provider_for_no_known_time_is_unknown(bench: Bench) -> None:
    provider = bench.add("a", exc.ConnectionError("refused"))
    id = bench.send_by("a")
    bench.deliver(id)
    damage(bench, "msg", id, "pin", "a")
    bench.ripe(id)
    assert bench.deliver(id).state == "unknown"
    assert bench.state(id) == "unknown"
    assert len(provider.calls) == 1


def test_a_message_at_its_provider_whose_mark_of_the_call_is_lost_is_unknown(bench: Bench) -> None:
    a = bench.add("a")
    id = bench.send()
    bench.ledger.claim(id, "token", lease=60.0, worker="dies")
    assert bench.ledger.begin(id, "token", "a", lease=60.0, attempt=1) == AttemptBegun(1)
    bench.redis.hdel(bench.key("msg", id), "calling")
    bench.lapse(id)
    assert bench.state(id) == "unknown"
    bench.ripe(id)
    bench.deliver(id)
    assert a.calls == []
