"""smsqueue cancel, requeue, settle, replay"""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Callable
from typing import Any

import pytest

from smsqueue import Gateway, OutgoingMessage, exc
from smsqueue.ledger import AttemptOutcome, Ledger


def _state(gateway: Gateway, *ids: str) -> list[str]:
    return [str(gateway.lookup(id).state) for id in ids]


def test_cancel_goes_on_after_a_failure(run, run_json, make, gateway: Gateway) -> None:
    one, two, three = make("queued"), make("unknown"), make("queued")
    document = run_json("cancel", one, two, "nothing", three, code=1)
    assert (document["dry_run"], document["done"], document["not_done"]) == (False, 2, 2)
    results = document["results"]
    assert [result["done"] for result in results] == [True, False, False, True]
    assert [result["state"] for result in results] == ["cancelled", "unknown", None, "cancelled"]
    assert gateway.lookup(three).state == "cancelled"
    assert (
        "only queued, scheduled or retrying messages can be cancelled"
        in run("cancel", two, code=1).stderr
    )
    run("cancel", code=2)


def test_requeue(run, make, gateway: Gateway) -> None:
    id = make("unknown")
    assert run("requeue", id, "--expires", "5").stdout == f"{id}: queued again\n"
    assert gateway.lookup(id).state == "queued"
    assert "it is queued" in run("requeue", id, code=1).stderr
    for bad in ("0", "-1", "nan", "inf"):
        run("requeue", id, "--expires", bad, code=2)


def test_settle(run, make, gateway: Gateway) -> None:
    one, two = make("unknown"), make("unknown")
    assert "failed" in run("settle", one, two, "--as", "failed", code=2).stderr
    assert "--as" in run("settle", one, code=2).stderr
    result = run("settle", "--as", "delivered", one, two)
    assert f"{one}: settled as delivered\n" in result.stdout
    assert result.stdout.endswith("\n2 settled as delivered\n")
    assert _state(gateway, one, two) == ["delivered"] * 2
    assert "it is delivered" in run("settle", one, "--as", "sent", code=1).stderr


@pytest.mark.parametrize("verdict", ["dead", "unheard"])
def test_replay(run, run_json, make, verdict: str) -> None:
    waiting = make("waiting")
    assert "it is waiting" in run("replay", waiting, code=1).stderr
    one, two = make(verdict), make(verdict)
    results = run_json("replay", "-", input=f"{one}\n{two}\n")["results"]
    assert results == [
        {"id": id, "done": True, "state": "waiting", "problem": None} for id in (one, two)
    ]
    assert "nothing" in run("replay", "nothing", code=1).stderr


def test_filters_select_the_messages(run, make, gateway: Gateway) -> None:
    failed = [make("failed", error="RequestError", code="7") for _ in range(3)]
    others = [make("failed", "backup"), make("unknown"), make("failed", error="AuthError")]
    arguments = ("--state", "failed", "--provider", "main", "--error", "7", "--since", "1h")
    result = run("requeue", *arguments, "--limit", "2")
    assert result.stdout.endswith("2 queued again\n")
    assert _state(gateway, *failed) == ["failed", "queued", "queued"]
    assert run("requeue", *arguments).stdout == f"{failed[0]}: queued again\n"
    assert run("requeue", *arguments).stdout == "no message matches\n"
    assert _state(gateway, *others) == ["failed", "unknown", "failed"]
    assert run("cancel", "--state", "queued").stdout.endswith("3 cancelled\n")
    assert run("settle", "--as", "sent", "--state", "unknown").exit_code == 0
    assert _state(gateway, others[1]) == ["sent"]


def test_ambiguous_selections_are_refused(run, make, gateway: Gateway) -> None:
    ids = [make("failed"), make("unknown")]
    assert "--state" in run("requeue", "--provider", "main", code=2).stderr
    assert "--state" in run("requeue", "--limit", "5", code=2).stderr
    assert "not both" in run("requeue", ids[0], "--state", "failed", code=2).stderr
    assert "'sent'" in run("requeue", "--state", "sent", code=2).stderr
    assert "which messages?" in run("requeue", code=2).stderr
    run("settle", "--as", "sent", "--state", "failed", code=2)
    assert _state(gateway, *ids) == ["failed", "unknown"]
    result = run("requeue", "--state", "unknown")
    assert "unknown messages may have arrived; those arrive twice" in result.stderr
    assert _state(gateway, *ids) == ["failed", "queued"]


