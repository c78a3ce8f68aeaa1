"""The broker loses triggers, delivers them twice, or much later."""

from __future__ import annotations

import os
import signal
import time

from tests.chaos.invariants import check
from tests.chaos.load import CALM, Load
from tests.chaos.rig import Rig


def test_triggers_are_lost_doubled_and_late(rig: Rig, seed: int, size: int) -> None:
    parked: list[bytes] = []
    queues = (rig.settings.send_key, rig.settings.hook_key)
    with Load(rig, size, texts=CALM, seconds=size / 60) as load:
        while load.running:
            with _asleep(rig):  # so that there is something in the queues
                time.sleep(0.2)
                for queue in queues:
                    for trigger in rig.direct.lrange(queue, 0, -1):
                        match rig.dice.randrange(4):
                            case 0:
                                rig.direct.lrem(queue, 1, trigger)
                            case 1:
                                rig.direct.rpush(queue, trigger, trigger)
                            case 2:
                                rig.direct.lrem(queue, 1, trigger)
                                parked.append((queue, trigger))
            time.sleep(0.1)
    rig.settle()
    check(rig)
    for queue, trigger in parked * 2:
        rig.direct.lpush(queue, trigger)
    rig.settle()
    check(rig)


class _asleep:
    def __init__(self, rig: Rig) -> None:
        self.pids = [worker.pid for worker in rig.workers]

    def __enter__(self) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)

    def __exit__(self, *args: object) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)


def test_the_queues_are_deleted_with_all_that_the_broker_knows(rig: Rig) -> None:
    with Load(rig, 60, texts=CALM, seconds=2) as load:
        while load.running:
            keys = list(rig.direct.scan_iter(f"{rig.settings.broker_prefix}*", count=1000))
            if keys:
                rig.direct.delete(*keys)
            time.sleep(0.3)
    rig.settle()
    check(rig)
