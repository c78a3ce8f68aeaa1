"""smsqueue pause and resume, and where pauses are shown."""

from __future__ import annotations

import json

import pytest

from smsqueue import Gateway, OutgoingMessage
from smsqueue.ledger import Early
from smsqueue.message.ids import new_token
from smsqueue.operation.metrics import scrape


@pytest.fixture
def waiting(gateway: Gateway):
    """Sends a message with the tag sale, which a worker then does not get."""

    def send() -> str:
        id = gateway.send(OutgoingMessage("15551234567", "the text").options(tag="sale")).id or ""
        answer = gateway.ledger.claim(id, new_token(), lease=60, worker="w", default=("main", 60))
        assert isinstance(answer, Early)
        return id

    return send


def test_pause_a_tag_and_resume_it(run, run_json, live, waiting, gateway: Gateway) -> None:
    live()
    result = run("--as", "alice", "pause", "--tag", "sale", "--reason", "wrong price")
    assert result.stdout == (
        "tag sale is paused by alice (wrong price), 0 messages wait; "
        "to end it: smsqueue resume --tag sale\n"
    )
    assert "older workers do not know this pause" in result.stderr
    id = waiting()
    assert "tag sale is paused by alice (wrong price), 1 message waits" in run("show", id).stdout
    status = run("status", code=1)
    assert "1 message waits while tag sale is paused" in status.stdout
    assert "smsqueue resume --tag sale" in status.stdout
    document = run_json("status", code=1)
    (pause,) = document["pauses"]
    assert (pause["kind"], pause["name"], pause["by"]) == ("tag", "sale", "alice")
    assert (pause["reason"], pause["until"], pause["waiting"]) == ("wrong price", None, 1)
    assert any("older workers" in problem["what"] for problem in document["problems"])
    page = scrape(gateway.ledger).decode()
    assert 'smsqueue_operator_paused{kind="tag",name="sale"} 1.0' in page
    assert 'smsqueue_operator_paused_messages{kind="tag",name="sale"} 1.0' in page
    assert run("resume", "--tag", "sale").stdout == "tag sale goes on\n"
    assert run("resume", "--tag", "sale", code=1).stdout == "tag sale was not paused\n"
    assert run_json("show", id)["paused"] is None
    actions = [json.loads(line)["action"] for line in run("audit", "--json").stdout.splitlines()]
    assert actions == ["resume", "pause"]


def test_pause_a_provider_and_everything(run, run_json, make, gateway: Gateway) -> None:
    make("sent")
    document = run_json("pause", "--provider", "main", "--for", "2h")
    assert (document["kind"], document["older_workers"]) == ("provider", [])
    assert document["until"] is not None
    assert "no call of a provider 'mian' is known" in run("pause", "--provider", "mian").stderr
    run("resume", "--provider", "mian")
    run("pause", "--all", "--until", "2999-01-01T00:00Z", "--reason", "the invoice")
    assert "still paused: provider main is paused" in run("resume", "--all").stdout
    (provider,) = (p for p in run_json("status", code=1)["providers"] if p["name"] == "main")
    assert provider["paused"]["by"]
    page = scrape(gateway.ledger).decode()
    assert 'smsqueue_paused{error="Operator",provider="main"} 1.0' in page
    assert run_json("resume", "--provider", "main") == {"resumed": True, "pauses": []}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "Give one of --provider NAME, --tag TAG and --all"),
        (["--tag", "x", "--all"], "Give one of --provider NAME, --tag TAG and --all"),
        (["--tag", "a b"], "tag"),
        (["--all", "--for", "2 weeks"], "write it as 90s, 30m, 2h or 1d"),
        (["--all", "--for", "0s"], "write it as 90s, 30m, 2h or 1d"),
        (["--all", "--until", "2020-01-01T00:00Z"], "in the past"),
        (["--all", "--until", "2030-01-01T00:00"], "has no time zone"),
        (["--all", "--for", "1h", "--until", "2999-01-01T00:00Z"], "not both"),
        (["--all", "--reason", "x" * 201], "at most 200 characters"),
    ],
)
def test_wrong_calls(run, arguments: list[str], why: str) -> None:
    assert why in run("pause", *arguments, code=2).stderr
