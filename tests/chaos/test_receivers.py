"""Webhooks while receivers are killed, Redis is away, and providers repeat themselves."""

from __future__ import annotations

import signal
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from smsqueue import OutgoingMessage
from tests.chaos.carrier import Carrier, incoming
from tests.chaos.invariants import check
from tests.chaos.load import send
from tests.chaos.points import RECORDING
from tests.chaos.rig import Rig, until


@pytest.fixture(scope="module")
def carrier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carrier]:
    with Rig(tmp_path_factory.mktemp("receivers"), environment={"SMSQUEUE_GRACE": "0.5"}) as rig:
        yield Carrier(rig)


def _once(carrier: Carrier, names: list[str]) -> None:
    """Each incoming message is one event, whose hook ran to success."""
    carrier.rig.settle()
    events: dict[str, set[str]] = defaultdict(set)
    for line in carrier.heard("received"):
        events[line["msgid"]].add(line["id"])
    assert {name: len(events[name]) for name in names} == dict.fromkeys(names, 1)
    done = carrier.rig.direct.zrange(carrier.rig.key("state", "done"), 0, -1)
    assert {id for ids in events.values() for id in ids} == set(done)


@pytest.mark.parametrize("moment", RECORDING)
def test_a_receiver_dies_before_it_answers(carrier: Carrier, moment: str) -> None:
    rig, id = carrier.rig, send(carrier.rig, OutgoingMessage("15550001", "accept"))
    rig.settle()
    rig.arm(moment)
    assert carrier.post(*incoming(moment)) == 0
    carrier.tell(*incoming(moment))
    rig.arm(moment)
    report = {"state": "delivered", "reference": f"{id}.1", "id": f"a-{id}.1"}
    assert carrier.post("a/status", report) == 0
    carrier.tell("a/status", report)
    _once(carrier, [moment])
    assert rig.records()[str(id)].state == "delivered"
    lines = [line for line in carrier.heard("status") if line["id"] == id]
    assert len(lines) == 1
    assert rig.gateway.ledger.counters()["reports", "a", "delivered", "matched"] >= 1
    check(rig)


def test_receivers_are_killed_and_replaced_while_webhooks_come(carrier: Carrier) -> None:
    names = [f"killed-{n}" for n in range(60)]
    with ThreadPoolExecutor(8) as pool:
        told = [pool.submit(carrier.tell, *incoming(name)) for name in names]
        for _ in range(2):
            some = carrier.answers[204] + 5
            until(partial(carrier.told, some, told), what="answers")
            assert carrier.rig.receivers is not None
            carrier.rig.receivers.stop(signal.SIGKILL)
            carrier.rig.start_receivers()
        for each in told:
            each.result(120)
    _once(carrier, names)


def test_redis_is_away(carrier: Carrier) -> None:
    rig, names = carrier.rig, [f"away-{n}" for n in range(10)]
    with rig.hits.during(), ThreadPoolExecutor(10) as pool:
        rig.redis.stop()
        assert [carrier.post(*incoming(name)) for name in names] == [503] * 10
        told = [pool.submit(carrier.tell, *incoming(name)) for name in names]
        rig.redis.start()
        for each in told:
            each.result(120)
    _once(carrier, names)
    assert rig.survived()


def test_the_same_webhook_fifty_times_at_once(carrier: Carrier) -> None:
    rig, id = carrier.rig, str(send(carrier.rig, OutgoingMessage("15550001", "accept")))
    rig.settle()
    report = {"state": "delivered", "reference": f"{id}.1", "id": f"a-{id}.1"}
    with ThreadPoolExecutor(50) as pool:
        told = [pool.submit(carrier.post, *incoming("fifty")) for _ in range(50)]
        told += [pool.submit(carrier.post, "a/status", report) for _ in range(50)]
    assert [each.result() for each in told] == [204] * 100
    _once(carrier, ["fifty"])
    assert len([line for line in carrier.heard("status") if line["id"] == id]) == 1
    reports = [line for line in rig.records()[id].timeline if line.get("why") == "report"]
    assert [line.get("times", 1) for line in reports] == [1]


def test_a_second_yes_is_no_repetition(carrier: Carrier) -> None:
    for name in ("yes-1", "yes-1", "yes-2", "yes-1"):
        carrier.tell(*incoming(name))
    _once(carrier, ["yes-1", "yes-2"])
