"""``make failover``: the primary dies, hangs or is cut off, and in the middle of every transition.

Lost and twice are counted at the provider.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from smsqueue import OutgoingMessage
from tests.chaos.carrier import Carrier, incoming
from tests.chaos.load import CALM, reach
from tests.chaos.points import MOMENTS, RECORDING
from tests.chaos.rig import until
from tests.failover.conftest import ROUNDS
from tests.failover.rig import FailoverRig, confirm_nothing_broken, kill_repeatedly, resume

Make = Callable[..., FailoverRig]
Publish = Callable[..., None]

SETTINGS = pytest.mark.parametrize("wait_replicas", [0, 1])


@SETTINGS
def test_a_killed_primary(make_rig: Make, publish: Publish, wait_replicas: int) -> None:
    kill_repeatedly(make_rig(wait_replicas=wait_replicas), publish, rounds=ROUNDS)


@SETTINGS
def test_a_primary_hangs_and_comes_back(
    make_rig: Make, publish: Publish, wait_replicas: int
) -> None:
    rig = make_rig(wait_replicas=wait_replicas)
    sender = rig.sender()
    for _ in range(ROUNDS):
        sender.wait_for(30)
        old = rig.replicated.primary()
        os.kill(old.process.pid, signal.SIGSTOP)
        rig.replicated.wait_for_failover(old)
        sender.wait_for(30)
        os.kill(old.process.pid, signal.SIGCONT)  # it believes that it is the primary
        sender.wait_for(30)
        rig.come_back(old)
    sender.stop()
    rig.settle()
    counted = rig.count()
    publish(counted, f"failovers={ROUNDS} send={sender.longest:.1f}s")
    assert rig.survived()
    confirm_nothing_broken(rig, counted)


@pytest.mark.parametrize("wait_replicas", [0, 1, 2])
def test_a_replica_is_promoted_and_the_primary_is_not_told(
    make_rig: Make, publish: Publish, wait_replicas: int
) -> None:
    rig = make_rig(wait_replicas=wait_replicas)
    sender = rig.sender()
    for _ in range(ROUNDS):
        sender.wait_for(30)
        with rig.replaced():
            time.sleep(3)  # it goes on for some time
        sender.wait_for(30)
    sender.stop()
    rig.settle()
    counted = rig.count()
    publish(counted, f"failovers={ROUNDS}")
    assert rig.survived()
    # For about a second one replica follows the old primary, and confirms what it does.
    confirm_nothing_broken(rig, counted, replicas=2)


@pytest.mark.parametrize(
    ("wait_replicas", "options"),
    [
        (0, ()),
        (0, ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "2")),
        (1, ()),
    ],
    ids=["nothing", "min-replicas-to-write", "WAIT"],
)
def test_a_part_of_the_processes_is_cut_off_with_the_old_primary(
    make_rig: Make, publish: Publish, wait_replicas: int, options: tuple[str, ...]
) -> None:
    rig = make_rig(*options, wait_replicas=wait_replicas, workers=1)
    old = rig.replicated.primary()
    rig.worker_at(old)
    with rig.gateway_at(old) as there:
        here, cut = rig.sender(), rig.sender(there)
        here.wait_for(60)
        waiting = [OutgoingMessage("15550001", "accept") for _ in range(200)]
        rig.tell("a", "busy")
        rig.gateway.send_many(waiting)  # both sides have these
        rig.book.sent |= {str(each.id): each.body for each in waiting}
        with rig.cut_off():
            rig.tell("a")
            here.wait_for(60)
            time.sleep(12)  # a partition of a length
            cut.stop()
            rig.workers[-1].stop(signal.SIGKILL)
        rig.workers.pop()
    for message in cut.unconfirmed:  # as the manual says: the same object again
        until(lambda m=message: here.send(m), what="a confirmation")
    here.stop()
    rig.settle()
    counted = rig.count()
    publish(counted, f"cut_off={len(cut.confirmed)}")
    confirm_nothing_broken(rig, counted)


@SETTINGS
@pytest.mark.parametrize("moments", MOMENTS)
def test_a_failover_in_the_middle_of_a_transition(
    make_rig: Make, publish: Publish, wait_replicas: int, moments: str
) -> None:
    rig = make_rig(wait_replicas=wait_replicas)
    texts = {"call": {"slow": 1}, "route": {"busy accept": 1}}.get(moments, CALM)
    for moment in MOMENTS[moments]:
        if moment == "sweep-after":
            worker = reach(rig, "call", texts={"slow": 1})  # its leases are what a sweep finds
            until(lambda w=worker: w not in {each.pid for each in rig.workers if each.alive})
            rig.heal()
            rig.arm(moment, signal.SIGSTOP)
            until(lambda m=moment: rig.reached(m), what=moment)
            pid = rig.reached(moment)
        else:
            pid = reach(rig, moment, signal.SIGSTOP, texts=texts)
        rig.fail_over(meanwhile=lambda p=pid: resume(p))
    rig.settle()
    counted = rig.count()
    publish(counted, f"failovers={len(MOMENTS[moments])}")
    confirm_nothing_broken(rig, counted)


@SETTINGS
def test_a_failover_while_a_webhook_is_recorded(
    make_rig: Make, publish: Publish, wait_replicas: int
) -> None:
    rig = make_rig(wait_replicas=wait_replicas)
    carrier = Carrier(rig)
    for moment in RECORDING:
        rig.arm(moment, signal.SIGSTOP)
        with ThreadPoolExecutor(3) as pool:
            told = [
                pool.submit(carrier.tell, *incoming(f"{moment}-{number}")) for number in range(3)
            ]
            until(lambda m=moment: rig.reached(m), what=moment)
            rig.fail_over(meanwhile=lambda m=moment: resume(rig.reached(m)))
            for each in told:
                each.result()
    rig.settle()
    counted = rig.count()
    publish(counted, f"failovers={len(RECORDING)}")
    confirm_nothing_broken(rig, counted)
