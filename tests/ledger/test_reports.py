"""Delivery reports: facts that come in any order, early, late and doubled, with one outcome."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from smsqueue import IncomingMessage, OutgoingMessage, exc
from smsqueue.message.statuses import MessageDelivered
from tests.ledger.bench import Bench, Told

RANK = ["sent", "accepted", "expired", "undelivered", "delivered"]
REPORTS = RANK[1:]
#: Every subset that could come, in every order.
ORDERS = [
    order for n in range(1, 5) for some in itertools.combinations(REPORTS, n)
    for order in itertools.permutations(some)
]  # fmt: skip


@pytest.fixture
def provider(bench: Bench) -> Told:
    return bench.add("a")


def _msgid(bench: Bench, id: str) -> str:
    return str(bench.record(id).msgid)


@pytest.mark.parametrize("by", ["reference", "msgid"])
def test_every_order_of_reports_ends_the_same(bench: Bench, provider: Told, by: str) -> None:
    for order in ORDERS:
        id = bench.send(status_report=True)
        bench.deliver(id)
        known = {"reference": f"{id}.1"} if by == "reference" else {"msgid": _msgid(bench, id)}
        best = 0
        for state in order:
            bench.report(state, **known)
            best = max(best, RANK.index(state))
            assert bench.state(id) == RANK[best], order  # never backwards on the way
            bench.report(state, **known)
            assert bench.state(id) == RANK[best], order


@pytest.mark.parametrize("by", ["reference", "msgid"])
def test_reports_before_the_settle_end_the_same(bench: Bench, provider: Told, by: str) -> None:
    for order in ORDERS:
        best = max(order, key=RANK.index)
        for early in range(1, len(order) + 1):
            id = bench.send(status_report=True)
            before, after = order[:early], order[early:]
            msgid = f"early-{id}"

            def known(id: str = id, msgid: str = msgid) -> dict[str, str]:
                return {"reference": f"{id}.1"} if by == "reference" else {"msgid": msgid}

            def meanwhile(
                message: object, before: tuple[str, ...] = before,
                known: Callable[[], dict[str, str]] = known, msgid: str = msgid,
            ) -> None:  # fmt: skip
                message.msgid = msgid  # type: ignore[attr-defined]
                for state in before * 2:
                    bench.report(state, **known())

            provider.then(meanwhile)
            bench.deliver(id)
            assert bench.state(id) == max(before, key=RANK.index), (before, after)
            for state in after * 2:
                bench.report(state, **known())
            assert bench.state(id) == best, (before, after)
            if best != "accepted":
                assert id not in bench.due()


@pytest.mark.parametrize("state", REPORTS)
def test_a_report_settles_an_unknown_message(bench: Bench, provider: Told, state: str) -> None:
    provider.then(exc.ServerError(ambiguous=True))
    id = bench.send(status_report=True)
    bench.deliver(id)
    assert bench.state(id) == "unknown"
    bench.report(state, reference=f"{id}.1")
    assert bench.state(id) == state


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("state", REPORTS)
def test_a_report_finds_an_unknown_message_by_an_id_that_was_made_before_the_call(
    bench: Bench, provider: Told, state: str, early: bool
) -> None:
    def lose(message: OutgoingMessage) -> None:
        message.msgid = "4711"
        if early:
            bench.report(state, msgid="4711")
        raise exc.ServerError(ambiguous=True)

    provider.then(lose)
    heard = bench.listen()
    id = bench.send(status_report=True)
    bench.deliver(id)
    if not early:
        assert bench.state(id) == "unknown"
        bench.report(state, msgid="4711")
    assert bench.state(id) == state
    bench.run_hooks()
    assert [status.id for status in heard] == [id]


def test_an_id_is_that_of_the_provider_that_is_called(bench: Bench, provider: Told) -> None:
    def refuse(message: OutgoingMessage) -> None:
        message.msgid = "4711"
        raise exc.ServerError()

    provider.then(refuse)
    bench.add("b", exc.ServerError(ambiguous=True))
    id = bench.send_by("a", "b", status_report=True)
    bench.deliver(id)
    assert bench.state(id) == "unknown"
    bench.report("delivered", msgid="4711", provider="b")
    assert bench.state(id) == "unknown"


@pytest.mark.parametrize("state", REPORTS)
def test_a_report_outranks_a_message_that_was_given_up(
    bench: Bench, provider: Told, state: str
) -> None:
    provider.then(exc.RequestError())
    id = bench.send()
    bench.deliver(id)
    bench.report(state, reference=f"{id}.1")
    assert bench.state(id) == state


def test_a_report_of_success_ends_a_retry(bench: Bench, provider: Told) -> None:
    for state in ("accepted", "delivered"):
        provider.then(exc.ServerError())
        id = bench.send()
        bench.deliver(id)
        assert bench.state(id) == "retrying"
        bench.report(state, reference=f"{id}.1")
        bench.ripe(id)
        assert bench.deliver(id).state == bench.state(id) == state
        assert len(provider.calls) == 1
        provider.calls.clear()


def test_a_report_of_failure_does_not_end_a_retry(bench: Bench, provider: Told) -> None:
    provider.then(exc.ServerError())
    id = bench.send()
    bench.deliver(id)
    bench.report("undelivered", reference=f"{id}.1")
    assert bench.state(id) == "retrying"
    bench.ripe(id)
    bench.deliver(id)
    assert len(provider.calls) == 2
    bench.report("delivered", reference=f"{id}.2")
    assert bench.state(id) == "delivered"


@pytest.mark.parametrize("verdict", [None, exc.ServerError(), exc.RequestError(), RuntimeError()])
def test_a_delivery_during_the_call_wins(
    bench: Bench, provider: Told, verdict: Exception | None
) -> None:
    def meanwhile(message: object) -> None:
        bench.report("delivered", reference=provider.calls[-1])
        if verdict is not None:
            raise verdict

    provider.then(meanwhile)
    id = bench.send()
    bench.deliver(id)
    assert bench.state(id) == "delivered"
    assert id not in bench.due()


def test_a_report_that_says_no_more_than_the_state_does_not_begin_the_state_anew(
    bench: Bench, provider: Told
) -> None:
    """One of two parts was delivered: the message is still sent, since when it was, and its reports
    are awaited no longer than before."""

    def take(message: OutgoingMessage) -> None:
        message.msgid = ["p1", "p2"]

    provider.then(take)
    id = bench.send("x" * 200, status_report=True)
    bench.deliver(id)
    times = {bench.key("state", "sent"): 1, bench.key("due", "watch"): bench.now() + 1000}
    for index, time in times.items():
        assert bench.redis.zadd(index, {id: time}, xx=True, ch=True) == 1
    bench.report("delivered", msgid="p1", of_part=True)
    assert bench.state(id) == "sent"
    assert {index: bench.redis.zscore(index, id) for index in times} == times


def test_a_repeated_webhook_has_one_effect_and_one_event(bench: Bench, provider: Told) -> None:
    heard = bench.listen()
    id = bench.send(status_report=True, context={"n": 1})
    bench.deliver(id)
    for _ in range(3):
        bench.report("delivered", msgid=_msgid(bench, id), code="0")
    assert len(bench.events("status")) == 1
    bench.run_hooks()
    bench.report("delivered", msgid=_msgid(bench, id), code="0")
    bench.run_hooks()
    assert len(heard) == 1
    assert isinstance(heard[0], MessageDelivered)
    assert (heard[0].id, heard[0].context) == (id, {"n": 1})
    lines = [line for line in bench.record(id).timeline if line["state"] == "delivered"]
    assert [line.get("times") for line in lines] == [None]


def test_a_repetition_is_known_by_the_providers_own_id_if_there_is_one(
    bench: Bench, provider: Told
) -> None:
    bench.add("b")
    heard = bench.listen()
    id = bench.send(status_report=True)
    bench.deliver(id)
    msgid = _msgid(bench, id)
    bench.report("accepted", msgid=msgid, reference=f"{id}.1", event_id="E1")
    bench.report("accepted", msgid=msgid, event_id="E1")  # another way to us, the same report
    bench.report("accepted", msgid=msgid, code="1", event_id="E1")
    assert len(bench.events("status")) == 1
    bench.report("accepted", msgid=msgid, reference=f"{id}.1", event_id="E2")
    bench.report("accepted", msgid=msgid, event_id="E2", provider="b")  # its ids are its own
    assert len(bench.events("status")) == 3
    bench.run_hooks()
    assert [each.provider for each in heard] == ["a", "a"]  # nobody knows what the third is of


def test_reports_that_differ_are_each_heard(bench: Bench, provider: Told) -> None:
    heard = bench.listen()
    id = bench.send(status_report=True)
    bench.deliver(id)
    bench.report("undelivered", msgid=_msgid(bench, id), code="1")
    bench.report("undelivered", msgid=_msgid(bench, id), code="2")
    bench.report("accepted", msgid=_msgid(bench, id))
    bench.run_hooks()
    assert len(heard) == 3


def test_an_unmatched_report_is_parked_and_then_handled_without_a_message(
    bench: Bench, provider: Told
) -> None:
    heard = bench.listen()
    bench.report("delivered", msgid="strange")
    (event,) = bench.events()
    assert bench.ledger.counts()["parked"] == 1
    bench.run_hooks()
    assert heard == []
    bench.ripe_event(event)
    assert bench.hooks.run(event).state == "done"
    assert [(status.id, status.msgid, status.context) for status in heard] == [
        (None, "strange", {})
    ]
    assert bench.ledger.counts()["parked"] == 0


def test_a_parked_report_is_heard_matched_once_its_send_is_settled(
    bench: Bench, provider: Told
) -> None:
    heard = bench.listen()

    def meanwhile(message: object) -> None:
        message.msgid = "early"  # type: ignore[attr-defined]
        bench.report("delivered", msgid="early")
        assert bench.ledger.counts()["parked"] == 1

    provider.then(meanwhile)
    id = bench.send()
    bench.deliver(id)
    assert bench.published(bench.settings.hook_key) == 1
    assert bench.ledger.counts()["parked"] == 0
    bench.run_hooks()
    assert [status.id for status in heard] == [id]


def test_a_parked_report_counts_even_if_its_hook_ran_unmatched(
    bench: Bench, provider: Told
) -> None:
    """A slow provider's answer comes after the deadline of the report that overtook it."""
    heard = bench.listen()

    def meanwhile(message: object) -> None:
        message.msgid = "early"  # type: ignore[attr-defined]
        bench.report("delivered", msgid="early")
        (event,) = bench.events("status")
        bench.ripe_event(event)
        assert bench.hooks.run(event).state == "done"

    provider.then(meanwhile)
    id = bench.send()
    bench.deliver(id)
    assert bench.state(id) == "delivered"
    bench.run_hooks()
    assert [status.id for status in heard] == [None]


