"""What a record tells of what went wrong."""

from __future__ import annotations

import pytest

from smsqueue import exc
from tests.ledger.bench import Bench, Told


@pytest.fixture
def provider(bench: Bench) -> Told:
    return bench.add("a")


def trouble(bench: Bench, id: str) -> tuple[str | None, str | None]:
    record = bench.record(id)
    return record.error, record.code


@pytest.mark.parametrize("state", ["undelivered", "expired", "delivered", "accepted"])
def test_a_record_knows_the_code_of_its_delivery_report(
    bench: Bench, provider: Told, state: str
) -> None:
    provider.then(exc.ServerError(code="20500"))
    id = bench.send(status_report=True)
    bench.deliver(id)
    assert trouble(bench, id) == ("ServerError", "20500")
    bench.ripe(id)
    bench.deliver(id)
    bench.report(state, reference=f"{id}.2", code=30007)
    assert trouble(bench, id) == (None, "30007")
    bench.report("accepted", reference=f"{id}.2", code=1)
    assert trouble(bench, id) == (None, "1" if state == "accepted" else "30007")


def test_a_code_of_a_part_is_its_messages(bench: Bench, provider: Told) -> None:
    provider.then(lambda message: setattr(message, "msgid", ["p1", "p2"]))
    id = bench.send(status_report=True)
    bench.deliver(id)
    bench.report("undelivered", msgid="p2", code="8")
    bench.report("delivered", msgid="p1", code="0")
    assert trouble(bench, id) == (None, "8")


def test_an_error_that_was_overcome_is_in_the_timeline_only(bench: Bench, provider: Told) -> None:
    provider.then(exc.ServerError(code="20500"))
    id = bench.send(status_report=True)
    bench.deliver(id)
    bench.ripe(id)
    bench.deliver(id)
    assert trouble(bench, id) == (None, None)
    bench.report("delivered", reference=f"{id}.2")
    assert trouble(bench, id) == (None, None)
    assert "20500" in [line.get("code") for line in bench.record(id).timeline]


def test_after_a_requeue_the_code_is_that_of_the_new_sending(bench: Bench, provider: Told) -> None:
    id = bench.send(status_report=True)
    bench.deliver(id)
    bench.report("undelivered", reference=f"{id}.1", code="30007")
    assert bench.gateway.requeue(id)
    assert trouble(bench, id) == (None, "30007")
    provider.then(exc.RequestError(code="21211"))
    bench.deliver(id)
    assert trouble(bench, id) == ("RequestError", "21211")
    bench.report("undelivered", reference=f"{id}.1", code="30008")  # of the sending before
    assert trouble(bench, id) == ("RequestError", "21211")
    provider.then(exc.ServerError(ambiguous=True, code="77"))
    assert bench.gateway.requeue(id)
    bench.deliver(id)
    assert bench.gateway.settle(id, "undelivered")
    assert trouble(bench, id) == ("ServerError", "77")


def test_a_code_of_any_length_is_kept_in_part(bench: Bench, provider: Told) -> None:
    id = bench.send(status_report=True)
    bench.deliver(id)
    bench.report("undelivered", reference=f"{id}.1", code="9" * 5000)
    assert trouble(bench, id) == (None, "9" * 64)
