"""Delivery reports in every order, before and after what they report on is settled."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from smsqueue import OutgoingMessage
from tests.chaos.carrier import STATES, Carrier
from tests.chaos.effects import RANK
from tests.chaos.invariants import check
from tests.chaos.load import send
from tests.chaos.provider import ChaosProvider
from tests.chaos.rig import Rig, until

if TYPE_CHECKING:
    from smsqueue import Gateway

#: Every subset that could come, in every order.
ORDERS = [order for n in range(1, 5) for order in itertools.permutations(STATES, n)]


class Held(ChaosProvider):
    """Returns from its calls when it is let go."""

    deadline = 60.0
    #: Its calls block, so each needs a thread from the beginning.
    through_http_layer = False

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
    globals()["gateway"] = gateway
    return gateway


@pytest.fixture(scope="module")
def carrier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carrier]:
    # Slots for all of the messages at once: a provider may hold half of a worker's.
    more = {"SMSQUEUE_GATEWAY": f"{__name__}:gateway", "SMSQUEUE_CONCURRENCY": "130"}
    with Rig(tmp_path_factory.mktemp("reports"), environment=more) as rig:
        yield Carrier(rig)


def _reports(id: str, order: tuple[str, ...], *, named: bool) -> list[tuple[str, dict[str, Any]]]:
    """Of the first attempt, by our reference or by the provider's id alone."""
    fields = {"id": f"held-{id}.1"} | ({"reference": f"{id}.1"} if named else {})
    return [("held/status", fields | {"state": state}) for state in order]


def _tell_all(
    carrier: Carrier, ids: list[str], *, named: bool, meanwhile: Callable[[], None]
) -> None:
    """Some of each message's reports, then what happens meanwhile, then the others."""
    told = [_reports(id, order, named=named) for id, order in zip(ids, ORDERS, strict=True)]
    for n, reports in enumerate(told):
        for each in reports[: _reports_before(n)]:
            carrier.tell(*each)
    meanwhile()
    for n, reports in enumerate(told):
        for each in reports[_reports_before(n) :]:
            carrier.tell(*each)
    carrier.rig.settle()
    best = [max(order, key=lambda state: RANK[state]) for order in ORDERS]
    assert _states(carrier.rig, ids) == best
    ours = Counter(line["state"] for line in carrier.heard("status") if _about(line) in ids)
    assert ours == Counter(state for order in ORDERS for state in order)
    check(carrier.rig)


def _reports_before(n: int) -> int:
    """How many reports of message ``n`` come before what happens meanwhile: from none to all."""
    return n % (len(ORDERS[n]) + 1)


def _about(line: dict[str, Any]) -> str:
    return str(line["msgid"]).removeprefix("held-").removesuffix(".1")


def _over(rig: Rig, ids: list[str]) -> bool:
    return not set(_states(rig, ids)) & {"queued", "retrying", "sending"}


@pytest.mark.parametrize("named", [False, True])
def test_reports_in_any_order_before_and_after_the_send_is_settled(
    carrier: Carrier, named: bool
) -> None:
    rig, go = carrier.rig, carrier.rig.points / "go"
    go.unlink(missing_ok=True)
    rig.start_workers(2, SMSQUEUE_MAX_IN_FLIGHT="32")  # so that all calls can run at once
    ids = [_send(rig, n, "accept") for n in range(len(ORDERS))]
    until(lambda: set(_states(rig, ids)) == {"sending"}, what="all calls")
    until(lambda: len({request["id"] for request in rig.asked()} & set(ids)) == len(ids))

    def let_go() -> None:
        assert set(_states(rig, ids)) == {"sending"}
        go.touch()
        until(lambda: _over(rig, ids), what="sends")

    _tell_all(carrier, ids, named=named, meanwhile=let_go)


def test_reports_in_any_order_of_an_attempt_that_is_repeated(carrier: Carrier) -> None:
    """Its answer was lost, and its sender chose to send again; reports tell of the first one."""
    rig = carrier.rig
    (rig.points / "go").touch()
    ids = [_send(rig, n, "cutafter slow") for n in range(len(ORDERS))]
    until(lambda: len({request["id"] for request in rig.asked()} & set(ids)) == len(ids))
    _tell_all(carrier, ids, named=True, meanwhile=lambda: until(lambda: _over(rig, ids)))
    # A report that comes before the answer is lost may make a second attempt unnecessary.
    unreported = [id for n, id in enumerate(ids) if not _reports_before(n)]
    records = rig.records()
    assert unreported
    assert [id for id in unreported if records[id].attempts < 2] == []


def _send(rig: Rig, number: int, text: str) -> str:
    message = OutgoingMessage(f"15551{number}", text).route("held").options(status_report=True)
    return str(send(rig, message.options(on_unknown="resend" if "cut" in text else "hold")))


def test_reports_on_what_nobody_sent(carrier: Carrier) -> None:
    rig, id = carrier.rig, str(send(carrier.rig, OutgoingMessage("15550001", "accept")))
    rig.settle()
    before = carrier.heard("status")
    about: list[dict[str, Any]] = [
        {"id": "nobody"},
        {"id": "nobody-2", "reference": "nobody.1"},
        {"id": "nobody-3", "reference": f"{id}.2"},  # an attempt that was never made
        {"id": "nobody-4", "reference": f"{id}.0"},
        {"id": "nobody-5", "reference": id},
    ]
    for fields in about:
        for state in STATES:
            carrier.tell("a/status", fields | {"state": state})
    rig.settle()
    lines = carrier.heard("status")[len(before) :]
    assert Counter(line["id"] for line in lines) == Counter({None: len(about) * len(STATES)})
    assert _states(rig, [id]) == ["sent"]
    check(rig)


def _states(rig: Rig, ids: list[str]) -> list[str]:
    known = rig.records()
    return [known[id].state for id in ids]