def test_dry_run(run, run_json, make, gateway: Gateway) -> None:
    one, two = make("failed"), make("queued")
    arguments = ("requeue", "--state", "failed", "--dry-run")
    assert run(*arguments).stdout == f"{one}: is failed, would be queued again\n"
    document = run_json("requeue", one, two, "gone", "--dry-run", code=1)
    assert (document["dry_run"], document["done"], document["not_done"]) == (True, 1, 2)
    result = run("requeue", one, two, "gone", "--dry-run", code=1)
    assert result.stdout.endswith("1 would be queued again, 2 not: 1 queued, 1 gone\n")
    assert _state(gateway, one, two) == ["failed", "queued"]


def test_ids_from_standard_input(run, run_json, make, gateway: Gateway) -> None:
    one, two = make("failed"), make("failed")
    result = run("requeue", "-", two, input=f"{one}\n {two}\n")
    assert result.stdout.endswith("2 queued again\n")
    assert _state(gateway, one, two) == ["queued"] * 2
    assert "no ids" in run("requeue", "-", input="").stdout
    assert run_json("requeue", "-", input="")["results"] == []


@pytest.mark.parametrize(("answer", "code", "state"), [("y", 0, "queued"), ("n", 1, "failed")])
def test_filters_ask_for_confirmation_at_a_terminal(
    run, make, gateway: Gateway, monkeypatch, answer: str, code: int, state: str
) -> None:
    monkeypatch.setattr("smsqueue.cli.bulk.is_interactive", lambda: True)
    id = make("failed")
    result = run("requeue", "--state", "failed", code=code, input=f"{answer}\n")
    assert "Send again 1 message? [y/N]" in result.stderr
    assert _state(gateway, id) == [state]
    for arguments in (("--yes",), ("--dry-run",)):
        assert "?" not in run("requeue", "--state", "failed", *arguments).stderr


def test_500_messages_at_once(run, gateway: Gateway) -> None:
    """The broker's queue stays short: the other messages are due, and upkeep publishes them."""
    settings, ledger = gateway.settings, gateway.ledger
    sent = gateway.send_many(OutgoingMessage("15551234567", "x") for _ in range(500))
    for message in sent:
        id = message.id or ""
        ledger.claim(id, "token", lease=60, worker="w")
        ledger.begin(id, "token", "main", lease=60, attempt=1)
        failed = AttemptOutcome("failed", "main", error="X", event=f"e{id}")
        ledger.settle(id, "token", 1, failed)
    ledger.redis.delete(settings.send_key)
    result = run("requeue", "--state", "failed", "--provider", "main", "--since", "2h")
    assert (result.stdout, result.stderr) == ("500 queued again\n", "")
    assert ledger.counts()["queued"] == 500
    assert ledger.queued_triggers()[settings.send_queue] == 8
    assert ledger.backlog()["send"].due == 492
    # A single message is published at once, before them.
    id = sent[0].id or ""
    gateway.cancel(id)
    one = sent[1].id or ""
    ledger.claim(one, "token", lease=60, worker="w")
    ledger.begin(one, "token", "main", lease=60, attempt=2)
    ledger.settle(one, "token", 2, AttemptOutcome("unknown", "main"))
    before = ledger.queued_triggers()[settings.send_queue]
    run("requeue", one)
    assert ledger.queued_triggers()[settings.send_queue] == before + 1
    # Of many failures the first 20 are printed, and their number.
    ids = [message.id or "" for message in sent]
    result = run("cancel", *ids, *(f"gone{n}" for n in range(30)), code=1)
    assert result.stdout == "499 cancelled, 31 not: 30 gone, 1 cancelled\n"
    assert len(result.stderr.splitlines()) == 20


def fail_after_a_step(monkeypatch, failure: Callable[[], None]) -> None:
    """Something happens after the first step of the next bulk operation."""
    bulk_step, steps = Ledger._bulk_step, iter((True,))

    def step(ledger: Ledger, *arguments: Any) -> Any:
        answer = bulk_step(ledger, *arguments)
        if next(steps, False):
            failure()
        return answer

    monkeypatch.setattr(Ledger, "_bulk_step", step)


