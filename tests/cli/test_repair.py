"""smsqueue cancel, requeue, settle, replay"""

from __future__ import annotations

import pytest

from smsqueue import Gateway, IncomingMessage, OutgoingMessage


def _send(gateway: Gateway) -> str:
    id = gateway.send(OutgoingMessage("15551234567", "x")).id
    assert id
    return id


def _unknown(gateway: Gateway) -> str:
    id = _send(gateway)
    gateway.ledger.claim(id, "token", lease=60, worker="w")
    gateway.ledger.begin(id, "token", "main", lease=60, attempt=1)
    gateway.ledger.settle(id, "token", 1, {"verdict": "unknown", "provider": "main"})
    assert gateway.lookup(id).state == "unknown"
    return id


def test_cancel_several(run, run_json, gateway: Gateway) -> None:
    one, two, three = _send(gateway), _unknown(gateway), _send(gateway)
    results = run_json("cancel", one, two, "nothing", three, code=1)["results"]
    assert [result["done"] for result in results] == [True, False, False, True]
    assert [result["state"] for result in results] == ["cancelled", "unknown", None, "cancelled"]
    assert gateway.lookup(three).state == "cancelled"
    assert "only what is queued" in run("cancel", two, code=1).stderr
    run("cancel", code=2)


def test_requeue(run, gateway: Gateway) -> None:
    id = _unknown(gateway)
    assert f"{id}: queued again" in run("requeue", id, "--expires", "5").stdout
    assert gateway.lookup(id).state == "queued"
    assert "it is queued" in run("requeue", id, code=1).stderr
    for bad in ("0", "-1", "nan", "inf"):
        run("requeue", id, "--expires", bad, code=2)


def test_settle(run, gateway: Gateway) -> None:
    id = _unknown(gateway)
    assert "failed" in run("settle", id, "failed", code=2).stderr
    assert "settled as delivered" in run("settle", id, "delivered").stdout
    assert gateway.lookup(id).state == "delivered"
    assert "it is delivered" in run("settle", id, "sent", code=1).stderr


@pytest.mark.parametrize("verdict", ["dead", "unheard"])
def test_replay(run, run_json, gateway: Gateway, verdict: str) -> None:
    _, id = gateway.ledger.receive(IncomingMessage("15551234567", "x", "m"), repeats=False)
    assert "it is waiting" in run("replay", id, code=1).stderr
    gateway.ledger.hook_claim(id, "token", "w")
    gateway.ledger.hook_settle(id, "token", verdict, delay=0, why="why", done=[])
    results = run_json("replay", id)["results"]
    assert results == [{"id": id, "done": True, "state": "waiting", "problem": None}]
    assert "nothing" in run("replay", "nothing", code=1).stderr
