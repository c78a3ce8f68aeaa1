"""smsqueue find and show, by what is known of a message besides its id."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from smsqueue import Gateway, OutgoingMessage
from smsqueue.ledger import AttemptOutcome
from smsqueue.ledger.queries import LedgerReader
from tests.cli.conftest import Run

RunJson = Callable[..., Any]


@pytest.fixture
def parcel(gateway: Gateway) -> str:
    """A message that can be found by everything."""
    message = OutgoingMessage("+15551234567", "the secret text").options(
        idempotency_key="parcel-17",
        tag="parcels",
        context={"parcel": 17, "customer": {"name": "the secret name", "vip": True}},
    )
    id = gateway.send(message).id or ""
    gateway.ledger.claim(id, "token", lease=60, worker="w")
    gateway.ledger.begin(id, "token", "main", lease=60, attempt=1)
    done = AttemptOutcome("sent", "main", msgid='"SM-1"', msgids=("SM-1",))
    gateway.ledger.settle(id, "token", 1, done)
    return id


@pytest.fixture
def others(gateway: Gateway) -> list[str]:
    """Messages that nearly match."""
    texts = [
        OutgoingMessage("+15551234568", "x").options(context={"parcel": 170}),
        OutgoingMessage("+15551234568", '{"parcel":17}').options(tag="parcels-2"),
        OutgoingMessage("+15551234568", "x").options(context={"parcel": [17]}),
        OutgoingMessage("+15551234568", "x").options(context={"other": {"parcel": 17}}),
        OutgoingMessage("+15551234568", "x").params(parcel=17),
    ]
    return [message.id or "" for message in gateway.send_many(texts)]


CRITERIA = [
    ("--key", "parcel-17"),
    ("--msgid", "SM-1"),
    ("--msgid", "SM-1", "--provider", "main"),
    ("--tag", "parcels"),
    ("--context", "parcel=17"),
    ("--context", "customer.name=the secret name", "--context", "customer.vip=true"),
    ("+1 555 123-4567", "--tag", "parcels", "--key", "parcel-17", "--context", "parcel=17"),
]


@pytest.mark.parametrize("criteria", CRITERIA, ids=" ".join)
def test_find_by_what_is_known(
    run: Run, run_json: RunJson, parcel: str, others: list[str], criteria: tuple[str, ...]
) -> None:
    found = run_json("find", *criteria)
    assert [item["id"] for item in found["items"]] == [parcel]
    assert (found["more"], found["continue"]) == (False, None)
    text = run("find", *criteria).stdout
    assert parcel in text
    for word in ("15551234567", "secret", "parcel-17"):
        assert word not in text + json.dumps(found)
    revealed = run_json("find", *criteria, "--reveal")["items"][0]
    assert (revealed["number"], revealed["options"]["context"]["parcel"]) == ("15551234567", 17)


@pytest.mark.parametrize(
    "criteria",
    [
        ("--key", "parcel-1"),
        ("--msgid", "SM-1", "--provider", "backup"),
        ("--tag", "parcel"),
        ("--context", "parcel=1"),
        ("--context", "customer=the secret name"),
        ("--context", "parcel=17", "--context", "customer.vip=false"),
        ("+15551234568", "--key", "parcel-17"),
    ],
    ids=" ".join,
)
def test_find_nothing_else(
    run: Run, parcel: str, others: list[str], criteria: tuple[str, ...]
) -> None:
    assert run("find", *criteria).stdout.startswith("nothing found")


def test_the_api_finds_by_the_same(gateway: Gateway, parcel: str, others: list[str]) -> None:
    criteria: list[dict[str, Any]] = [
        {"idempotency_key": "parcel-17"},
        {"msgid": "SM-1"},
        {"tag": "parcels", "provider": "main"},
        {"context": {"parcel": 17}},
        {"context": {"customer.vip": True}, "number": "+15551234567"},
    ]
    for each in criteria:
        assert [record.id for record in gateway.find(**each)] == [parcel], each
    assert gateway.find(context={"parcel": "17"}) == []  # the type counts
    assert gateway.find(context={"customer.vip": 1}) == []
    assert len(gateway.find("+15551234568", limit=3)) == 3
    for nothing in ({}, {"provider": "main"}):
        with pytest.raises(ValueError, match="needs a number, or one of idempotency_key="):
            gateway.find(**nothing)
    with pytest.raises(TypeError, match="for a value in a dict write"):
        gateway.find(context={"parcel": {"id": 17}})


def test_all_messages_of_all_states_are_searched_past_damaged_ones(
    run_json: RunJson, gateway: Gateway, make: Callable[..., str]
) -> None:
    for state in ("queued", "retrying", "sending", "unknown", "failed"):
        make(state)
    batch = [OutgoingMessage("15550001", "hi").options(context={"order": n}) for n in range(1200)]
    ids = [message.id or "" for message in gateway.send_many(batch)]
    gateway.cancel(ids[7])
    gateway.ledger.redis.hset(f"{gateway.settings.namespace}:msg:{ids[8]}", "data", "{")
    gateway.ledger.redis.delete(f"{gateway.settings.namespace}:msg:{ids[9]}")
    gateway.ledger.redis.set(f"{gateway.settings.namespace}:msg:{ids[9]}", "no record")
    for n in (0, 7, 1199):
        assert [i["id"] for i in run_json("find", "--context", f"order={n}")["items"]] == [ids[n]]


def test_a_message_that_changes_its_state_during_the_search_is_found(
    gateway: Gateway, parcel: str, others: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes back to a state that was read before."""
    run = LedgerReader._matching
    moved = []

    def matching(reader: LedgerReader, *index: str, **arguments: Any) -> Any:
        if index == ("state", "sent") and not moved:
            assert gateway.ledger.redis.hset(
                f"{gateway.settings.namespace}:msg:{parcel}", "state", "retrying"
            ) in (0, 1)
            now = gateway.ledger.now() * 1000
            gateway.ledger.redis.zrem(f"{gateway.settings.namespace}:state:sent", parcel)
            gateway.ledger.redis.zadd(f"{gateway.settings.namespace}:state:retrying", {parcel: now})
            moved.append(parcel)
        return run(reader, *index, **arguments)

    monkeypatch.setattr(LedgerReader, "_matching", matching)
    assert [record.id for record in gateway.find(context={"parcel": 17})] == [parcel]
    assert moved


