"""Webhooks while receivers are killed, Redis is away, and providers repeat themselves."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from smsqueue import OutgoingMessage
from smsqueue.ledger import Ledger
from tests.chaos import points
from tests.chaos.invariants import check
from tests.chaos.load import send
from tests.chaos.provider import ChaosProvider
from tests.chaos.rig import Rig, until

if TYPE_CHECKING:
    from smsqueue import Gateway

RANKS = ["sent", "accepted", "expired", "undelivered", "delivered"]
ORDERS = list(itertools.permutations(RANKS[1:], 3))


class Held(ChaosProvider):
    """Returns from its calls when it is let go."""

    deadline = 60.0

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        super().send(message)
        while not (Path(os.environ["CHAOS_POINTS"]) / "go").exists():
            time.sleep(0.05)
        return message


def __getattr__(name: str) -> Gateway:
    """``gateway``: what workers and receivers load."""
    if name != "gateway":
        raise AttributeError(name)
    from tests.chaos.app import gateway

    gateway.add_provider("held", Held, url=f"{os.environ['CHAOS_STUB']}/held")
    for each in ("receive", "report"):
        _around(each)
    globals()["gateway"] = gateway
    return gateway


def _around(name: str) -> None:
    """A receiver can be told to die before and after it records something."""
    inner = getattr(Ledger, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        points.here("record-before")
        answer = inner(*args, **options)
        points.here("record-after")
        return answer

    setattr(Ledger, name, wrapped)


class Carrier:
    """Posts webhooks, and repeats what was not answered 2xx."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.url = rig, rig.start_receivers()
        self.answers: Counter[int] = Counter()

    def post(self, path: str, fields: dict[str, Any]) -> int:
        """Once; 0: no answer."""
        try:
            status = requests.post(f"{self.url}/{path}", json=fields, timeout=20).status_code
        except requests.RequestException:
            status = 0
        self.answers[status] += 1
        return status

    def tell(self, path: str, fields: dict[str, Any]) -> None:
        """Until it was taken."""
        until(lambda: self.post(path, fields) == 204, what=f"a 2xx of {path}")

    def told(self, some: int, all_: list[Future[None]]) -> bool:
        """Were more than some answered, or all?"""
        return self.answers[204] > some or all(each.done() for each in all_)

    def heard(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.rig.heard() if line["kind"] == kind]


@pytest.fixture(scope="module")
def carrier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carrier]:
    more = {"SMSQUEUE_GATEWAY": f"{__name__}:gateway", "SMSQUEUE_GRACE": "0.5"}
    with Rig(tmp_path_factory.mktemp("receivers"), environment=more) as rig:
        yield Carrier(rig)


def _im(name: str, text: str = "YES") -> tuple[str, dict[str, Any]]:
    return "a/im", {"from": "15550001", "text": text, "id": name}


def _once(carrier: Carrier, names: list[str]) -> None:
    """Each incoming message is one event, whose hook ran to success."""
    carrier.rig.settle()
    events: dict[str, set[str]] = defaultdict(set)
    for line in carrier.heard("received"):
        events[line["msgid"]].add(line["id"])
    assert {name: len(events[name]) for name in names} == dict.fromkeys(names, 1)
    done = carrier.rig.direct.zrange(carrier.rig.key("state", "done"), 0, -1)
    assert {id for ids in events.values() for id in ids} == set(done)


@pytest.mark.parametrize("moment", ["record-before", "record-after"])
def test_a_receiver_dies_before_it_answers(carrier: Carrier, moment: str) -> None:
    rig, id = carrier.rig, send(carrier.rig, OutgoingMessage("15550001", "accept"))
    rig.settle()
    rig.arm(moment)
    assert carrier.post(*_im(moment)) == 0
    carrier.tell(*_im(moment))
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
        told = [pool.submit(carrier.tell, *_im(name)) for name in names]
        for _ in range(2):
            some = carrier.answers[204] + 5
            until(partial(carrier.told, some, told), what="answers")
            assert carrier.rig.receivers is not None
            carrier.rig.receivers.stop(signal.SIGKILL)
            carrier.url = carrier.rig.start_receivers()
        for each in told:
            each.result(120)
    _once(carrier, names)


def test_redis_is_away(carrier: Carrier) -> None:
    rig, names = carrier.rig, [f"away-{n}" for n in range(10)]
    with rig.hits.during(), ThreadPoolExecutor(10) as pool:
        rig.redis.stop()
        assert [carrier.post(*_im(name)) for name in names] == [503] * 10
        told = [pool.submit(carrier.tell, *_im(name)) for name in names]
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
        told = [pool.submit(carrier.post, *_im("fifty")) for _ in range(50)]
        told += [pool.submit(carrier.post, "a/status", report) for _ in range(50)]
    assert [each.result() for each in told] == [204] * 100
    _once(carrier, ["fifty"])
    assert len([line for line in carrier.heard("status") if line["id"] == id]) == 1
    reports = [line for line in rig.records()[id].timeline if line.get("why") == "report"]
    assert [line.get("times", 1) for line in reports] == [1]


def test_a_second_yes_is_no_repetition(carrier: Carrier) -> None:
    for name in ("yes-1", "yes-1", "yes-2", "yes-1"):
        carrier.tell(*_im(name))
    _once(carrier, ["yes-1", "yes-2"])


def test_reports_in_any_order_before_and_after_the_send_is_settled(carrier: Carrier) -> None:
    rig, heard = carrier.rig, len(carrier.heard("status"))
    (rig.points / "go").unlink(missing_ok=True)
    ids = []
    for n in range(len(ORDERS)):
        message = OutgoingMessage(f"15551{n}", "accept").route("held").options(status_report=True)
        ids.append(str(send(rig, message)))
    until(lambda: int(rig.direct.zcard(rig.key("state", "sending"))) > 3, what="calls")
    told: list[tuple[str, dict[str, Any]]] = []
    for n, (id, order) in enumerate(zip(ids, ORDERS, strict=True)):
        for state in order:
            fields = {"state": state, "id": f"held-{id}.1"}
            told.append(("held/status", fields | ({"reference": f"{id}.1"} if n % 2 else {})))
    late = {i for i in range(len(told)) if i % 3 >= i // 3 % 4}  # of each order 0, 1, 2 or 3
    told += [("a/status", {"state": "delivered", "id": f"nobody-{n}"}) for n in range(5)]
    for i, each in enumerate(told):
        if i not in late:
            carrier.tell(*each)
    (rig.points / "go").touch()
    until(lambda: not set(_states(rig, ids)) & {"queued", "retrying", "sending"}, what="sends")
    for i in sorted(late):
        carrier.tell(*told[i])
    rig.settle()
    assert _states(rig, ids) == [max(order, key=RANKS.index) for order in ORDERS]
    lines = carrier.heard("status")[heard:]
    assert Counter(line["state"] for line in lines) == Counter(f["state"] for _, f in told)
    assert sum(line["id"] is None for line in lines) >= 5
    check(rig)


def _states(rig: Rig, ids: list[str]) -> list[str]:
    known = rig.records()
    return [known[id].state for id in ids]
