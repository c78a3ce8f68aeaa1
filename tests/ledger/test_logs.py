"""One log line for each transition, with fields for whoever logs JSON."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner

from smsqueue import IncomingMessage, OutgoingMessage, Settings, exc
from smsqueue.cli import main
from smsqueue.logs import JsonFormatter
from smsqueue.message.states import State
from smsqueue.settings import SettingsError
from tests.ledger.bench import Bench, Told


def told(caplog: pytest.LogCaptureFixture, id: str) -> list[tuple[object, ...]]:
    """The lines of a message or event: level, state, provider, error class."""
    return [
        (r.levelname, r.state, r.provider, r.error)  # type: ignore[attr-defined]
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
    assert "logs.py" not in {record.filename for record in caplog.records}
    assert told(caplog, id) == [
        ("INFO", "queued", None, None),
        ("INFO", "retrying", "a", "ServerError"),
        ("INFO", "sent", "a", None),
        ("INFO", "delivered", "a", None),
    ]


@pytest.mark.parametrize(
    ("reported", "lines"), [(False, ["queued", "sent"]), (True, ["sent", "delivered"])]
)
def test_a_message_that_goes_well_has_two_lines(
    bench: Bench, caplog: pytest.LogCaptureFixture, reported: bool, lines: list[str]
) -> None:
    bench.add("a")
    bench.gateway.onSend += lambda message: None
    bench.gateway.onStatus += lambda status: None
    id = bench.send(status_report=reported)
    bench.deliver(id)
    if reported:
        bench.report("accepted", reference=f"{id}.1")
        bench.report("delivered", reference=f"{id}.1")
    events = bench.events("sent") + bench.events("status")
    assert [bench.hooks.run(event).state for event in events] == ["done"] * len(events) != []
    assert [(r.levelname, getattr(r, "state", None)) for r in caplog.records] == [
        ("INFO", state) for state in lines
    ]


def test_an_incoming_message_has_two_lines(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.add("a")
    bench.gateway.onReceive += lambda message: None
    message = IncomingMessage("15550002", "secret words")
    message.provider = "a"
    bench.gateway.receive_message(message)
    bench.hooks.run(message.id or "")
    assert told(caplog, message.id or "") == [
        ("INFO", "waiting", "a", None),
        ("INFO", "done", None, None),
    ]


def test_a_line_of_json(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.add("a", exc.ServerError("busy", code=7))
    id = bench.send()
    bench.deliver(id)
    failed, retrying = [json.loads(JsonFormatter().format(r)) for r in caplog.records[-2:]]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", failed.pop("time"))
    assert failed == {
        "level": "WARNING",
        "logger": "smsqueue.delivery",
        "message": f"{id}: ServerError failed at a",
        "id": id,
        "provider": "a",
        "attempt": 1,
        "error": "ServerError",
        "code": "7",
    }
    assert (retrying["state"], retrying["attempt"], retrying["code"]) == ("retrying", 1, "7")


def test_json_of_what_an_application_logs() -> None:
    try:
        raise KeyError("x")
    except KeyError:
        record = logging.getLogger("shop").makeRecord(
            *("shop", logging.ERROR, "shop.py", 7, "two\nlines of %s", ("ü",), sys.exc_info()),
            extra={"order": 7, "at": datetime(2026, 1, 2, tzinfo=UTC), "level": "mine"},
        )
    text = JsonFormatter().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["message"], line["level"], line["order"]) == ("two\nlines of ü", "ERROR", 7)
    assert line["at"] == "2026-01-02 00:00:00+00:00"
    assert line["exception"].startswith("Traceback ")
    record.__dict__["circle"] = circle = {}
    circle["itself"] = circle
    assert json.loads(JsonFormatter().format(record))["message"] == "two\nlines of ü"


def test_another_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMSQUEUE_LOG", "JSON")
    assert Settings().log == "json"
    monkeypatch.setenv("SMSQUEUE_LOG", "yaml")
    with pytest.raises(SettingsError, match="SMSQUEUE_LOG must be text or json"):
        Settings()
    result = CliRunner().invoke(main, ["acl"])
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: SMSQUEUE_LOG must be text or json: correct it or unset it\n",
    )


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


@pytest.fixture
def broken() -> Iterator[None]:
    """Every record that this package logs makes a filter of the application raise."""

    def fails(record: logging.LogRecord) -> bool:
        raise AttributeError("tenant")

    names = [name for name in logging.root.manager.loggerDict if name.startswith("smsqueue")]
    for name in names:
        logging.getLogger(name).addFilter(fails)
    yield
    for name in names:
        logging.getLogger(name).removeFilter(fails)


def test_a_log_that_fails_changes_nothing_for_a_refused_message(bench: Bench, broken: None) -> None:
    a: Told = bench.add("a")
    a.then(exc.ServerError("busy", code=7))
    id = bench.send()
    assert bench.deliver(id).state == "retrying"
    bench.ripe(id)
    assert bench.deliver(id).state == "sent"


def test_a_log_that_fails_does_not_keep_a_sent_message_from_being_recorded(
    bench: Bench, broken: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    a: Told = bench.add("a")
    id, settle, away = bench.send(), bench.ledger.settle, [exc.QueueUnavailable("away")]

    def once_away(*args: Any) -> Any:
        if away:
            raise away.pop()
        return settle(*args)

    monkeypatch.setattr(bench.ledger, "settle", once_away)
    assert bench.deliver(id).state == "sent"
    assert len(a.calls) == 1


def test_a_log_that_fails_does_not_keep_an_event_from_being_repeated(
    bench: Bench, broken: None
) -> None:
    def bad(message: OutgoingMessage) -> None:
        raise ValueError("no")

    bench.add("a")
    bench.gateway.onSend.connect(bad, name="bad")
    bench.deliver(bench.send())
    (event,) = bench.events("sent")
    assert bench.hooks.run(event).error == "ValueError"
    assert (bench.ledger.read_event(event) or {})["state"] == "waiting"


def test_a_log_that_fails_does_not_end_upkeep(
    bench: Bench, broken: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: Any) -> Any:
        raise ValueError("sweep")

    monkeypatch.setattr(bench.ledger, "sweep", failing)
    bench.upkeep.turn()
    assert "ValueError" in str(bench.upkeep.failing)
