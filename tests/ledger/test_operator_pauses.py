"""Pauses by operators: of a provider, of a tag, of everything."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from smsqueue import Gateway, OutgoingMessage, exc
from smsqueue.ledger import AttemptOutcome, Claimed, Early, LookUp, NotClaimable, ProviderPaused
from smsqueue.message.ids import new_token
from tests.ledger.bench import Bench


def _claim(bench: Bench, id: str, **arguments: Any) -> Any:
    return bench.ledger.claim(id, new_token(), lease=60, worker="w", **arguments)


def _end(bench: Bench, scope: str) -> None:
    """The time of a pause is over."""
    kind, _, name = scope.partition(":")
    if kind == "provider":
        bench.redis.hset(bench.key("pause", name), mapping={"ends": 1, "until": 1})
    else:
        text: Any = bench.redis.hget(bench.key("held"), scope)
        bench.redis.hset(bench.key("held"), scope, "1 " + text.partition(" ")[2])
    assert bench.redis.zadd(bench.key("due", "release"), {scope: 1}, xx=True, ch=True)


def _taken(bench: Bench, lane: str = "send", quota: int = 100) -> list[str]:
    """The ids that upkeep would publish now."""
    bench.drain()
    return [id for id, _ in bench.ledger.take_due(lane, quota, per_trigger=100).due]


def _left(bench: Bench) -> set[str]:
    """The keys of pauses."""
    keys = bench.keys()
    return {key for key in keys if key.startswith(("held", "release", "due:release"))}


def _deliver_due(bench: Bench) -> None:
    assert _taken(bench, "ask") == []
    for id in _taken(bench):
        bench.deliver(id)


SCOPES = [{"tag": "sale"}, {"everything": True}, {"provider": "a"}]
NAMES = ["tag:sale", "all", "provider:a"]


@pytest.mark.parametrize(("what", "scope"), [*zip(SCOPES, NAMES, strict=True)], ids=NAMES)
def test_what_is_paused_waits_until_it_is_resumed(
    bench: Bench, what: dict[str, Any], scope: str
) -> None:
    provider = bench.add("a")
    bench.gateway.pause(**what, reason="wrong price", by="alice")
    ids = [bench.send(tag=["x", "sale"]) for _ in range(3)]
    for id in ids:
        bench.deliver(id)
    assert [bench.state(id) for id in ids] == ["queued"] * 3
    assert _taken(bench) == []
    if what != {"provider": "a"}:
        assert isinstance(_claim(bench, ids[0]), Early)
    (pause,) = bench.gateway.pauses()
    assert (pause.scope, pause.by, pause.reason) == (scope, "alice", "wrong price")
    assert (pause.until, pause.waiting) == (None, 3)
    assert bench.ledger.pause_of(ids[0]) == pause
    assert bench.gateway.resume(**what, by="bob")
    assert not bench.gateway.resume(**what, by="bob")
    _deliver_due(bench)
    assert [bench.state(id) for id in ids] == ["sent"] * 3
    assert len(provider.calls) == 3
    assert [bench.record(id).attempts for id in ids] == [1] * 3
    assert [bench.tries(id) for id in ids] == [0] * 3
    resumed, paused = bench.gateway.audit()
    assert (paused.action, paused.by, paused.result) == ("pause", "alice", "done")
    assert (resumed.action, resumed.by, resumed.done, resumed.refused) == ("resume", "bob", 3, 1)
    assert _left(bench) == set()


@pytest.mark.parametrize(("what", "scope"), [*zip(SCOPES, NAMES, strict=True)], ids=NAMES)
def test_a_pause_ends_by_itself(bench: Bench, what: dict[str, Any], scope: str) -> None:
    bench.add("a")
    bench.gateway.pause(**what, length=timedelta(hours=2))
    id = bench.send(tag="sale")
    bench.deliver(id)
    assert (bench.state(id), _taken(bench)) == ("queued", [])
    (pause,) = bench.gateway.pauses()
    assert pause.until is not None
    assert timedelta(minutes=119) < pause.until - datetime.now(UTC) <= timedelta(hours=2)
    assert bench.ledger.has_due() is False
    _end(bench, scope)
    assert bench.ledger.has_due() is True
    _deliver_due(bench)
    assert (bench.state(id), bench.gateway.pauses()) == ("sent", [])
    assert _left(bench) == set()


def test_other_tags_and_providers_go_on(bench: Bench) -> None:
    bench.add("a")
    bench.add("b")
    bench.gateway.pause(tag="sale")
    bench.gateway.pause(provider="a")
    news, elsewhere = bench.send(tag="news"), bench.send_by("a", "b")
    held, waits = bench.send_by("a", "b", tag="sale"), bench.send_by("a")
    for id in (news, elsewhere, held, waits):
        bench.deliver(id)
    states = [bench.state(id) for id in (news, elsewhere, held, waits)]
    assert states == ["queued", "sent", "queued", "queued"]
    assert bench.record(elsewhere).provider == "b"


def test_what_is_claimed_and_not_begun_is_given_back(bench: Bench) -> None:
    bench.add("a")
    for what in SCOPES:
        id = bench.send(tag="sale")
        token = new_token()
        assert isinstance(bench.ledger.claim(id, token, lease=60, worker="w"), Claimed)
        bench.gateway.pause(**what)
        begun = bench.ledger.begin(id, token, "a", lease=60, attempt=1)
        assert isinstance(begun, ProviderPaused)
        waiting = AttemptOutcome("wait", delay_ms=0, waiting_for="a", wait_queue="single")
        bench.ledger.settle(id, token, 0, waiting)
        assert bench.state(id) == "queued"
        assert _taken(bench) == []
        assert bench.gateway.resume(**what)
        assert id in _taken(bench)
        assert bench.gateway.cancel(id)


def test_a_call_in_flight_is_finished_and_ends_no_pause(bench: Bench) -> None:
    provider = bench.add("a")
    provider.then(lambda _: bench.gateway.pause(everything=True))
    provider.then(lambda _: bench.gateway.pause(provider="a"))
    first = bench.send()
    bench.deliver(first)
    bench.gateway.resume(everything=True)
    second = bench.send()
    bench.deliver(second)
    assert (bench.state(first), bench.state(second)) == ("sent", "sent")
    assert [pause.scope for pause in bench.gateway.pauses()] == ["provider:a"]


def test_the_next_provider_is_not_called_once_the_tag_is_paused(bench: Bench) -> None:
    def refuse(_: OutgoingMessage) -> None:
        bench.gateway.pause(tag="sale")
        raise exc.ServerError("down")

    bench.add("a", refuse)
    other = bench.add("b")
    id = bench.send_by("a", "b", tag="sale")
    bench.deliver(id)
    assert (bench.state(id), other.calls) == ("retrying", [])
    bench.ripe(id)
    bench.redis.zadd(bench.key("due", "send"), {id: 1})
    assert _taken(bench) == []
    bench.gateway.resume(tag="sale")
    _deliver_due(bench)
    assert bench.state(id) == "sent"


def test_a_validity_that_ends_meanwhile_ends_as_expired(bench: Bench) -> None:
    bench.add("a")
    for what in SCOPES:
        bench.gateway.pause(**what)
        id = bench.send(tag="sale", expires=5)
        bench.deliver(id)
        assert (bench.look("send", id) or 0) <= bench.now() + 300_000
        bench.outdated(id)
        bench.redis.zadd(bench.key("due", "send"), {id: 1})
        assert _taken(bench) == [id]
        bench.deliver(id)
        assert bench.state(id) == "expired"
        assert [pause.waiting for pause in bench.gateway.pauses()] in ([0], [1])
        bench.gateway.resume(**what)
        assert _taken(bench) == []


def test_scheduled_messages_and_look_ups_wait(bench: Bench) -> None:
    bench.add("a")
    later = datetime.now(UTC) + timedelta(hours=1)
    scheduled, unknown = bench.send(tag="sale", send_at=later), bench.send(tag="sale")
    token = new_token()
    bench.ledger.claim(unknown, token, lease=60, worker="w")
    bench.ledger.begin(unknown, token, "a", lease=60, attempt=1)
    bench.ledger.settle(unknown, token, 1, AttemptOutcome("unknown", "a", event="e"))
    for what in SCOPES[:2]:
        bench.gateway.pause(**what)
        bench.redis.zadd(bench.key("due", "ask"), {unknown: 1})
        bench.redis.zadd(bench.key("due", "send"), {scheduled: 1})
        bench.ripe(scheduled)
        assert (_taken(bench), _taken(bench, "ask")) == ([], [])
        assert bench.gateway.pauses()[0].waiting == 2
        bench.gateway.resume(**what)
        assert _taken(bench) == [scheduled]
        assert _taken(bench, "ask") == [unknown]
        # A worker has its trigger already.
        bench.gateway.pause(**what)
        assert isinstance(_claim(bench, unknown), NotClaimable)
        assert bench.gateway.pauses()[0].waiting == 1
        bench.gateway.resume(**what)
        assert _taken(bench, "ask") == [unknown]
        assert isinstance(_claim(bench, unknown), LookUp)


def test_resuming_lifts_a_pause_that_the_provider_asked_for(bench: Bench) -> None:
    provider = bench.add("a", exc.LimitsError("slow down", retry_after=600))
    ids = [bench.send() for _ in range(3)]
    for id in ids:
        bench.deliver(id)
    assert (len(provider.calls), _taken(bench)) == (1, [])
    assert bench.gateway.resume(provider="a")
    assert bench.ledger.pauses() == []
    assert _taken(bench) == ids[1:]
    for id in ids[1:]:
        bench.deliver(id)
    assert [bench.state(id) for id in ids] == ["retrying", "sent", "sent"]


def test_a_pause_that_the_provider_asked_for_outlives_an_operators(bench: Bench) -> None:
    provider = bench.add("a", exc.LimitsError("slow down", retry_after=600))
    bench.deliver(bench.send())
    bench.gateway.pause(provider="a", length=60)
    _end(bench, "provider:a")
    assert _taken(bench) == []
    (pause,) = bench.ledger.pauses()
    assert pause.operator is None
    assert pause.left > 500
    bench.deliver(bench.send())
    assert len(provider.calls) == 1


def test_a_message_with_two_paused_tags_waits_for_both(bench: Bench) -> None:
    bench.add("a")
    for tag in ("x", "y"):
        bench.gateway.pause(tag=tag)
    id = bench.send(tag=["x", "y"])
    bench.deliver(id)
    bench.gateway.resume(tag="x")
    assert _taken(bench) == []
    assert [(pause.scope, pause.waiting) for pause in bench.gateway.pauses()] == [("tag:y", 1)]
    bench.gateway.resume(tag="y")
    assert _taken(bench) == [id]


def test_a_second_pause_replaces_the_first(bench: Bench) -> None:
    bench.add("a")
    for what, scope in zip(SCOPES, NAMES, strict=True):
        bench.gateway.pause(**what, length=60, by="alice")
        bench.gateway.pause(**what, by="bob")
        (pause,) = bench.gateway.pauses()
        assert (pause.by, pause.until) == ("bob", None)
        bench.redis.zadd(bench.key("due", "release"), {scope: 1})
        id = bench.send(tag="sale")
        bench.deliver(id)
        assert (_taken(bench), bench.state(id)) == ([], "queued")
        bench.gateway.resume(**what)
        assert bench.gateway.cancel(id)


@pytest.mark.parametrize("end", ["cancel", "old"])
def test_what_is_cancelled_waits_no_longer(bench: Bench, end: str) -> None:
    bench.add("a")
    bench.gateway.pause(tag="sale")
    gone, kept = bench.send(tag="sale"), bench.send(tag="sale")
    for id in (gone, kept):
        bench.deliver(id)
    if end == "cancel":
        bench.gateway.cancel(gone)
        assert bench.gateway.pauses()[0].waiting == 1
    else:  # a worker of an older version does not know that it was held
        bench.redis.hset(bench.key("msg", gone), "state", "failed")
    bench.gateway.resume(tag="sale")
    assert _taken(bench) == [kept]


def test_many_that_are_held_are_not_read_again(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(watermark=10_000, bulk_watermark=10_000)
    bench.add("a")
    assert _taken(bench) == []  # bulk has a lane of its own from now on
    bench.gateway.pause(tag="sale")
    messages = [OutgoingMessage("1555", str(n)).options(tag="sale") for n in range(640)]
    bench.gateway.send_many(messages)
    for lane in ("send", "send_bulk"):
        for id in bench.redis.zrange(bench.key("due", lane), 0, -1):
            bench.redis.zadd(bench.key("due", lane), {id: 1})
    other = bench.send(tag="news")
    bench.redis.zadd(bench.key("due", "send"), {other: 2})
    while not (taken := _taken(bench)):
        pass
    assert taken == [other]
    while bench.gateway.pauses()[0].waiting < 640:
        assert _taken(bench) == []
    assert bench.ledger.has_due() is False
    before = _calls(bench)
    for _ in range(10):
        assert _taken(bench) == []
    assert _calls(bench) - before < 300


def _calls(bench: Bench) -> int:
    """Commands that Redis has run, those of scripts included."""
    stats: Any = bench.redis.info("commandstats")
    return sum(each["calls"] for each in stats.values())


def test_a_resumed_campaign_shares_with_others_and_keeps_its_order(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(watermark=10_000, bulk_watermark=10_000)
    bench.add("a")
    assert _taken(bench) == []  # bulk has a lane of its own from now on
    bench.gateway.pause(tag="sale")
    sale = [OutgoingMessage("1555", str(n)).options(tag="sale") for n in range(200)]
    bench.gateway.send_many(sale)
    single = bench.send(tag="sale")
    ids = [message.id or "" for message in sale]
    for id in (*ids, single):
        bench.deliver(id)
    held: list[str] = bench.redis.zrange(bench.key("held", "send_bulk", "tag:sale"), 0, -1)
    news = [OutgoingMessage("1555", str(n)).options(tag="news") for n in range(200)]
    bench.gateway.send_many(news)
    others = [message.id or "" for message in news]
    bench.redis.zadd(bench.key("due", "send_bulk"), {id: 1000 + n for n, id in enumerate(others)})
    bench.gateway.resume(tag="sale")
    taken: list[str] = []
    while part := _taken(bench):
        taken += part
    assert taken[0] == single
    assert [id for id in taken if id in ids] == held
    assert [id for id in taken if id in others] == others
    assert 45 <= sum(id in ids for id in taken[:100]) <= 55


def test_the_pause_of_a_provider_is_prolonged_for_older_workers(bench: Bench) -> None:
    """They read ``until`` only, and put a message off until then."""
    bench.add("a")
    bench.gateway.pause(provider="a", length=timedelta(days=3))
    pause = bench.key("pause", "a")
    until = int(float(str(bench.redis.hget(pause, "until"))))
    assert 3_500_000 < until - bench.now() <= 3_600_000
    bench.redis.hset(pause, "until", bench.now() + 1000)
    bench.redis.zadd(bench.key("due", "release"), {"provider:a": 1})
    assert _taken(bench) == []
    assert int(float(str(bench.redis.hget(pause, "until")))) > bench.now() + 3_500_000
    # One that was put off until then by an older worker.
    id = bench.send()
    bench.redis.hset(bench.key("msg", id), mapping={"behind": "a", "line": "single", "looked": 1})
    bench.redis.zadd(bench.key("due", "send"), {id: until})
    scheduled = bench.send(send_at=datetime.now(UTC) + timedelta(minutes=5))
    bench.gateway.resume(provider="a")
    assert _taken(bench) == [id]
    assert scheduled not in _taken(bench)


def test_wrong_arguments(gateway: Gateway) -> None:
    for wrong in ({}, {"tag": "x", "everything": True}, {"tag": "a b"}, {"provider": "a/b"}):
        with pytest.raises(ValueError, match=r"what\?|tag|provider"):
            gateway.pause(**wrong)  # type: ignore[arg-type]
    past = datetime.now(UTC) - timedelta(seconds=1)
    with pytest.raises(ValueError, match="in the past"):
        gateway.pause(tag="x", until=past)
    with pytest.raises(ValueError, match="time zone"):
        gateway.pause(tag="x", until=datetime(2030, 1, 1))  # noqa: DTZ001
    with pytest.raises(ValueError, match="more than 0"):
        gateway.pause(tag="x", length=0)
    with pytest.raises(ValueError, match="one line"):
        gateway.pause(tag="x", reason="a\nb")
    for n in range(100):
        gateway.pause(tag=f"t{n}")
    with pytest.raises(ValueError, match="100 tags"):
        gateway.pause(tag="x")
    gateway.pause(tag="t5", reason="again")


def test_damaged_pauses_stop_nothing_else(bench: Bench) -> None:
    bench.add("a")
    bench.gateway.pause(tag="sale")
    held = bench.send(tag="sale")
    bench.deliver(held)
    bench.redis.hset(bench.key("held"), "tag:news", "no number")
    bench.redis.hset(bench.key("held"), "tag:x", '0 {"by"')
    news = bench.send(tag="news")
    bench.deliver(news)
    assert bench.state(news) == "sent"
    assert [pause.scope for pause in bench.gateway.pauses()] == ["tag:sale"]
    bench.redis.set(bench.key("held", "send", "tag:sale"), "text")
    bench.gateway.resume(tag="sale")
    assert _taken(bench) == []
    bench.redis.zadd(bench.key("due", "send"), {held: 1})  # it is looked at within an hour
    assert _taken(bench) == [held]
    bench.redis.set(bench.key("due", "release"), "text")
    bench.redis.delete(bench.key("held"))
    bench.redis.set(bench.key("held"), "text")
    assert isinstance(_claim(bench, held), Claimed)
    assert not isinstance(_claim(bench, bench.send()), Early)


def test_a_call_after_the_end_of_a_pause_leaves_it_to_upkeep_to_release_what_waited(
    bench: Bench,
) -> None:
    bench.add("a")
    bench.gateway.pause(provider="a", by="alice")
    waiting = bench.send()
    bench.deliver(waiting)
    _end(bench, "provider:a")
    bench.deliver(bench.send())  # it succeeds before upkeep has seen that the pause is over
    assert waiting in _taken(bench)
