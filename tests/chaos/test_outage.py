"""A provider that is down, or throttles, does not slow the messages of another.

Two gateways run side by side, each with one worker and all defaults, and get the same load at a
steady pace. Provider A is in trouble at the one and works at the other. What else the machine does
hits both, so the times of B at the one are compared with those at the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from smsqueue import OutgoingMessage
from tests.chaos.conftest import ROUNDS
from tests.chaos.figures import add_figures
from tests.chaos.invariants import check
from tests.chaos.load import send, send_many
from tests.chaos.rig import Rig, until

#: Messages a second. A's calls hang for the 20 s that providers are given to answer: without a
#: bound they would have all 50 threads of the worker after 6 s.
TO_A, TO_B = 8, 6
#: A is quick, if it works. B answers after 0.5 s, so that its times are not those of this
#: machine's scheduler.
TEXTS = {"a": "accept", "b": "steady"}
#: Times are compared in windows of so many seconds: a stall of the machine spoils one of them.
WINDOW = 5
#: Messages that wait for A while it throttles.
WAITING = 5000 if ROUNDS else 500
BOUND = 1.3


def _send(rigs: list[Rig], account: str) -> list[str]:
    """A message at each rig; their ids."""
    made = [OutgoingMessage("15550001", TEXTS[account]).route(account) for _ in rigs]
    return [str(send(rig, each)) for rig, each in zip(rigs, made, strict=True)]


def _load(rigs: list[Rig], seconds: float) -> list[tuple[str, ...]]:
    """Send to both accounts of all rigs at a steady pace; ids of the messages to B, by rig."""
    due = [(n / TO_A, "a") for n in range(int(TO_A * seconds))]
    due += [(n / TO_B, "b") for n in range(int(TO_B * seconds))]
    began, found = time.monotonic(), []
    for n, (at, account) in enumerate(sorted(due)):
        time.sleep(max(0.0, began + at - time.monotonic()))
        turn = 1 if n % 2 else -1  # nobody is always the first
        ids = _send(rigs[::turn], account)[::turn]
        if account == "b":
            found.append(tuple(ids))
    return list(zip(*found, strict=True))


def _times(rig: Rig, ids: tuple[str, ...]) -> list[float]:
    """Seconds from taking messages in until they were sent, by Redis's clock."""
    until(lambda: all(rig.gateway.lookup(id).state == "sent" for id in ids), what="sending")
    known = rig.records()
    lines = [known[id].timeline for id in ids]
    return [(line[-1]["at"] - line[0]["at"]) / 1000 for line in lines]


def _p95(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.95)]


def _quiet(rig: Rig) -> bool:
    """Nothing is in the queue, nor due."""
    seconds, micros = rig.direct.time()
    now = seconds * 1000 + micros // 1000
    lanes = ("send", "send_bulk")
    due = sum(rig.direct.zcount(rig.key("due", lane), "-inf", now) for lane in lanes)
    return not due and not rig.direct.llen(rig.settings.send_key)


def _campaign(*rigs: Rig) -> None:
    """Sends to A, as many as are to wait; the workers have seen all of it."""
    for rig in rigs:
        send_many(rig, [OutgoingMessage(f"1555{n}", "accept").route("a") for n in range(WAITING)])
    for rig in rigs:
        until(lambda r=rig: _quiet(r), what="the end of the campaign, or its wait")


def _trouble(ill: Rig, well: Rig, seconds: int) -> list[tuple[float, float]]:
    """p95 of B beside a provider in trouble, and beside one that works, by window."""
    to_ill, to_well = _load([ill, well], seconds)
    slow, usual = _times(ill, to_ill), _times(well, to_well)
    ill.tell("a")
    size = WINDOW * TO_B
    starts = range(0, len(slow), size)
    return [(_p95(slow[n : n + size]), _p95(usual[n : n + size])) for n in starts]


def test_a_provider_that_is_down_does_not_slow_another(make_rig: Callable[..., Rig]) -> None:
    one, two = (make_rig(plain=True, workers=1) for _ in range(2))
    _load([one, two], 1)  # connections and envelopes are made
    found = []
    for rigs in [(one, two), (two, one)] if ROUNDS else [(one, two)]:
        rigs[0].tell("a", "hang")
        found += _trouble(*rigs, 60 if ROUNDS else 3 * WINDOW)
        if ROUNDS:
            rigs[0].settle()
            check(rigs[0])
    _judge("outage", found)


def test_who_waits_for_a_provider_that_throttles_does_not_slow_others(
    make_rig: Callable[..., Rig],
) -> None:
    one, two = (make_rig(plain=True, workers=1) for _ in range(2))
    one.tell("a", "limit")
    _campaign(one, two)
    _judge("waiting", _trouble(one, two, 60 if ROUNDS else 3 * WINDOW))
    one.settle()
    check(one)
    assert {record.state for record in one.records().values()} == {"sent"}


def _judge(test: str, found: list[tuple[float, float]]) -> None:
    ratio = median(slow / usual for slow, usual in found)
    add_figures(
        test=test, windows=len(found), p95_trouble=f"{median(s for s, _ in found):.3f}",
        p95_well=f"{median(u for _, u in found):.3f}", ratio=f"{ratio:.2f}",
    )  # fmt: skip
    assert ratio <= BOUND, found
