"""Everything at once: a seeded schedule of faults under a load of every kind of message."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from tests.chaos.carrier import Webhooks
from tests.chaos.faults import SCRIPTS
from tests.chaos.figures import add_figures
from tests.chaos.invariants import check
from tests.chaos.load import MIXED, Load
from tests.chaos.points import MOMENTS, RECORDING
from tests.chaos.rig import Rig


def _kill(rig: Rig) -> None:
    rig.kill(rig.dice.choice(rig.workers))


def _moment(rig: Rig) -> None:
    moments = [each for group in MOMENTS.values() for each in group]
    rig.arm(rig.dice.choice(moments))


def _restart(rig: Rig) -> None:
    os.kill(rig.dice.choice(rig.workers).pid, signal.SIGTERM)


def _sleep(rig: Rig) -> None:
    with rig.frozen(rig.dice.choice(rig.workers)):
        time.sleep(rig.dice.choice([0.5, 5.0]))


def _redis_killed(rig: Rig) -> None:
    rig.kill_redis(away=rig.dice.uniform(0, 1))


def _redis_frozen(rig: Rig) -> None:
    with rig.frozen(rig.redis.process):
        time.sleep(rig.dice.choice([0.5, 3.0]))


def _forgotten(rig: Rig) -> None:
    rig.direct.script_flush()


def _cut(rig: Rig) -> None:
    where = rig.dice.choice(["request", "reply", "half"])
    rig.cut(rig.dice.choice(SCRIPTS), where=where, left=rig.dice.randrange(1, 6))


def _cut_trigger(rig: Rig) -> None:
    rig.proxy.cut(b"BRPOP", reply=b"smsqueue.", left=rig.dice.randrange(1, 6))


def _cut_all(rig: Rig) -> None:
    rig.cut_all()


def _receivers_killed(rig: Rig) -> None:
    assert rig.receivers is not None
    rig.receivers.stop(signal.SIGKILL)
    rig.start_receivers()


def _recording(rig: Rig) -> None:
    rig.arm(rig.dice.choice(RECORDING))


def _triggers(rig: Rig) -> None:
    for queue in (rig.settings.send_key, rig.settings.hook_key):
        for trigger in rig.direct.lrange(queue, 0, 20):
            rig.direct.lrem(queue, 1, trigger)
            for _ in range(rig.dice.randrange(3)):
                rig.direct.rpush(queue, trigger)


FAULTS: list[Callable[[Rig], None]] = [
    _kill, _moment, _moment, _restart, _sleep, _redis_killed, _redis_frozen, _forgotten, _cut,
    _cut, _cut_trigger, _cut_all, _triggers, _receivers_killed, _recording,
]  # fmt: skip


def test_everything_at_once(make_rig: Callable[..., Rig], seed: int, size: int) -> None:
    rig = make_rig(seed=seed)
    faults = rig.dice.sample(FAULTS, len(FAULTS))
    done = 0
    with Webhooks(rig), Load(rig, size, texts=MIXED, seconds=max(12, size / 50)) as load:
        while load.running:
            rig.workers = [worker for worker in rig.workers if worker.alive]
            if len(rig.workers) < rig.wanted:
                rig.heal()
            faults[done % len(faults)](rig)
            done += 1
            time.sleep(rig.dice.uniform(0.1, 1.0))
    _disarm(rig)
    rig.heal()
    rig.settle()
    figures = check(rig)
    add_figures(seed=seed, faults=done, **figures._asdict())
    assert figures.lost == figures.twice == 0


def _disarm(rig: Rig) -> None:
    for armed in rig.points.glob("*-*"):
        if not armed.name.endswith(".done"):
            armed.unlink(missing_ok=True)