def test_reports_of_an_earlier_sending_count_only_if_they_delivered(
    bench: Bench, provider: Told
) -> None:
    provider.then(RuntimeError())
    id = bench.send()
    bench.deliver(id)
    assert bench.gateway.requeue(id)
    bench.deliver(id)
    assert bench.state(id) == "sent"
    for state in ("accepted", "expired", "undelivered"):
        bench.report(state, reference=f"{id}.1")
        assert bench.state(id) == "sent"
    bench.report("accepted", reference=f"{id}.2")
    assert bench.state(id) == "accepted"
    bench.report("delivered", reference=f"{id}.1")
    assert bench.state(id) == "delivered"


def test_a_reference_that_was_never_given_out_moves_nothing(bench: Bench, provider: Told) -> None:
    id = bench.send()
    bench.deliver(id)
    for reference in (f"{id}.0", f"{id}.2", f"{id}.99999999999", f"{id}.x", id, ".1", "", "x.1"):
        bench.report("delivered", reference=reference)
        assert bench.state(id) == "sent", reference


def test_the_same_provider_id_at_two_providers_is_two_messages(bench: Bench) -> None:
    def numbered(message: object) -> None:
        message.msgid = 7  # type: ignore[attr-defined]

    bench.add("a", numbered)
    bench.add("b", numbered)
    one, two = bench.send_by("a"), bench.send_by("b")
    bench.deliver(one)
    bench.deliver(two)
    bench.report("delivered", msgid="7", provider="b")
    assert (bench.state(one), bench.state(two)) == ("sent", "delivered")
    assert bench.record(one).msgid == 7  # as the provider typed it