def test_an_interrupted_search_goes_on_where_it_ended(
    run: Run, run_json: RunJson, gateway: Gateway, parcel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [OutgoingMessage("15550001", "x").options(context={"parcel": 17}) for _ in range(250)]
    ids = {message.id or "" for message in gateway.send_many(batch)}
    search = LedgerReader.search
    command = ("find", "--context", "parcel=17", "--limit", "1000")

    def interrupted(reader: LedgerReader, *arguments: Any, **options: Any) -> Any:
        pages = search(reader, *arguments, **options)
        yield next(pages)  # of those that are being sent
        yield next(pages)
        raise KeyboardInterrupt

    monkeypatch.setattr(LedgerReader, "search", interrupted)
    error = run(*command, code=1).stderr
    assert re.search(r"interrupted after \d+ messages: the same command with --continue \S+", error)
    first = run_json(*command, code=1)
    monkeypatch.undo()
    rest = run_json(*command, "--continue", first["continue"])
    assert rest["continue"] is None
    found = [item["id"] for item in (*first["items"], *rest["items"])]
    assert sorted(found) == sorted({*ids, parcel})
    assert "not a place" in run("find", "--tag", "x", "--continue", "here", code=2).stderr


def test_find_needs_something_to_search_by(run: Run) -> None:
    assert "find what?" in run("find", code=2).stderr
    assert "beside --provider" in run("find", "--provider", "main", code=2).stderr
    assert "as NAME=VALUE" in run("find", "--context", "parcel", code=2).stderr


@pytest.mark.parametrize(
    ("query", "found_by"),
    [
        ("parcel-17", "idempotency key"),
        ("SM-1", "provider's message id"),
        ("+15551234567", "number"),
        ("parcels", "tag"),
        ("parcel=17", "context"),
    ],
)
def test_show_accepts_what_names_a_message(
    run: Run, run_json: RunJson, parcel: str, others: list[str], query: str, found_by: str
) -> None:
    shown = run_json("show", query)
    assert (shown["id"], shown["found_by"]) == (parcel, found_by)
    text = run("show", query).stdout
    assert text.startswith(f"found by     {found_by}\nid           {parcel}\n")
    for word in ("15551234567", "secret"):
        assert word not in text + json.dumps(shown)
    assert run_json("show", parcel)["found_by"] == "id"


def test_show_lists_several_matches(run: Run, run_json: RunJson, gateway: Gateway) -> None:
    by_number = gateway.send(OutgoingMessage("+15551234567", "x").options(tag="a")).id
    by_key = gateway.send(
        OutgoingMessage("+15550001", "x").options(idempotency_key="15551234567")
    ).id
    document = run_json("show", "15551234567")
    assert [(item["id"], item["found_by"]) for item in document["items"]] == [
        (by_key, "idempotency key"),
        (by_number, "number"),
    ]
    text = run("show", "15551234567").stdout
    assert "2 found by idempotency key, number: show one by its id" in text
    gateway.ledger.redis.hset(f"{gateway.settings.namespace}:msg:{by_number}", "data", "{")
    assert run_json("show", "a")["state"] == "damaged"
