"""smsqueue cancel, requeue, settle, replay"""

from __future__ import annotations

import json

import pytest

from smsqueue import Gateway, OutgoingMessage, exc
from smsqueue.ledger import AttemptOutcome


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


def test_redis_fails_halfway(run, make, monkeypatch) -> None:
    ids = [make("failed") for _ in range(3)]
    requeue = Gateway.requeue

    def fail_at_second(gateway: Gateway, id: str, *args: object, **kwargs: object) -> bool:
        if id == ids[1]:
            raise exc.QueueUnavailable("Redis at x cannot be reached")
        return requeue(gateway, id, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Gateway, "requeue", fail_at_second)
    result = run("requeue", *ids, code=1)
    assert result.stdout == f"{ids[0]}: queued again\n1 queued again, 2 not tried\n"
    assert (
        "cannot be reached. Then run the same command again: it does nothing twice" in result.stderr
    )
    document = json.loads(run("requeue", *ids, "--json", code=1).stdout)
    assert (document["done"], document["not_done"]) == (0, 3)
