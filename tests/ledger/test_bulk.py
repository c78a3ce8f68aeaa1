"""Operations on everything that matches: cancel_all, requeue_all, settle_all, replay_all."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from smsqueue import IncomingMessage, OutgoingMessage
from smsqueue.ledger import AttemptOutcome, BulkStep
from smsqueue.message.states import State
from tests.ledger.bench import Bench, Told

#: More than one step examines.
MANY = 450


@pytest.fixture
def provider(bench: Bench) -> Told:
    return bench.add("a")


def campaign(bench: Bench, number: int = MANY, **options: Any) -> list[str]:
    """Messages of one send_many."""
    sent = bench.gateway.send_many(
        OutgoingMessage(f"1555{n:07}", "20 % off").options(**options) for n in range(number)
    )
    return [message.id or "" for message in sent]


def fail(bench: Bench, id: str, error: str = "ServerError", code: str | None = None) -> str:
    """Have a message fail at its first attempt."""
    bench.ledger.claim(id, "t", lease=60, worker="w")
    bench.ledger.begin(id, "t", "a", lease=60, attempt=1)
    failed = AttemptOutcome("failed", "a", error=error, code=code, event=f"failed-{id}")
    bench.ledger.settle(id, "t", 1, failed)
    return id


def changed(steps: list[BulkStep]) -> list[str]:
    return [change.id for step in steps for change in step.changes if change.now]


def ids_in(bench: Bench, state: State) -> set[str]:
    return set(bench.ledger.ids_in(state, 10 * MANY))


def test_all_that_wait_are_cancelled_and_each_handler_hears_once(
    bench: Bench, provider: Told
) -> None:
    bench.listen()
    ids = campaign(bench)
    later = bench.send(send_at=datetime.now(UTC) + timedelta(hours=1))
    sending = bench.send()
    bench.ledger.claim(sending, "t", lease=60, worker="w")
    steps: list[BulkStep] = []
    result = bench.gateway.cancel_all(
        before=datetime.now(UTC) + timedelta(minutes=1), on_step=steps.append
    )
    assert result.done == {"queued": MANY, "scheduled": 1}
    assert result.not_done == {"sending": 1}
    assert sorted(changed(steps)) == sorted([*ids, later])
    assert len(steps) > 1
    assert ids_in(bench, State.CANCELLED) == {*ids, later}
    assert bench.state(sending) == "sending"
    assert not bench.due() & set(ids)
    # The command published nothing: upkeep does, even if the command had died.
    assert bench.published(bench.settings.hook_key) == 0
    assert bench.ledger.backlog()["hook"].due == MANY + 1
    bench.run_hooks()
    assert sorted(status.id or "" for status in bench.heard) == sorted([*ids, later])
    assert {status.status for status in bench.heard} == {"cancelled"}


def test_a_dry_run_counts_exactly_and_changes_nothing(bench: Bench, provider: Told) -> None:
    campaign(bench, 3)
    failed = [fail(bench, id) for id in campaign(bench, 5)]
    bench.gateway.cancel(failed[0])
    before = bench.ledger.counts(), bench.due(), [bench.record(id).timeline for id in failed]
    arguments: dict[str, Any] = {"state": ["failed", "cancelled"]}
    counted = bench.gateway.requeue_all(dry_run=True, **arguments)
    assert (counted.dry_run, counted.done, counted.not_done) == (True, {"failed": 5}, {})
    after = bench.ledger.counts(), bench.due(), [bench.record(id).timeline for id in failed]
    assert after == before
    assert bench.gateway.requeue_all(**arguments).done == counted.done
    assert ids_in(bench, State.QUEUED) >= set(failed)


def test_a_damaged_record_is_set_aside_and_the_others_go_on(bench: Bench) -> None:
    ids = campaign(bench, 30)
    bench.redis.hset(bench.key("msg", ids[7]), "timeline", "[")
    bench.redis.delete(bench.key("msg", ids[20]))
    bench.redis.set(bench.key("msg", ids[20]), "another program's")
    dry = bench.gateway.cancel_all(state="queued", dry_run=True)
    assert (dry.number, dry.not_done, bench.ledger.damaged()) == (28, {"damaged": 2}, [])
    steps: list[BulkStep] = []
    result = bench.gateway.cancel_all(state="queued", on_step=steps.append)
    assert (result.number, result.not_done) == (28, {"damaged": 2})
    failures = {failure.id: failure.cause for step in steps for failure in step.failures}
    assert failures == {
        ids[7]: "timeline is not a JSON list of lines",
        ids[20]: "it is a string in Redis, not a hash",
    }
    assert {damaged.id for damaged in bench.ledger.damaged()} == {ids[7], ids[20]}
    assert bench.ledger.counts()["cancelled"] == 28


def test_filters_select_as_the_list_does(bench: Bench, provider: Told) -> None:
    """Errors that were overcome, reported codes, earlier sendings: as a record shows them."""
    bench.add("b")
    fail(bench, bench.send(), "RequestError", "7")
    requeued = fail(bench, bench.send(), "AuthError")
    bench.gateway.requeue(requeued)
    bench.ledger.claim(requeued, "u", lease=60, worker="w")
    bench.ledger.begin(requeued, "u", "b", lease=60, attempt=2)
    unknown = AttemptOutcome("unknown", "b", error="ConnectionError")
    bench.ledger.settle(requeued, "u", 2, unknown)
    again = fail(bench, bench.send(), "CreditError", "7")
    bench.gateway.requeue(again)
    for state, code in (("undelivered", "30003"), ("expired", None)):
        id = bench.send(status_report=True)
        bench.deliver(id)
        bench.report(state, msgid=bench.record(id).msgid, reference=f"{id}.1", code=code)
    settled = fail(bench, bench.send(), "LimitsError", "9")
    bench.gateway.requeue(settled)
    bench.deliver(settled)
    possible = [State.FAILED, State.EXPIRED, State.UNDELIVERED, State.UNKNOWN, State.CANCELLED]
    errors = ["7", "9", "30003", "AuthError", "ConnectionError", "CreditError", "LimitsError"]
    for error in (None, *errors, "none"):
        for name in (None, "a", "b"):
            filters: Any = {"error": error, "provider": name}
            listed = [r.id for r in bench.ledger.select(possible, **filters)]
            steps: list[BulkStep] = []
            filters = {key: value for key, value in filters.items() if value}
            bench.gateway.requeue_all(state=possible, dry_run=True, on_step=steps.append, **filters)
            assert changed(steps) == listed, filters
    assert listed == []


def test_a_tag_and_a_number_select_in_whichever_index_is_shorter(bench: Bench) -> None:
    tagged = campaign(bench, 20, tag=["sale", "spring"])
    others = [*campaign(bench, 5, tag="sale"), *campaign(bench, 5)]
    cancelled = bench.gateway.cancel_all(tag=["sale", "spring"], limit=5)
    assert cancelled.done == {"queued": 5}
    assert ids_in(bench, State.CANCELLED) < set(tagged)
    assert bench.gateway.cancel_all(tag=["spring"]).number == 15
    assert ids_in(bench, State.CANCELLED) == set(tagged)
    one = bench.send(dst="15559999999")
    assert bench.gateway.cancel_all(number="+1 555 999 9999").number == 1
    assert bench.state(one) == "cancelled"
    # All records that are cancelled have the tag, but of those with the number only one has it.
    assert bench.gateway.requeue_all(
        state="cancelled", tag="spring", number="15550000003"
    ).done == {"cancelled": 1}
    assert bench.state(tagged[3]) == "queued"
    assert all(bench.state(id) == "queued" for id in others)


def test_a_run_that_is_interrupted_goes_on_where_it_stopped(bench: Bench) -> None:
    ids = campaign(bench)

    def interrupt(step: BulkStep) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.gateway.cancel_all(state="queued", on_step=interrupt)
    before = ids_in(bench, State.CANCELLED)
    assert 0 < len(before) < MANY
    result = bench.gateway.cancel_all(state="queued")
    assert result.number == MANY - len(before)
    assert ids_in(bench, State.CANCELLED) == set(ids)
    assert len(bench.events("status")) == MANY


def test_messages_that_come_during_the_run_are_left_alone(bench: Bench, provider: Told) -> None:
    campaign(bench)
    came: list[str] = []

    def send(step: BulkStep) -> None:
        came.append(bench.send())
        # One that was sent again fails again: the run does not send it once more.
        came.extend(fail(bench, change.id) for change in step.changes[:1])

    began = datetime.fromtimestamp(bench.ledger.now(), UTC)
    bench.gateway.cancel_all(state="queued", on_step=send, before=began)
    for id in ids_in(bench, State.QUEUED):
        assert id in came
    assert len(ids_in(bench, State.QUEUED)) == len(
        [id for id in came if bench.state(id) == "queued"]
    )


def test_many_that_are_sent_again_let_single_messages_go_first(
    bench: Bench, provider: Told
) -> None:
    ids = [bench.send() for _ in range(30)]
    bench.gateway.cancel_all(ids=ids)
    result = bench.gateway.requeue_all(10, state="cancelled")
    assert result.done == {"cancelled": 30}
    bench.drain()
    bench.upkeep.turn()  # it knows the lanes now
    for id in ids:
        assert bench.field(id, "bulk") == "1"
        assert bench.ledger.expires(id) is not None


def test_ids_are_taken_as_they_come(bench: Bench) -> None:
    """Nothing reads all of them first."""
    ids, taken = campaign(bench, 300), 0

    def stream() -> Iterator[str]:
        nonlocal taken
        for id in [*ids, "gone"]:
            taken += 1
            yield id

    ahead: list[int] = []
    done = 0

    def look(step: BulkStep) -> None:
        nonlocal done
        done += len(step.changes)
        ahead.append(taken - done)

    result = bench.gateway.cancel_all(ids=stream(), on_step=look)
    assert (result.done, result.not_done) == ({"queued": 300}, {"gone": 1})
    assert max(ahead) <= 64


def test_settle_all_and_replay_all(bench: Bench, provider: Told) -> None:
    ids = campaign(bench, 3)
    for id in ids:
        bench.ledger.claim(id, "t", lease=60, worker="w")
        bench.ledger.begin(id, "t", "a", lease=60, attempt=1)
        bench.ledger.settle(id, "t", 1, AttemptOutcome("unknown", "a"))
    assert bench.gateway.settle_all("sent", provider="b").number == 0
    assert bench.gateway.settle_all("sent", provider="a").done == {"unknown": 3}
    assert {bench.state(id) for id in ids} == {"sent"}


def test_dead_events_of_a_provider_are_replayed(bench: Bench) -> None:
    heard: list[str] = []
    bench.gateway.onReceive.connect(lambda message: heard.append(message.body), name="listen")
    for provider in ("a", "a", "b"):
        message = IncomingMessage("15551234567", f"of {provider}", len(bench.events()))
        message.provider = provider
        _, event = bench.ledger.receive(message, repeats=False)
        bench.ledger.claim_event(event, "t", "w")
        bench.ledger.settle_event(event, "t", "dead", delay=0, why="a bug")
    assert bench.gateway.replay_all(state=["dead", "unheard"], provider="a").done == {"dead": 2}
    bench.run_hooks()
    assert heard == ["of a", "of a"]
    assert bench.ledger.counts()["dead"] == 1


def test_ambiguous_calls_are_refused(bench: Bench) -> None:
    campaign(bench, 1)
    gateway = bench.gateway
    calls: list[tuple[Any, str]] = [
        (lambda: gateway.cancel_all(), "which ones"),
        (lambda: gateway.cancel_all(limit=5), "which ones"),
        (lambda: gateway.requeue_all(provider="a"), "need state"),
        (lambda: gateway.cancel_all(state="failed"), "not possible in state 'failed'"),
        (lambda: gateway.settle_all("failed", state="unknown"), "cannot be settled"),
        (lambda: gateway.cancel_all(ids=["a"], state="queued"), "not both"),
        (lambda: gateway.cancel_all(tag="a b"), "tag"),
    ]
    for call, text in calls:
        with pytest.raises(ValueError, match=text):
            call()
    assert bench.ledger.counts()["queued"] == 1
