"""Which message of many is wrong, and what may be sent again after an error."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest

from smsqueue import Gateway, IProvider, OutgoingMessage, Settings, exc
from smsqueue.testing import capture
from tests.ledger.bench import Bench

NUMBER, MASKED = "15557654321", "1555*****21"


def good(count: int) -> list[OutgoingMessage]:
    return [OutgoingMessage(NUMBER, f"secret {n}") for n in range(count)]


def naive() -> OutgoingMessage:
    message = OutgoingMessage(NUMBER, "secret")
    message.provider_options.send_at = datetime(2030, 1, 1)  # noqa: DTZ001  naive on purpose
    return message


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "too long": (lambda: OutgoingMessage(NUMBER, "x" * 2000), exc.RequestError, MASKED),
    "no text": (lambda: OutgoingMessage(NUMBER, ""), exc.RequestError, MASKED),
    "no digits": (lambda: OutgoingMessage("none", "x"), exc.RequestError, "****"),
    "long number": (lambda: OutgoingMessage("1" * 16, "x"), exc.RequestError, "1111**********11"),
    "not JSON": (
        lambda: OutgoingMessage(NUMBER, "x").options(context={"id": uuid4()}),
        exc.RequestError,
        MASKED,
    ),
    "naive": (naive, exc.RequestError, MASKED),
    "provider": (
        lambda: OutgoingMessage(NUMBER, "x", provider="typo"),
        AssertionError,
        MASKED,
    ),
    "no message": (lambda: None, TypeError, ""),
    "text": (lambda: NUMBER, TypeError, ""),
}


@pytest.fixture(params=["queued", "captured", "eager"])
def taken(request: Any, bench: Bench) -> Iterator[tuple[Gateway, Any]]:
    """A gateway, and a function that counts what it took."""
    if request.param == "queued":
        bench.add("a")
        yield bench.gateway, lambda: bench.ledger.counts().get("queued", 0)
        return
    gateway = Gateway(eager=request.param == "eager")
    told = gateway.add_provider("a", Counting)
    if request.param == "eager":
        yield gateway, lambda: len(told.sent)  # type: ignore[attr-defined]
        return
    with capture(gateway) as outbox:
        yield gateway, lambda: len(outbox)


class Counting(IProvider):
    def __init__(self, gateway: Any, name: str) -> None:
        super().__init__(gateway, name)
        self.sent: list[OutgoingMessage] = []

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        if message.body == "refuse":
            raise exc.CreditError("no money", code=7)
        self.sent.append(message)
        return message


@pytest.mark.parametrize("kind", BAD)
def test_send_many_names_the_invalid_message_and_accepts_none(
    taken: tuple[Gateway, Any], kind: str
) -> None:
    gateway, count = taken
    make, error, destination = BAD[kind]
    batch = [*good(2), make(), *good(1)]
    with pytest.raises(error) as caught:
        gateway.send_many(batch)
    shown = str(caught.value)
    assert shown.startswith("message at index 2 of the list")
    assert shown.count(destination) == 1 or not destination
    assert (caught.value.index, caught.value.destination) == (2, destination)  # type: ignore[attr-defined]
    assert caught.value.accepted == []  # type: ignore[attr-defined]
    assert "secret" not in shown
    assert NUMBER not in shown
    assert count() == 0
    assert [message.id for message in batch[:2]] == [None, None]
    # Without it, they are taken.
    del batch[2]
    gateway.send_many(batch)
    assert count() == 3


def test_send_many_of_one_message_says_what_to_do(taken: tuple[Gateway, Any]) -> None:
    gateway, count = taken
    with pytest.raises(TypeError, match=r"takes a list of messages: for one message, use send\(\)"):
        gateway.send_many(good(1)[0])  # type: ignore[arg-type]
    assert count() == 0


def test_send_many_of_a_generator_that_fails_takes_none(taken: tuple[Gateway, Any]) -> None:
    gateway, count = taken

    def rows() -> Iterator[OutgoingMessage]:
        yield from good(600)
        raise OSError("the database is away")

    with pytest.raises(OSError, match="database"):
        gateway.send_many(rows())
    assert count() == 0
    assert len(gateway.send_many(message for message in good(3))) == count() == 3


def test_an_object_that_is_in_the_list_twice_is_one_message(taken: tuple[Gateway, Any]) -> None:
    gateway, count = taken
    first, second = good(2)
    assert gateway.send_many([first, second, first]) == [first, second, first]
    assert count() == 2


def test_send_many_of_nothing_connects_to_nothing() -> None:
    gateway = Gateway(eager=False)
    assert gateway.send_many([]) == gateway.send_many(iter(())) == []
    assert not {"ledger", "queue"} & vars(gateway).keys()


def test_a_conflict_names_the_message_and_all_of_them_may_be_sent_again(bench: Bench) -> None:
    bench.send("first", idempotency_key="k")
    batch = good(3)
    batch[1].options(idempotency_key="k")
    with pytest.raises(
        exc.IdempotencyConflict, match=r"message at index 1 of the list \(to 1555"
    ) as caught:
        bench.gateway.send_many(batch)
    assert (caught.value.index, caught.value.destination) == (1, MASKED)
    assert caught.value.accepted == [batch[0], batch[2]]
    with pytest.raises(exc.IdempotencyConflict):
        bench.gateway.send_many(batch)
    batch[1].options(idempotency_key="k2")
    ids = [batch[0].id, batch[2].id]
    assert bench.gateway.send_many(batch) == batch
    assert [batch[0].id, batch[2].id] == ids
    assert bench.ledger.counts()["queued"] == 4


@pytest.mark.parametrize("again", ["all", "the others", "one by one"])
def test_the_same_objects_may_be_sent_again_after_a_lost_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    batch = [*good(120), OutgoingMessage(NUMBER, "keyed").options(idempotency_key="k")]
    batch[3].options(idempotency_key="first")
    bench.gateway.send(OutgoingMessage(NUMBER, "secret 3").options(idempotency_key="first"))
    accept_many, lost = bench.gateway.ledger.accept_many, iter((False, True))

    def lossy(chunk: list[tuple[OutgoingMessage, str]]) -> object:
        answers = accept_many(chunk)
        if next(lost, False):
            raise exc.QueueUnavailable("the answer was lost")
        return answers

    monkeypatch.setattr(bench.gateway.ledger, "accept_many", lossy)
    with pytest.raises(exc.QueueUnavailable) as caught:
        bench.gateway.send_many(batch)
    assert 3 < len(caught.value.accepted) < 120
    assert caught.value.accepted == batch[: len(caught.value.accepted)]
    assert batch[3].duplicate
    if again == "all":
        assert bench.gateway.send_many(batch) == batch
        assert batch[3].duplicate
    elif again == "the others":
        others = [message for message in batch if message not in caught.value.accepted]
        bench.gateway.send_many(others)
    else:
        for message in batch:
            bench.gateway.send(message)
    assert bench.ledger.counts()["queued"] == 121


def test_an_eager_send_many_says_what_was_delivered() -> None:
    gateway = Gateway(eager=True)
    told = gateway.add_provider("a", Counting)
    batch = good(4)
    batch[2].body = "refuse"
    with pytest.raises(exc.CreditError, match="no money") as caught:
        gateway.send_many(batch)
    error: Any = caught.value
    assert str(error) == "no money"
    assert (error.code, error.index, error.destination) == (7, 2, MASKED)
    assert error.accepted == told.sent == batch[:2]  # type: ignore[attr-defined]


def test_refused_is_said_of_one_message_and_never_of_many() -> None:
    gateway = Gateway(Settings(redis_url="redis://127.0.0.1:1/0"))
    with pytest.raises(exc.QueueUnavailable) as caught:
        gateway.send(good(1)[0])
    assert caught.value.refused is True
    with pytest.raises(exc.QueueUnavailable) as caught:
        gateway.send_many(good(2))
    assert caught.value.refused is False
    gateway.close()


def test_two_messages_of_one_group_with_one_key_are_one_message(bench: Bench) -> None:
    batch = good(6)
    for message in (batch[1], batch[4]):
        message.body = "the same"
        message.options(idempotency_key="k")
    bench.gateway.send_many(batch)
    assert batch[4].duplicate
    assert batch[4].id == batch[1].id
    assert bench.ledger.counts()["queued"] == 5
    assert bench.gateway.send(OutgoingMessage(NUMBER, "the same").options(idempotency_key="k"))
    assert bench.ledger.counts()["queued"] == 5


def test_a_message_whose_number_has_a_damaged_index_stops_no_other_of_its_group(
    bench: Bench,
) -> None:
    batch = good(5)
    batch[2].options(idempotency_key="k")
    first = bench.gateway.send(OutgoingMessage(NUMBER, "first"))
    [index] = bench.redis.keys(bench.key("number", "*"))
    bench.redis.delete(index)
    bench.redis.set(index, "not an index")
    bench.gateway.send_many(batch)
    assert bench.ledger.counts()["queued"] == 6
    assert bench.gateway.find(NUMBER)
    assert bench.state(str(first.id)) == "queued"


def test_a_message_that_fails_takes_no_idempotency_key_from_another_of_its_group(
    bench: Bench,
) -> None:
    batch = good(3)
    batch[0].options(idempotency_key="k")
    batch[1].options(idempotency_key="damaged")
    bench.redis.rpush(bench.key("idem", bench.ledger.hash_of("damaged")), "not a message id")
    with pytest.raises(exc.QueueUnavailable):
        bench.gateway.send_many(batch)
    again = OutgoingMessage(NUMBER, batch[0].body).options(idempotency_key="k")
    assert bench.gateway.send(again).duplicate
    assert bench.ledger.counts()["queued"] == 2
