"""A provider that throttles us amid a campaign is asked little, and then gets the rest, once."""

from __future__ import annotations

import time
from collections.abc import Callable

from smsqueue import OutgoingMessage, RetryPolicy
from smsqueue.settings import Settings
from tests.chaos.conftest import ROUNDS
from tests.chaos.figures import add_figures
from tests.chaos.invariants import check
from tests.chaos.load import send_many
from tests.chaos.rig import Rig, until

MESSAGES, SECONDS = (10_000, 60) if ROUNDS else (300, 9)


def _probes(seconds: float) -> int:
    """How many pauses can end within so many seconds; one message may probe after each."""
    policy, ends, found = RetryPolicy(), 0.0, 0
    while True:
        ends += min(policy.pause * 2**found, policy.pause_max)
        if ends > seconds:
            return found
        found += 1


def test_a_throttled_provider_gets_few_probes(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(plain=True, workers=1)
    send_many(rig, [OutgoingMessage(f"1555{n}", "slow").route("a") for n in range(MESSAGES)])
    until(lambda: len(rig.asked()) > MESSAGES // 10, what="the campaign")
    rig.tell("a", "limit")
    began = time.monotonic()
    time.sleep(SECONDS)  # what is promised is that nothing happens
    rig.tell("a")
    lasted = time.monotonic() - began
    refused = sum(request["word"] == "limit" for request in rig.asked())
    # A call that runs, or is about to be made, is made; then it is known.
    in_flight = len(rig.workers) * Settings.from_mapping(rig.environment).max_in_flight
    bound = in_flight + _probes(lasted)
    rig.settle()
    figures = check(rig)
    add_figures(
        test="throttled", messages=MESSAGES, seconds=f"{lasted:.0f}", refused=refused,
        bound=bound, lost=figures.lost, twice=figures.twice,
    )  # fmt: skip
    assert 0 < refused <= bound
    assert {record.state for record in rig.records().values()} == {"sent"}
