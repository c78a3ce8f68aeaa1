"""smsqueue purge: events of webhooks are deleted, sent messages stay as they are."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from smsqueue import Gateway, IncomingMessage, MessageDelivered, OutgoingMessage
from smsqueue.ledger import AttemptOutcome
from smsqueue.message.messages import Part
from tests.cli.conftest import Run

_numbers = itertools.count(1)


@pytest.fixture
def receive(gateway: Gateway) -> Callable[..., str]:
    """Records an incoming message; its event."""

    def call(provider: str = "flooded", **fields: Any) -> str:
        message = IncomingMessage("15551234567", "the secret text", f"m{next(_numbers)}")
        message.provider = provider
        vars(message).update(fields)
        return gateway.ledger.receive(message, repeats=True)[1]

    return call


@pytest.fixture
def report(gateway: Gateway) -> Callable[..., None]:
    def call(msgid: str, provider: str = "flooded") -> None:
        status = MessageDelivered(msgid)
        status.provider = provider
        gateway.ledger.report(status, pids=[msgid])

    return call


def _keys(gateway: Gateway) -> set[str]:
    prefix = f"{gateway.settings.namespace}:"
    return {key.removeprefix(prefix) for key in gateway.ledger.redis.scan_iter(f"{prefix}*")}


def _held(gateway: Gateway) -> dict[str, tuple[int, int]]:
    usage = gateway.ledger.room().webhooks
    return {webhooks.provider: (webhooks.waiting, webhooks.held) for webhooks in usage}


def test_only_matching_events_of_webhooks_are_deleted(
    gateway: Gateway, run: Run, run_json, make, receive, report
) -> None:
    gateway.onStatus.connect(lambda status: None, name="heard")
    for _ in range(450):  # several pages
        receive()
    neighbours = [receive("neighbour") for _ in range(3)]
    dead, running = receive(), receive()
    gateway.ledger.claim_event(dead, "token", "w")
    gateway.ledger.settle_event(dead, "token", "dead", delay=0, why="why")
    gateway.ledger.claim_event(running, "token", "w")
    receive(part=Part("7", 1, 2))
    failed = make("failed", "flooded")  # its end is an event, too, but no webhook recorded it
    report("unknown")
    before = gateway.ledger.counts()

    command = ("purge", "--provider", "flooded")
    output = run(*command, "--dry-run").stdout
    assert output.startswith("453 events would be deleted, ")
    assert gateway.ledger.counts() == before
    # Without a terminal nothing is deleted unless --yes is given.
    assert "453 events" in run(*command, code=2).stderr
    assert gateway.ledger.counts() == before
    assert run_json(*command, "--kind", "status", "--yes")["number"] == 1
    answer = run(*command, "--yes")
    assert answer.stdout.startswith("452 events deleted, ")
    assert "1 event is being handled by a worker and kept" in answer.stderr

    after = gateway.ledger.counts()
    assert after | {"waiting": 0, "parked": 0, "dead": 0} == before | {
        "waiting": 0,
        "parked": 0,
        "dead": 0,
    }
    assert (after["waiting"], after["parked"], after["dead"]) == (4, 0, 0)
    assert gateway.lookup(failed).state == "failed"
    assert set(gateway.ledger.ids_in("waiting")) == {*neighbours, f"event-of-{failed}"}  # type: ignore[arg-type]
    assert _held(gateway)["flooded"][0] == 1  # the one that a worker handles
    assert _held(gateway)["neighbour"][0] == 3
    keys = _keys(gateway)
    assert not [key for key in keys if key.startswith("parts:")]
    events = {key for key in keys if key.startswith("event:")}
    assert events == {f"event:{id}" for id in (*neighbours, running, f"event-of-{failed}")}
    # Its worker finishes it, and no memory is counted any more.
    assert gateway.ledger.settle_event(running, "token", "done", delay=0, why="")[0] == "done"
    assert _held(gateway)["flooded"] == (0, 0)


def test_sent_messages_and_their_reports_stay(
    gateway: Gateway, run: Run, make, receive, report
) -> None:
    waits = gateway.send(OutgoingMessage("15551234567", "hi").options(status_report=True)).id or ""
    gateway.ledger.claim(waits, "token", lease=60, worker="w")
    gateway.ledger.begin(waits, "token", "flooded", lease=60, attempt=1)
    report("early")  # its send is not settled yet
    sent = make("sent", "flooded")
    report(gateway.lookup(sent).msgid or "")
    assert gateway.lookup(sent).state in ("delivered", "sent")
    states = {id: gateway.lookup(id).state for id in (waits, sent)}
    run("purge", "--all", "--yes")
    assert {id: gateway.lookup(id).state for id in (waits, sent)} == states
    outcome = AttemptOutcome("sent", "flooded", msgid='"early"', msgids=("early",))
    gateway.ledger.settle(waits, "token", 1, outcome)
    assert gateway.lookup(waits).state == "delivered"
    # A webhook that its provider repeats is not recorded again.
    report("early")
    assert gateway.ledger.counts()["parked"] == gateway.ledger.counts()["waiting"] == 0


def test_by_age_and_state(gateway: Gateway, run: Run, run_json, receive) -> None:
    event = receive()
    assert run_json("purge", "--before", "1h", "--yes")["number"] == 0
    assert run_json("purge", "--since", "1h", "--state", "dead", "--yes")["number"] == 0
    done = receive()
    gateway.ledger.claim_event(done, "token", "w")
    gateway.ledger.settle_event(done, "token", "done", delay=0, why="")
    assert run_json("purge", "--since", "1h", "--state", "done", "--yes")["number"] == 1
    assert gateway.ledger.ids_in("waiting") == [event]  # type: ignore[arg-type]
    assert run_json("purge", "--since", "1h", "--yes") == {
        "dry_run": False,
        "number": 1,
        "bytes": pytest.approx(2100, rel=0.1),
        "running": 0,
    }
    run("purge", code=2)


def test_events_that_an_older_version_recorded_are_found(
    gateway: Gateway, run_json, receive
) -> None:
    receive()
    receive("neighbour")
    for event in gateway.ledger.ids_in("waiting"):  # type: ignore[arg-type]
        gateway.ledger.redis.hdel(f"{gateway.settings.namespace}:event:{event}", "held")
    assert run_json("purge", "--provider", "flooded", "--yes")["number"] == 1
    assert gateway.ledger.counts()["waiting"] == 1


def test_mistakes_are_refused_instead_of_deleting_0_events(run: Run, receive) -> None:
    receive()
    env = {"SMSQUEUE_PROVIDER_AFRICA": "log://default", "SMSQUEUE_GATEWAY": ""}

    def refusal(*words: str) -> str:
        return " ".join(run("purge", *words, "--yes", code=2, **env).stderr.split())

    assert "no provider 'afrika'; known providers: africa, flooded" in refusal(
        "--provider", "afrika"
    )
    assert "--before is earlier than --since" in refusal("--since", "1h", "--before", "2h")
    assert "--all accepts no filters" in refusal("--all", "--provider", "flooded")
    for known in ("africa", "flooded", "flooded"):  # known by its totals in the end
        assert run("purge", "--provider", known, "--yes", **env).stdout.split()[1][:5] == "event"
