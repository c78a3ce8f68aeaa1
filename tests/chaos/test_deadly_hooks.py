"""A handler that kills its worker whenever it runs: it is given up, and harms nobody else."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from smsqueue import IncomingMessage, OutgoingMessage
from tests.chaos.invariants import check
from tests.chaos.load import come_in, send
from tests.chaos.rig import Rig, until

if TYPE_CHECKING:
    from smsqueue import Gateway

#: Lowered from 25, so that there is an end to it: each death costs a lease and a start.
TRIES = 4


def _deadly(message: IncomingMessage) -> None:
    from tests.chaos.app import _note

    _note("began", id=message.id, msgid=message.msgid)
    if message.body == "die":
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)


def __getattr__(name: str) -> Gateway:
    """``gateway``: what the workers load."""
    if name != "gateway":
        raise AttributeError(name)
    from tests.chaos.app import gateway

    gateway.retry = replace(gateway.retry, attempts=TRIES)
    gateway.onReceive += _deadly
    globals()["gateway"] = gateway
    return gateway


def _state(rig: Rig, event: str) -> str:
    return str(rig.direct.hget(rig.key("event", event), "state"))


def _others(rig: Rig, count: int) -> tuple[list[str], list[str]]:
    """Incoming messages that kill nobody, and messages to be sent: their ids."""
    made = len(rig.book.sent)
    events = [come_in(rig, f"fine-{made + n}", "hello") for n in range(count)]
    sent = [send(rig, OutgoingMessage(f"15551{made + n}", "accept")) for n in range(count)]
    return events, [str(id) for id in sent]


def test_an_event_that_kills_every_worker_is_given_up(make_rig: Callable[..., Rig]) -> None:
    more = {"SMSQUEUE_GATEWAY": f"{__name__}:gateway", "SMSQUEUE_HOOK_LEASE": "2"}
    more["SMSQUEUE_HANDLER_TIMEOUT"] = "1.6"
    rig = make_rig(environment=more)
    deadly = come_in(rig, "deadly", "die")
    events, sent = _others(rig, 5)
    with rig.hits.during():
        while _state(rig, deadly) != "dead":
            until(lambda: _state(rig, deadly) == "dead" or _dead(rig), what="a death, or the end")
            rig.heal()
            assert _began(rig) <= TRIES
            more_events, more_sent = _others(rig, 5)
            events, sent = events + more_events, sent + more_sent
    assert rig.direct.hget(rig.key("event", deadly), "why") == "its workers died of it"

    # From now on the workers live, even if it is asked for once more.
    rig.heal()
    alive = [worker.pid for worker in rig.workers]
    rig.gateway.queue.hook([deadly] * 3)
    more_events, more_sent = _others(rig, 20)
    rig.settle()
    assert rig.survived()
    assert [worker.pid for worker in rig.workers] == alive
    assert _state(rig, deadly) == "dead"
    assert _began(rig) == TRIES

    # Others were at worst in the same worker when it died: these ran again, or are uncertain.
    assert {_state(rig, event) for event in events + more_events} == {"done"}
    known = rig.records()
    assert {known[id].state for id in more_sent} == {"sent"}
    assert {known[id].state for id in sent} <= {"sent", "unknown"}
    check(rig)


def _began(rig: Rig) -> int:
    return sum((line["kind"], line.get("msgid")) == ("began", "deadly") for line in rig.heard())


def _dead(rig: Rig) -> bool:
    return not all(worker.alive for worker in rig.workers)
