"""Pauses by operators, with real workers."""

from __future__ import annotations

import signal
from collections.abc import Callable

from smsqueue import Gateway, OutgoingMessage
from smsqueue.message.states import State
from tests.workers.conftest import Worker, until

GATEWAY = """
from smsqueue import Gateway
from smsqueue.providers import NullProvider

gateway = Gateway()
gateway.add_provider("main", NullProvider)
gateway.add_provider("other", NullProvider)
"""


def _sale(number: int) -> list[OutgoingMessage]:
    return [OutgoingMessage("15550001", str(n)).options(tag="sale") for n in range(number)]


def test_a_paused_tag_waits_beside_others_and_goes_out_once(
    gateway: Gateway, start_worker: Callable[..., Worker]
) -> None:
    workers = [start_worker(GATEWAY, "-n", f"w{n}@%h") for n in range(2)]
    gateway.pause(tag="sale", reason="wrong price")
    gateway.send_many(_sale(500))
    until(lambda: gateway.pauses()[0].waiting == 500)
    assert gateway.ledger.backlog()["send"].due == 0
    password = gateway.send(OutgoingMessage("15550001", "one-time password").options(tag="otp"))
    until(lambda: gateway.lookup(password.id or "").state == State.SENT)
    workers[0].stop(signal.SIGKILL)
    assert gateway.ledger.counts()["queued"] == 500
    gateway.resume(tag="sale")
    until(lambda: gateway.ledger.counts()["sent"] == 501)
    assert gateway.ledger.counters()["attempts", "main"] == 501
    assert gateway.pauses() == []


def test_everything_goes_on_when_the_pause_is_over(
    gateway: Gateway, start_worker: Callable[..., Worker]
) -> None:
    start_worker(GATEWAY)
    gateway.pause(everything=True, length=3)
    gateway.pause(provider="other", length=3)
    gateway.send_many(_sale(20))
    gateway.send(OutgoingMessage("15550001", "x", provider="other"))
    until(lambda: gateway.ledger.counts()["sent"] == 21)
    assert gateway.pauses() == []
    began = {entry.action: entry.at for entry in gateway.audit()}["pause"]
    assert all(
        (record.changed_at - began).total_seconds() > 2.5
        for record in gateway.ledger.select([State.SENT])
    )
