"""Workers that end, are replaced, lose their queue, or sleep for longer than their leases."""

from __future__ import annotations

import os
import signal

import pytest

from smsqueue import OutgoingMessage
from tests.chaos.carrier import Webhooks
from tests.chaos.invariants import check
from tests.chaos.load import CALM, Load, reach, send
from tests.chaos.rig import Rig, until


def test_a_rolling_restart_under_load_ends_nothing_unknown(rig: Rig) -> None:
    old = list(rig.workers)
    # Slow ones, so that each worker has calls under way when it is asked to end.
    with Webhooks(rig), Load(rig, 120, texts=CALM | {"slow": 20}, seconds=4):
        for worker in old:
            rig.start_workers(1)
            os.kill(worker.pid, signal.SIGTERM)
            until(lambda w=worker: not w.alive, what="a warm shutdown")
    rig.settle()
    assert check(rig).unknown == 0


def test_a_purge_loses_nothing(rig: Rig) -> None:
    for worker in rig.workers:
        worker.stop()
    with Load(rig, 40, texts=CALM):
        pass
    # A trigger that somebody makes by hand meanwhile is no message.
    assert int(rig.direct.llen(rig.settings.send_key)) >= 20
    said = rig.celery("purge", "-f")
    assert "Purged" in said
    assert int(rig.direct.llen(rig.settings.send_key)) == 0
    rig.heal()
    rig.settle()
    check(rig)


@pytest.mark.parametrize("moment", ["claim-after", "begin-before", "call-before"])
def test_a_worker_sleeps_for_longer_than_its_lease(rig: Rig, moment: str) -> None:
    sleeper = reach(rig, moment, signal.SIGSTOP, texts={"accept": 1})
    assert sleeper in {worker.pid for worker in rig.workers}
    # All that it held has been taken from it, and what could be sent was.
    rig.settle()
    os.kill(sleeper, signal.SIGCONT)
    with Load(rig, 20, texts=CALM):
        pass
    rig.settle()
    check(rig)


def test_a_worker_that_slept_before_its_call_does_not_make_it(rig: Rig) -> None:
    rig.arm("claim-after", signal.SIGSTOP)
    id = str(send(rig, OutgoingMessage("15550001", "accept").options(on_unknown="resend")))
    until(lambda: rig.reached("claim-after"), what="the first attempt")
    until(lambda: rig.records()[id].state == "sent", what="another worker's attempt")
    os.kill(rig.reached("claim-after"), signal.SIGCONT)
    until(lambda: "late outcome: retry" in _reasons(rig, id), what="the late outcome")
    # Its sender would have it twice rather than not at all; but once is enough.
    assert [request["attempt"] for request in rig.asked() if request["id"] == id] == [2]
    rig.settle()
    check(rig)


def _reasons(rig: Rig, id: str) -> set[str | None]:
    return {line.get("why") for line in rig.records()[id].timeline}


def test_a_worker_sleeps_while_its_provider_answers(rig: Rig) -> None:
    sleeper = reach(rig, "call", signal.SIGSTOP, texts={"slow": 1})
    rig.settle()
    os.kill(sleeper, signal.SIGCONT)
    rig.settle()
    check(rig)


def test_a_worker_wakes_while_another_one_has_its_message(rig: Rig) -> None:
    message = OutgoingMessage("15550001", "slow502 slow").options(on_unknown="resend")
    rig.arm("call", signal.SIGSTOP)
    id = str(send(rig, message))
    until(lambda: rig.reached("call"), what="the first attempt")
    rig.arm("settle-before", signal.SIGSTOP)
    until(lambda: rig.reached("settle-before"), what="the second attempt")
    first, second = rig.reached("call"), rig.reached("settle-before")
    assert first != second
    os.kill(first, signal.SIGCONT)
    until(lambda: _late(rig, id), what="the late outcome")
    os.kill(second, signal.SIGCONT)
    rig.settle()
    check(rig)
    record = rig.records()[id]
    lapses = [line for line in record.timeline if "report back" in line.get("why", "")]
    assert (record.state, record.attempts) == ("sent", 1 + len(lapses))


def _late(rig: Rig, id: str) -> bool:
    """Whether the first attempt was settled. Its worker may read the 502, or note that the deadline
    has passed."""
    lines = rig.records()[id].timeline
    return any(line.get("error") in ("ServerError", "ConnectionError") for line in lines)
