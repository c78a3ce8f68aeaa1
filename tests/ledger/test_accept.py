"""Taking messages in: once per id and per key, with their times, and no more than Redis holds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from smsqueue import OutgoingMessage, exc
from smsqueue.message.ids import new_id
from smsqueue.message.statuses import MessageError, MessageExpired
from smsqueue.policy.destinations import Destinations
from tests.ledger.bench import Bench


def _at(bench: Bench, seconds: float) -> datetime:
    return datetime.fromtimestamp(bench.now() / 1000 + seconds, UTC)


def test_a_repeated_accept_gives_the_first_answer(bench: Bench) -> None:
    message, id = OutgoingMessage("1555", "hi"), new_id()
    first = bench.ledger.accept(message, id)
    assert first == ("accepted", id, True)
    assert bench.ledger.accept(message, id) == first
    assert bench.ledger.counts()["queued"] == 1
    assert len(bench.record(id).timeline) == 1


def test_a_repeated_accept_of_a_scheduled_message_does_not_publish_it(bench: Bench) -> None:
    message = OutgoingMessage("1555", "hi").options(send_at=_at(bench, 3600))
    id = new_id()
    first = bench.ledger.accept(message, id)
    assert first == ("accepted", id, False)
    assert bench.ledger.accept(message, id) == first


def test_a_repeated_accept_does_not_send_again_what_was_sent(bench: Bench) -> None:
    provider = bench.add("a")
    message, id = OutgoingMessage("1555", "hi"), new_id()
    bench.ledger.accept(message, id)
    bench.deliver(id)
    assert bench.ledger.accept(message, id).verdict == "accepted"
    bench.deliver(id)
    assert provider.calls == [f"{id}.1"]


def test_one_id_for_two_contents_is_a_conflict(bench: Bench) -> None:
    id = new_id()
    bench.ledger.accept(OutgoingMessage("1555", "hi"), id)
    answer = bench.ledger.accept(OutgoingMessage("1555", "another"), id)
    assert answer == ("conflict", id, False)
    assert bench.record(id).message.body == "hi"


def test_the_same_object_sent_twice_is_two_messages(bench: Bench) -> None:
    message = OutgoingMessage("1555", "hi")
    first = bench.gateway.send(message).id
    assert bench.gateway.send(message).id != first


def test_a_repeated_key_is_the_first_message(bench: Bench) -> None:
    provider = bench.add("a")
    first = bench.send(idempotency_key="k")
    again = bench.gateway.send(OutgoingMessage("15550001", "hello").options(idempotency_key="k"))
    assert (again.id, again.duplicate) == (first, True)
    assert bench.published() == 1
    bench.deliver(first)
    late = bench.gateway.send(OutgoingMessage("15550001", "hello").options(idempotency_key="k"))
    assert (late.id, late.duplicate) == (first, True)
    assert len(provider.calls) == 1


def test_a_key_of_an_older_version_is_known_although_that_kept_the_00(bench: Bench) -> None:
    """During an upgrade the same send is repeated by a process of the new version."""

    def send(dst: str, body: str = "hello") -> OutgoingMessage:
        message = OutgoingMessage(dst, body).options(idempotency_key="k")
        return bench.gateway.send(message)

    first = send("0044 7700 900123")
    content = bench.ledger.hash_of('{"body": "hello", "dst": "00447700900123"}')
    bench.redis.hset(bench.key("msg", str(first.id)), "content", content)
    again = send("0044 7700 900123")
    assert (again.id, again.duplicate) == (first.id, True)
    for other in (("0044 7700 900124", "hello"), ("0044 7700 900123", "other")):
        with pytest.raises(exc.IdempotencyConflict):
            send(*other)


def test_a_repeated_key_with_other_options_is_the_first_message(bench: Bench) -> None:
    first = bench.send(idempotency_key="k")
    again = bench.send(idempotency_key="k", expires=5, context={"n": 2})
    assert again == first


@pytest.mark.parametrize("other", [("15550001", "other"), ("15550002", "hello")])
def test_a_key_for_other_content_is_a_conflict(bench: Bench, other: tuple[str, str]) -> None:
    first = bench.send(idempotency_key="k")
    with pytest.raises(exc.IdempotencyConflict, match=first):
        bench.gateway.send(OutgoingMessage(*other).options(idempotency_key="k"))
    assert bench.ledger.counts()["queued"] == 1


def test_keys_of_two_namespaces_do_not_meet(make_bench: Callable[..., Bench]) -> None:
    one, two = make_bench(), make_bench(namespace="other-" + make_bench().settings.namespace)
    assert one.send(idempotency_key="k") != two.send(idempotency_key="k")


def test_a_scheduled_message_waits_for_its_time(bench: Bench) -> None:
    provider = bench.add("a")
    at = _at(bench, 3600)
    id = bench.send(send_at=at)
    assert bench.state(id) == "scheduled"
    assert bench.look("send", id) == int(at.timestamp() * 1000)
    assert bench.published() == 0
    outcome = bench.deliver(id)
    assert provider.calls == []
    assert outcome.wait == pytest.approx(3600, abs=5)
    bench.ripe(id)
    bench.deliver(id)
    assert bench.state(id) == "sent"


def test_a_scheduled_message_is_published_when_its_time_has_come(bench: Bench) -> None:
    id = bench.send(send_at=_at(bench, 3600))
    bench.upkeep.turn()
    assert bench.published() == 0
    bench.redis.zadd(bench.key("due", "send"), {id: 1})
    bench.upkeep.turn()
    assert bench.published() == 1
    look = bench.look("send", id)
    assert look is not None
    assert look > bench.now()  # advanced, not popped


def test_a_time_in_the_past_is_now(bench: Bench) -> None:
    bench.add("a")
    id = bench.send(send_at=_at(bench, -60))
    assert bench.state(id) == "queued"
    bench.deliver(id)
    assert bench.state(id) == "sent"


def test_validity_counts_from_the_time_of_sending(bench: Bench) -> None:
    at = _at(bench, 3600)
    id = bench.send(send_at=at, expires=1)
    assert bench.field(id, "expires") == str(int(at.timestamp() * 1000) + 60_000)
    id = bench.send(expires=0.5)
    assert int(bench.field(id, "expires") or 0) == pytest.approx(bench.now() + 30_000, abs=2000)
    # Somebody looks when its validity ends, long before a lost trigger would be missed.
    assert bench.look("send", id) == int(bench.field(id, "expires") or 0)


def test_a_message_past_its_validity_expires_instead_of_being_sent(bench: Bench) -> None:
    provider, heard = bench.add("a"), bench.listen()
    id = bench.send(expires=1, context={"order": 7})
    bench.outdated(id)
    assert bench.deliver(id).state == "expired"
    assert bench.state(id) == "expired"
    assert provider.calls == []
    bench.run_hooks()
    assert [type(status) for status in heard] == [MessageExpired]
    assert (heard[0].id, heard[0].context, heard[0].state) == (id, {"order": 7}, "expired")
    assert bench.deliver(id).state == "expired"
    bench.run_hooks()
    assert len(heard) == 1
    assert id not in bench.due()


def test_a_cancelled_message_is_not_sent_and_its_sender_hears_of_it(bench: Bench) -> None:
    provider, heard = bench.add("a"), bench.listen()
    for id in (bench.send(), bench.send(send_at=_at(bench, 60))):
        assert bench.gateway.cancel(id) is True
        assert bench.gateway.cancel(id) is False
        assert bench.state(id) == "cancelled"
        assert bench.deliver(id).state == "cancelled"
        assert id not in bench.due()
    bench.run_hooks()
    assert [type(status) for status in heard] == [MessageError, MessageError]
    assert provider.calls == []


def test_what_was_sent_or_ended_is_not_cancelled(bench: Bench) -> None:
    bench.add("a", None, exc.RequestError(), exc.ServerError(ambiguous=True))
    for state in ("sent", "failed", "unknown"):
        id = bench.send()
        bench.deliver(id)
        assert bench.gateway.cancel(id) is False
        assert bench.state(id) == state


def test_an_unknown_id_is_a_lookup_error(bench: Bench) -> None:
    id = new_id()
    gateway = bench.gateway
    for call in (
        gateway.lookup,
        gateway.cancel,
        gateway.requeue,
        gateway.replay,
        lambda id: gateway.settle(id, "sent"),
    ):
        with pytest.raises(LookupError):
            call(id)
    assert bench.deliver(id).state == "gone"
    assert bench.hooks.run(id).state == "gone"
    kept = bench.keys()
    assert {key.partition(":")[0] for key in kept} <= {"secret", "audit", "audit_same"}
    assert {entry.result for entry in gateway.audit()} == {"refused"}


def test_a_long_queue_is_not_made_longer(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(watermark=3, bulk_watermark=1)
    messages = [OutgoingMessage("1555", str(n)) for n in range(4)]
    bench.gateway.send_many(messages)
    assert bench.published() == 1
    single = bench.gateway.send(OutgoingMessage("1555", "one-time password"))
    assert bench.published() == 2
    bench.drain()
    for n in range(3):
        bench.send(str(n))
    waits = bench.send("waits")
    assert bench.published() == 3
    look = bench.look("send", waits)
    assert look is not None
    assert look <= bench.now()
    many = bench.gateway.send_many([OutgoingMessage("1555", "more")])
    assert bench.published() == 3
    for message in [*messages, single, *many]:
        assert message.id in bench.due()


def test_upkeep_fills_only_the_room_that_there_is(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(watermark=1, bulk_watermark=5)
    for n in range(20):
        bench.send(str(n))
    assert bench.published() == 1
    bench.upkeep.turn()
    assert bench.published() == 5
    bench.upkeep.turn()
    assert bench.published() == 5
    bench.drain()
    bench.upkeep.turn()
    assert bench.published() == 5
    taken = [id for id in bench.due() if (bench.look("send", id) or 0) > bench.now()]
    assert len(taken) == 10  # every one that was published, none twice


def test_send_many_checks_all_before_it_takes_one(bench: Bench) -> None:
    good = OutgoingMessage("1555", "hi")
    with pytest.raises(exc.RequestError):
        bench.gateway.send_many([good, OutgoingMessage("no digits", "hi")])
    with pytest.raises(exc.RequestError):
        bench.gateway.send_many([good, OutgoingMessage("1555", "hi").params(at=timedelta(1))])
    assert good.id is None
    assert sum(bench.ledger.counts().values()) == 0


def test_send_many_takes_all(bench: Bench) -> None:
    messages = [OutgoingMessage("1555", str(n)) for n in range(1203)]
    assert bench.gateway.send_many(messages) == messages
    assert len({message.id for message in messages}) == 1203
    assert bench.ledger.counts()["queued"] == 1203
    assert [r.message.body for r in bench.gateway.find("1555")][:1] != []


def test_send_many_lists_what_was_taken_when_one_conflicts(bench: Bench) -> None:
    bench.send("first", idempotency_key="k")
    batch = [OutgoingMessage("15550001", str(n)) for n in range(3)]
    batch[1].options(idempotency_key="k")
    with pytest.raises(exc.IdempotencyConflict) as caught:
        bench.gateway.send_many(batch)
    # All that the ledger has of this batch is listed, and has been published.
    assert caught.value.accepted == [batch[0], batch[2]]
    assert bench.ledger.counts()["queued"] == 3
    assert bench.published() == 3


def test_send_many_again_after_an_error_is_one_message_each(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [OutgoingMessage("1555", str(n)) for n in range(120)]
    accept_many, calls = bench.gateway.ledger.accept_many, iter((True, False, True, True))

    def lossy(chunk: list[tuple[OutgoingMessage, str]]) -> object:
        answers = accept_many(chunk)  # taken in, but the answer may get lost
        if not next(calls):
            raise exc.QueueUnavailable("lost")
        return answers

    monkeypatch.setattr(bench.gateway.ledger, "accept_many", lossy)
    with pytest.raises(exc.QueueUnavailable) as caught:
        bench.gateway.send_many(batch)
    accepted = caught.value.accepted
    assert 0 < len(accepted) < 120
    assert accepted == batch[: len(accepted)]
    bench.gateway.send_many(batch[len(accepted) :])
    assert bench.ledger.counts()["queued"] == 120


def test_a_bad_message_leaves_nothing(bench: Bench) -> None:
    bench.add("a")
    with pytest.raises(AssertionError):
        bench.gateway.send(OutgoingMessage("1555", "hi", provider="b"))
    for bad in (
        OutgoingMessage("", "hi"),
        OutgoingMessage("1555", "x" * 1601),
        OutgoingMessage("1555", "\ud800"),
        OutgoingMessage("1555", "hi").options(context={"t": (1, 2)}),
        OutgoingMessage("1555", "hi").route(object()),
    ):
        with pytest.raises(exc.RequestError):
            bench.gateway.send(bad)
    assert bench.keys() == set()


def test_find_lists_the_newest_first_and_hides_the_number(bench: Bench) -> None:
    ids = [bench.send(str(n), dst="+1 (555) 765-4321") for n in range(2)]
    # Two sends of one millisecond have no order of their own but that of their ids.
    assert {r.id for r in bench.gateway.find("15557654321")} == set(ids)
    assert bench.gateway.find("1999") == []
    assert not any("5557654321" in key for key in sorted(bench.keys()))


def test_the_record_says_what_smart_encoding_replaced(bench: Bench) -> None:
    message = OutgoingMessage("1555", "isn\u2019t").options(smart_encoding=True)
    id = bench.gateway.send(message).id
    assert id
    stored = bench.record(id).message
    assert (stored.body, stored.replaced) == ("isn't", (("\u2019", "'", 1),))


def test_a_key_compares_the_texts_as_written(bench: Bench) -> None:
    def send(text: str, smart: bool) -> OutgoingMessage:
        message = OutgoingMessage("1555", text)
        return bench.gateway.send(message.options(idempotency_key="k", smart_encoding=smart))

    send("isn\u2019t", False)
    assert send("isn\u2019t", True).duplicate
    with pytest.raises(exc.IdempotencyConflict):
        send("isn't", True)


def test_the_record_says_where_a_redirected_message_was_sent_to(bench: Bench) -> None:
    bench.gateway.destinations = Destinations(numbers=[], redirect_to="+447400123456")
    id = bench.gateway.send(OutgoingMessage("+33612345678", "hi")).id
    assert id
    stored = bench.record(id).message
    assert (stored.dst, stored.redirected_from) == ("447400123456", "33612345678")
