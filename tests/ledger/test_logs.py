"""One log line for each transition, with fields for whoever logs JSON."""

from __future__ import annotations

import logging

import pytest

from smsqueue import OutgoingMessage, exc
from smsqueue.states import State
from tests.ledger.bench import Bench, Told


def told(caplog: pytest.LogCaptureFixture, id: str) -> list[tuple[object, ...]]:
    """The lines of a message or event: level, state, provider, error class."""
    return [
        (r.levelname, r.state, r.provider, r.error_class)  # type: ignore[attr-defined]
        for r in caplog.records
        if getattr(r, "id", None) == id and hasattr(r, "state")
    ]


@pytest.fixture(autouse=True)
def _all(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "smsqueue")


def test_a_message_from_its_queue_to_its_report(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    a: Told = bench.add("a")
    a.then(exc.ServerError("busy", code=7))
    id = bench.send()
    bench.deliver(id)
    bench.ripe(id)
    bench.deliver(id)
    bench.report("delivered", reference=f"{id}.2", provider="a")
    assert told(caplog, id) == [
        ("INFO", "queued", None, None),
        ("INFO", "retrying", "a", "ServerError"),
        ("INFO", "sent", "a", None),
        ("INFO", "delivered", "a", None),
    ]


def test_what_an_operator_does(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    a: Told = bench.add("a")
    a.then(exc.ConnectionError("?", ambiguous=True), exc.ConnectionError("?", ambiguous=True))
    id = bench.send()
    bench.deliver(id)
    bench.gateway.requeue(id)
    bench.gateway.cancel(id)
    assert [line[1] for line in told(caplog, id)] == ["queued", "unknown", "queued", "cancelled"]


def test_a_worker_that_never_came_back_is_a_warning(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.add("a")
    id = bench.send()
    bench.ledger.claim(id, "token", lease=30.0, worker="gone")
    bench.lapse(id)
    assert told(caplog, id)[-1] == ("WARNING", State.RETRYING, None, "WorkerLost")


def test_the_library_configures_no_logging_and_tells_nothing_personal(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    a: Told = bench.add("a")
    a.then(exc.RequestError("15557654321 said secret words"), KeyError("secret words"))
    for _ in range(2):
        bench.deliver(bench.gateway.send(OutgoingMessage("15557654321", "secret words")).id or "")
    assert logging.getLogger("smsqueue").handlers == []
    lines = caplog.text + "".join(str(vars(record)) for record in caplog.records)
    assert "15557654321" not in lines
    assert "secret words" not in lines
