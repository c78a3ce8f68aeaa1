"""kill -9 of workers: at every moment between a trigger and its acknowledgement, and at random."""

from __future__ import annotations

import time

import pytest

from tests.chaos.carrier import Webhooks
from tests.chaos.invariants import check
from tests.chaos.load import CALM, Load, reach
from tests.chaos.points import MOMENTS
from tests.chaos.rig import Rig, until

#: So that each moment comes.
_TEXTS = {"call": {"slow": 1}, "route": {"busy accept": 1}}


@pytest.mark.parametrize("moments", MOMENTS)
def test_a_worker_is_killed_at_a_moment(rig: Rig, moments: str) -> None:
    with Webhooks(rig):
        for moment in MOMENTS[moments]:
            before = {worker.pid for worker in rig.workers}
            if moment == "sweep-after":  # what it finds are the leases of one that died before
                rig.arm(moment)
                assert reach(rig, "call", texts={"slow": 1}) in before
                until(lambda: rig.reached("sweep-after"), what="the end of its leases")
            else:
                assert reach(rig, moment, texts=_TEXTS.get(moments, CALM)) in before
            pid = rig.reached(moment)
            until(lambda p=pid: p not in _alive(rig), what=f"death at {moment}")
            rig.leases_end()
            rig.heal()
    rig.settle()
    check(rig)


def _alive(rig: Rig) -> set[int]:
    return {worker.pid for worker in rig.workers if worker.alive}


def test_workers_are_killed_at_random(rig: Rig, seed: int, size: int) -> None:
    with Webhooks(rig), Load(rig, size, texts=CALM, seconds=size / 60) as load:
        while load.running:
            time.sleep(rig.dice.uniform(0.2, 1.5))
            rig.kill(rig.dice.choice(rig.workers))
            rig.heal()
    rig.settle()
    check(rig)
