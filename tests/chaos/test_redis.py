"""Redis is killed, frozen, full, or has forgotten its scripts."""

from __future__ import annotations

import time
from collections.abc import Callable

from smsqueue import OutgoingMessage, exc
from tests.chaos.carrier import Webhooks
from tests.chaos.invariants import check
from tests.chaos.load import CALM, Load, send
from tests.chaos.rig import Rig, until


def test_redis_is_killed_and_started_again(rig: Rig, seed: int, size: int) -> None:
    with Webhooks(rig), Load(rig, size, texts=CALM, seconds=size / 50) as load:
        while load.running:
            time.sleep(rig.dice.uniform(0.3, 1.5))
            rig.kill_redis(away=rig.dice.choice([0.0, 0.3, 1.0]))
    rig.settle()
    check(rig)
    assert rig.survived()


def test_scripts_are_forgotten_under_load(rig: Rig) -> None:
    with Webhooks(rig), Load(rig, 80, texts=CALM, seconds=2) as load:
        while load.running:
            rig.direct.script_flush()
            time.sleep(0.02)
    rig.settle()
    check(rig)
    assert rig.survived()


def test_redis_is_frozen_for_longer_than_anybody_waits(rig: Rig) -> None:
    with Webhooks(rig), Load(rig, 60, texts=CALM, seconds=1, impatient=0.2):
        time.sleep(0.5)
        with rig.frozen(rig.redis.process):
            time.sleep(11)  # a worker's commands wait for ten
    rig.settle()
    check(rig)
    assert rig.survived()


def test_redis_is_full_while_messages_are_under_way(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    with Webhooks(rig), Load(rig, 60, texts=CALM, seconds=1):
        time.sleep(0.5)
        rig.direct.config_set("maxmemory", 1)
        refused = OutgoingMessage("15550001", "accept")
        until(lambda: _refused(rig, refused), what="a refusal")
        time.sleep(3)
        assert rig.survived()
        rig.direct.config_set("maxmemory", 0)
    send(rig, refused)
    rig.settle()
    check(rig)
    assert rig.survived()


def _refused(rig: Rig, message: OutgoingMessage) -> bool:
    try:
        rig.gateway.send(message)
    except exc.QueueUnavailable:
        return True
    return False