def test_redis_fails_halfway(run, make, gateway: Gateway, monkeypatch) -> None:
    ids = [make("queued") for _ in range(3)]
    bulk_by_ids = Ledger.bulk_by_ids

    def fail_after_the_first(ledger: Ledger, operation: Any, ids: Any, **how: Any) -> Any:
        yield from bulk_by_ids(ledger, operation, list(ids)[:1], **how)
        raise exc.QueueUnavailable("Redis at x cannot be reached")

    monkeypatch.setattr(Ledger, "bulk_by_ids", fail_after_the_first)
    result = run("cancel", *ids, code=1)
    assert result.stdout == f"{ids[0]}: cancelled\n1 cancelled, 2 not tried\n"
    assert (
        "cannot be reached. Then run the same command again: it does nothing twice" in result.stderr
    )
    document = json.loads(run("cancel", *ids[1:], "--json", code=1).stdout)
    assert (document["done"], document["not_done"], document["interrupted"]) == (1, 1, True)


def test_ctrl_c_ends_after_a_step_and_says_how_to_go_on(
    run, make, gateway: Gateway, monkeypatch
) -> None:
    """What was sent again and failed again meanwhile is left out of the rest."""
    sent = gateway.send_many(OutgoingMessage("15551234567", "x") for _ in range(450))
    gateway.cancel_all(state="queued")
    fail_after_a_step(monkeypatch, lambda: signal.raise_signal(signal.SIGINT))
    arguments = ("requeue", "--state", "cancelled", "--since", "1h", "--expires", "5")
    result = run(*arguments, code=1)
    done = gateway.ledger.counts()["queued"]
    assert 0 < done < 450
    assert result.stdout.endswith(f"{done} queued again, the others not tried\n")
    once_more = next(m.id for m in sent if gateway.lookup(m.id or "").state == "queued")
    gateway.cancel(once_more or "")
    command = result.stderr.partition("Interrupted. To go on, run: ")[2]
    _, *words = shlex.split(command)
    assert words[:3] == ["requeue", "--state", "cancelled"]
    result = run(*words)
    assert result.stdout == f"{450 - done} queued again\n"
    assert _state(gateway, once_more or "") == ["cancelled"]


def test_a_second_ctrl_c_ends_at_once(run, make, monkeypatch) -> None:
    id = make("queued")

    def press_twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it goes on")

    fail_after_a_step(monkeypatch, press_twice)
    assert "Interrupted" in run("cancel", id, code=1).stderr


def test_json_is_one_document_with_a_result_per_line(run, gateway: Gateway) -> None:
    gateway.send_many(OutgoingMessage("15551234567", "x") for _ in range(30))
    output = run("cancel", "--state", "queued", "--json").stdout
    document = json.loads(output)
    lines = [line.strip().rstrip(",") for line in output.splitlines()]
    results = [json.loads(line) for line in lines if line.startswith('{"id"')]
    assert results == document["results"]
    assert len(results) == document["done"] == 30
    assert document["done_by_state"] == {"queued": 30}
    assert json.loads(run("cancel", "--state", "queued", "--json").stdout)["results"] == []


def test_cancel_by_tag_says_what_is_being_sent(run, run_json, make, gateway: Gateway) -> None:
    tagged = [
        gateway.send(OutgoingMessage("15551234567", "x").options(tag="sale")).id or ""
        for _ in range(3)
    ]
    other = make("queued")
    gateway.ledger.claim(tagged[0], "t", lease=60, worker="w")
    counted = run_json("cancel", "--tag", "sale", "--dry-run", code=1)
    assert counted["done_by_state"] == {"queued": 2}
    assert counted["not_done_by_state"] == {"sending": 1}
    result = run("cancel", "--tag", "sale", code=1)
    assert result.stdout.endswith("2 cancelled, 1 not: 1 sending\n")
    assert _state(gateway, *tagged, other) == ["sending", "cancelled", "cancelled", "queued"]


def test_replay_by_state(run, make) -> None:
    for _ in range(2):
        make("dead")
    make("unheard")
    assert run("replay", "--state", "dead", "--dry-run").stdout.endswith(
        "2 would be given to all handlers again (2 dead)\n"
    )
    assert run("replay", "--state", "dead", "--provider", "other").stdout == "no event matches\n"
    assert run("replay", "--state", "dead").stdout.endswith("2 given to all handlers again\n")
    assert "--state" in run("replay", "--provider", "main", code=2).stderr


def test_repair_all_that_was_set_aside(run, make, gateway: Gateway) -> None:
    ids = [make("queued") for _ in range(2)]
    for id in ids:
        gateway.ledger.redis.hset(f"{gateway.settings.namespace}:msg:{id}", "tries", "x")
    run("cancel", *ids, code=1)
    assert run("repair", "--all").stdout.endswith("2 repaired\n")
    assert _state(gateway, *ids) == ["queued", "queued"]
    run("repair", "--all", ids[0], code=2)
    run("repair", code=2)