def test_a_second_yes_is_not_swallowed(bench: Bench, provider: Told) -> None:
    texts: list[str] = []
    bench.gateway.onReceive.connect(lambda message: texts.append(message.body), name="texts")

    def receive(msgid: object, body: str = "YES") -> None:
        provider._receive_message(IncomingMessage("1555", body, msgid))

    receive("m1")
    receive("m1")  # a repeated webhook
    receive("m2")  # a genuine second answer
    bench.run_hooks()
    receive("m1")
    bench.run_hooks()
    assert texts == ["YES"] * 2
    for nothing in (None, ""):
        for _ in range(2):
            receive(nothing)
    bench.run_hooks()
    assert texts == ["YES"] * 6
    receive("m1", "NO")  # an id used again is another message
    bench.run_hooks()
    assert texts[-1] == "NO"


def test_half_a_character_does_not_refuse_a_webhook(bench: Bench, provider: Told) -> None:
    """JSON webhooks may hold one, if somebody on the way cut a text."""
    got: list[str] = []
    bench.gateway.onReceive.connect(lambda message: got.append(message.body), name="got")
    heard = bench.listen()
    provider._receive_message(IncomingMessage("1555", "yes \ud83d", "\ud83d"))
    bench.report("delivered", msgid="\ud83d", code="\ud83d", reference="\ud83d.1")
    for event in bench.events():
        bench.ripe_event(event)
    bench.run_hooks()
    assert [text[:4] for text in got] == ["yes "]
    assert len(heard) == 1
