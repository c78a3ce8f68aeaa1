"""Workers of different versions side by side, as in every deployment."""

from __future__ import annotations

import json
import signal

from kombu import Connection

from smsqueue import OutgoingMessage
from tests.chaos.invariants import check
from tests.chaos.load import CALM, Load, send
from tests.chaos.rig import Rig, until


def test_a_provider_that_one_of_two_workers_does_not_know(rig: Rig) -> None:
    rig.workers[0].stop()
    rig.workers.pop(0)
    rig.start_workers(1, CHAOS_PROVIDERS="a")
    for n in range(40):
        send(rig, OutgoingMessage(f"15550{n}", "accept").route("b"))
    rig.settle()
    assert {request["account"] for request in rig.asked()} == {"b"}
    assert check(rig).unknown == 0
    states = {record.state for record in rig.records().values()}
    assert states == {"sent"}


def test_options_and_fields_of_a_newer_version(rig: Rig) -> None:
    for worker in rig.workers:
        worker.stop(signal.SIGKILL)
    ids = [send(rig, OutgoingMessage(f"15550{n}", "accept")) for n in range(10)]
    for id in ids:
        name = rig.key("msg", str(id))
        data = json.loads(rig.direct.hget(name, "data") or "")
        data["options"] = {"colour": "red"}
        data["tomorrow"] = True
        rig.direct.hset(name, mapping={"data": json.dumps(data), "tomorrow": "1"})
    rig.heal()
    rig.settle()
    assert {rig.records()[str(id)].state for id in ids} == {"sent"}
    check(rig)


def test_tasks_that_nobody_knows(rig: Rig) -> None:
    with Connection(rig.redis.url) as broker:
        options = {"global_keyprefix": rig.settings.broker_prefix}
        broker.transport_options = options
        with broker.SimpleQueue(rig.settings.send_queue) as queue:
            for n in range(5):
                body = [[f"id{n}"], {}, {}]
                headers = {"task": "smsqueue.tomorrow", "id": f"id{n}", "lang": "py"}
                queue.put(body, headers=headers, serializer="json")
                queue.put("not even a task", serializer="json")
    with Load(rig, 40, texts=CALM):
        pass
    rig.settle()
    until(lambda: not rig.direct.llen(rig.settings.send_key))
    assert all(worker.alive for worker in rig.workers)
    check(rig)
