"""smsqueue show, find, list"""

from __future__ import annotations

from datetime import datetime

import pytest
from rich.console import Console

from smsqueue import Gateway, IncomingMessage, OutgoingMessage


@pytest.fixture
def sent(gateway: Gateway) -> str:
    """A message that a worker sent."""
    message = OutgoingMessage("+15551234567", "the secret text", src="15550001111")
    id = gateway.send(message.options(status_report=True)).id
    assert id
    gateway.ledger.claim(id, "token", lease=60, worker="w")
    gateway.ledger.begin(id, "token", "main", lease=60, attempt=1)
    done = {"verdict": "sent", "provider": "main", "msgid": '"m1"', "msgids": ["m1"]}
    gateway.ledger.settle(id, "token", 1, done)
    return id


@pytest.fixture
def heard(gateway: Gateway) -> str:
    """An incoming message whose handler failed for good, quoting it."""
    message = IncomingMessage("15551234567", "the secret \x1b[2J reply", "m2", dst="15550001111")
    message.provider = "main"
    _, id = gateway.ledger.receive(message, repeats=True)
    gateway.ledger.hook_claim(id, "token", "w")
    why = "shop.hooks:reply: ValueError: the secret text of 15551234567"
    gateway.ledger.hook_settle(id, "token", "dead", delay=0, why=why, done=[])
    return id


PERSONAL = ("15551234567", "15550001111", "secret")


def test_show_a_message(run, run_json, sent: str) -> None:
    text = run("show", sent).stdout
    assert "1555*****67" in text
    assert "15 characters, hidden" in text
    assert [line.split()[2] for line in text.split("\n\n")[1].splitlines()[1:]] == [
        "queued",
        "sending",
        "sent",
    ]
    shown = run_json("show", sent)
    assert (shown["id"], shown["kind"], shown["state"]) == (sent, "message", "sent")
    assert (shown["provider"], shown["msgid"], shown["attempts"]) == ("main", "m1", 1)
    assert datetime.fromisoformat(shown["timeline"][0]["at"]).tzinfo
    for word in PERSONAL:
        assert word not in text + str(shown)


def test_reveal_a_message(run, run_json, sent: str) -> None:
    for output in (run("show", sent, "--reveal").stdout, str(run_json("show", sent, "--reveal"))):
        assert "15551234567" in output
        assert "the secret text" in output


def test_show_an_event(run, run_json, heard: str) -> None:
    text, shown = run("show", heard).stdout, run_json("show", heard)
    assert (shown["kind"], shown["state"], shown["length"]) == ("received", "dead", 21)
    assert shown["why"] == "shop.hooks:reply: ValueError"
    for word in PERSONAL:
        assert word not in text + str(shown)
    revealed = run("show", heard, "--reveal").stdout
    assert "the secret \\x1b[2J reply" in revealed
    assert "15551234567" in revealed


def test_show_what_is_not_there(run) -> None:
    result = run("show", "15551234567", code=1)
    assert "records are kept 30 days" in result.stderr
    assert "smsqueue find" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_find_what_was_sent_and_received(run, run_json, sent: str, heard: str) -> None:
    found = run_json("find", "+1 555 123 45 67")
    assert [item["id"] for item in found["items"]] == [heard, sent]
    text = run("find", "15551234567").stdout
    assert sent in text
    for word in PERSONAL:
        assert word not in text + str(found)
    assert "the secret text" in run("find", "15551234567", "--reveal").stdout


def test_find_nothing(run, run_json) -> None:
    assert "nothing of" in run("find", "15551234567").stdout
    assert run_json("find", "15551234567")["items"] == []
    run("find", "nobody", code=2)


def test_counts(run, run_json, sent: str, heard: str) -> None:
    counts = run_json("list")
    assert counts["messages"]["sent"] == 1
    assert counts["events"]["dead"] == 1
    assert "unknown" in run("list").stdout


def test_list_a_state(run, run_json, gateway: Gateway, sent: str, heard: str) -> None:
    assert [item["id"] for item in run_json("list", "--state", "sent")["items"]] == [sent]
    assert heard in run("list", "--state", "dead").stdout
    assert "nothing is failed" in run("list", "--state", "failed").stdout
    for _ in range(3):
        gateway.send(OutgoingMessage("15551234567", "x"))
    listed = run_json("list", "--state", "queued", "--limit", "2")
    assert (len(listed["items"]), listed["total"]) == (2, 3)
    assert "2 of 3" in run("list", "--state", "queued", "--limit", "2").stdout
    assert "'dead'" in run("list", "--state", "lost", code=2).stderr


def test_narrow_terminals_cut_no_id(monkeypatch, run, heard: str) -> None:
    narrow = Console(width=60, markup=False)
    monkeypatch.setattr("smsqueue.cli.looking.screen", lambda: narrow)
    with narrow.capture() as captured:
        run("list", "--state", "dead")
    assert heard in captured.get()
