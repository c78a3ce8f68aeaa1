"""An outage of a provider burns no backlog: few calls are made, and few messages become unknown.

Four kinds of outage run side by side, each at a gateway of its own with default settings, but for
the number of calls at once: what is in flight when an outage begins is lost to it in any case. They
begin one after the other, so that the backlogs do not go out at the same time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from smsqueue import OutgoingMessage
from tests.chaos.conftest import ROUNDS
from tests.chaos.figures import add_figures
from tests.chaos.invariants import check
from tests.chaos.load import send_many
from tests.chaos.rig import Rig, until

#: What the stub does with each message: a 502 at once, a 503 at once, a 500 with the provider's own
#: code, no answer at all. It sends the SMS all the same after the first two.
KINDS = ("took502", "took503", "broken", "hang")
#: How long an outage lasts (s), and how much later the next one begins.
MESSAGES, WORKERS, SECONDS, APART = (3000, 4, 600, 120) if ROUNDS else (300, 2, 30, 0)
#: Calls at once in each worker.
IN_FLIGHT = 25
#: Bounds for what is in flight when the outage begins, and for probes and other late calls.
UNKNOWN, CALLS, LATE = 100, 200, 20
RECOVERY = 120.0


def _calls(rig: Rig, kind: str) -> int:
    return sum(request["word"] == kind for request in rig.asked())


def _begin(rig: Rig, kind: str) -> float:
    """A campaign, and an outage after a tenth of it; when that began."""
    send_many(rig, [OutgoingMessage(f"1555{n:06d}", "slow").route("a") for n in range(MESSAGES)])
    until(lambda: len(rig.asked()) > MESSAGES // 10, what="the campaign")
    rig.tell("a", kind)
    return time.monotonic()


def _end(rig: Rig, kind: str) -> None:
    """The provider works again: what is waiting goes out, and what was asked for is little."""
    calls = _calls(rig, kind)
    rig.tell("a")
    recovered = time.monotonic()
    rig.settle()
    took = time.monotonic() - recovered
    figures = check(rig)
    states = Counter(record.state for record in rig.records().values())
    add_figures(
        test=f"unhealthy {kind}", messages=MESSAGES, workers=WORKERS, outage=SECONDS, calls=calls,
        unknown=states["unknown"], recovery=f"{took:.0f}", lost=figures.lost, twice=figures.twice,
    )  # fmt: skip
    if kind == "hang":
        assert 0 < calls <= WORKERS * IN_FLIGHT + LATE
    else:
        assert 0 < calls <= CALLS
        assert states["unknown"] <= (0 if kind == "broken" else UNKNOWN)
    assert states["sent"] + states["unknown"] == MESSAGES, states
    assert took <= RECOVERY or not ROUNDS


def test_an_outage_burns_no_backlog(make_rig: Callable[..., Rig]) -> None:
    began = {}
    for kind in KINDS:
        few = {"SMSQUEUE_MAX_IN_FLIGHT": str(IN_FLIGHT)}
        rig = make_rig(plain=True, workers=WORKERS, environment=few)
        began[kind] = rig, _begin(rig, kind)
        time.sleep(APART)
    for kind, (rig, at) in began.items():
        time.sleep(max(0.0, at + SECONDS - time.monotonic()))
        _end(rig, kind)
