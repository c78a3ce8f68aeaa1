"""A provider that is down does not slow the messages of another.

Two gateways run side by side, each with one worker and all defaults, and get the same load at a
steady pace. The calls of provider A hang at the one and succeed at the other. What else the
machine does hits both, so the times of B at the one are compared with those at the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from smsqueue import OutgoingMessage
from tests.chaos.conftest import ROUNDS
from tests.chaos.figures import add_figures
from tests.chaos.invariants import check
from tests.chaos.load import send
from tests.chaos.rig import Rig, until

#: Messages a second. A's calls hang for the 20 s that providers are given to answer: without a
#: bound they would have all 50 threads of the worker after 6 s.
TO_A, TO_B = 8, 6
#: A is quick, if it works. B answers after 0.5 s, so that its times are not those of this
#: machine's scheduler.
TEXTS = {"a": "accept", "b": "steady"}
#: Times are compared in windows of so many seconds: a stall of the machine spoils one of them.
WINDOW = 5
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


def _outage(ill: Rig, well: Rig, seconds: int) -> list[tuple[float, float]]:
    """p95 of B beside a provider that is down, and beside one that works, by window."""
    ill.tell("a", "hang")
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
        found += _outage(*rigs, 60 if ROUNDS else 3 * WINDOW)
        if ROUNDS:
            rigs[0].settle()
            check(rigs[0])
    ratio = median(slow / usual for slow, usual in found)
    add_figures(
        test="outage", windows=len(found), p95_down=f"{median(s for s, _ in found):.3f}",
        p95_well=f"{median(u for _, u in found):.3f}", ratio=f"{ratio:.2f}",
    )  # fmt: skip
    assert ratio <= BOUND, found
