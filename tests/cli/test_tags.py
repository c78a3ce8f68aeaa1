"""What commands do by tag."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from smsqueue import Gateway, OutgoingMessage
from tests.cli.conftest import Run

RunJson = Callable[..., Any]


@pytest.fixture
def tagged(gateway: Gateway) -> list[str]:
    """Three messages of a campaign; one was cancelled."""
    batch = [OutgoingMessage("15551234567", "hi").options(tag="sale") for _ in range(3)]
    ids = [message.id or "" for message in gateway.send_many(batch)]
    gateway.cancel(ids[0])
    return ids


def test_messages_are_listed_by_tag(run: Run, run_json: RunJson, tagged: list[str]) -> None:
    shown = run_json("send", "+15551234567", "hi", "--tag", "vip", "--tag", "sale")
    shown = run_json("show", shown["id"])
    assert shown["tags"] == ["vip", "sale"]
    listed = run_json("list", "--tag", "sale")
    assert {item["id"] for item in listed["items"]} == {*tagged, shown["id"]}
    assert listed["items"][0]["id"] == shown["id"]
    listed = run_json("list", "--tag", "sale", "--state", "cancelled")
    assert [item["id"] for item in listed["items"]] == [tagged[0]]
    assert "raise --limit" in run("list", "--tag", "sale", "--limit", "2").stdout
    assert run("list", "--tag", "none").stdout == "no message matches\n"
    assert "a tag has ' ' at index 2" in run("list", "--tag", "no tag", code=2).stderr
    assert "are for messages" in run("list", "--tag", "sale", "--state", "dead", code=2).stderr


def test_the_progress_of_a_tag(
    run: Run, run_json: RunJson, tagged: list[str], gateway: Gateway, make: Callable[..., str]
) -> None:
    text = run("status", "--tag", "sale").stdout
    assert text.startswith(
        "sale: 2 of 3 messages wait to be sent, and none was sent in the last minute\n"
    )
    assert ["queued", "2", "66.7", "%"] in [line.split() for line in text.splitlines()]
    gateway.ledger.claim(tagged[1], "token", lease=60, worker="w")
    document = run_json("status", "--tag", "sale")
    assert (document["tag"], document["total"], document["waiting"]) == ("sale", 3, 2)
    assert document["states"]["sending"] == 1
    assert (document["per_second"], document["seconds_left"]) == (0.0, None)
    error = run("status", "--tag", "sales", code=1).stderr
    assert "no message has the tag 'sales'" in error


def test_the_progress_of_a_tag_says_that_it_is_paused(
    run: Run, run_json: RunJson, tagged: list[str], gateway: Gateway
) -> None:
    gateway.pause(tag="other", reason="of no concern", by="bob")
    assert "paused" not in run("status", "--tag", "sale").stdout
    gateway.pause(tag="sale", reason="a wrong price", by="alice")
    line = "tag sale is paused until it is resumed by alice: a wrong price"
    assert line in run("status", "--tag", "sale").stdout.splitlines()
    [pause] = run_json("status", "--tag", "sale")["pauses"]
    assert (pause["scope"], pause["by"], pause["until"]) == ("tag:sale", "alice", None)


def test_status_names_the_tags_with_the_most_waiting_messages(
    run: Run, run_json: RunJson, tagged: list[str], gateway: Gateway
) -> None:
    gateway.send(OutgoingMessage("15551234567", "hi").options(tag="otp"))
    lines = run("status", code=2).stdout.splitlines()
    assert ["tags", "2", "sale,", "1", "otp"] in [line.split() for line in lines]
    assert run_json("status", code=2)["tags"] == [
        {"tag": "sale", "waiting": 2, "exact": True},
        {"tag": "otp", "waiting": 1, "exact": True},
    ]


def test_messages_are_cancelled_by_tag(run: Run, tagged: list[str], gateway: Gateway) -> None:
    other = gateway.send(OutgoingMessage("15551234567", "hi")).id or ""
    run("cancel", "--tag", "sale", "--state", "queued", "--yes")
    assert [gateway.lookup(id).state for id in tagged] == ["cancelled"] * 3
    assert gateway.lookup(other).state == "queued"
