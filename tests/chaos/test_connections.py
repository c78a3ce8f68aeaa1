"""Connections to Redis that break at the worst moment: the command was done, its answer is lost."""

from __future__ import annotations

import time

import pytest

from smsqueue import OutgoingMessage
from smsqueue.message.states import State
from tests.chaos.carrier import Webhooks
from tests.chaos.faults import SCRIPTS
from tests.chaos.invariants import check
from tests.chaos.load import CALM, Load, send
from tests.chaos.rig import Rig, until


@pytest.mark.parametrize("where", ["request", "reply", "half"])
def test_an_exchange_is_cut(rig: Rig, where: str) -> None:
    with Webhooks(rig), Load(rig, 40, texts=CALM):
        pass  # so that Redis knows the scripts, and answers with more than that it does not
    rig.settle()
    rules = {script: rig.cut(script, where=where, left=3) for script in SCRIPTS}
    deadline = time.monotonic() + 100
    while any(rule.left for rule in rules.values()):
        left = [script for script, rule in rules.items() if rule.left]
        assert time.monotonic() < deadline, f"never cut: {left}"
        with Webhooks(rig), Load(rig, 10, texts=CALM, seconds=0.5, impatient=0.2):
            pass
    rig.settle()
    check(rig)
    assert rig.survived()


def test_triggers_are_cut_on_their_way_to_a_worker(rig: Rig) -> None:
    rule = rig.proxy.cut(b"BRPOP", reply=b"smsqueue.", left=5)
    while rule.left:
        with Load(rig, 10, texts=CALM):
            pass
        until(lambda: not rule.left or not rig.open(), what="a trigger")
    rig.settle()
    assert rule.fired == 5
    check(rig)
    assert rig.survived()


def test_every_connection_is_cut_again_and_again(rig: Rig) -> None:
    with Webhooks(rig), Load(rig, 120, texts=CALM, seconds=3) as load:
        while load.running:
            time.sleep(rig.dice.uniform(0.1, 0.4))
            rig.cut_all()
    rig.settle()
    check(rig)
    assert rig.survived()


def _unknown(rig: Rig) -> set[str]:
    return set(rig.gateway.ledger.ids_in(State.UNKNOWN, limit=1000))


def test_connections_are_half_open(rig: Rig) -> None:
    before = _unknown(rig)
    with Load(rig, 60, texts=CALM, seconds=2):
        time.sleep(0.5)
        with rig.blackhole():
            time.sleep(1)
    # Those of the workers are noticed by their own timeouts, which are longer than the leases here.
    # One that lay idle meanwhile may be used much later, for an outcome. Nobody died: all come.
    began = time.monotonic()
    send(rig, OutgoingMessage("15550001", "accept"))
    rig.settle()
    assert time.monotonic() - began < 60
    until(lambda: _unknown(rig) <= before, what="late outcomes")
    rig.settle()
    check(rig)
    assert rig.survived()
