"""How fast the ledger works, and what happened lately: differences between its counters now and
samples of them that workers take with their heartbeats (see heartbeat.lua).

A sample is taken every 15 s while any worker runs, and kept for 16 minutes. So a worker that dies
takes nothing with it, and messages cost nothing more.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

__all__ = [
    "MINUTE",
    "QUARTER_HOUR",
    "Activity",
    "Counts",
    "Direction",
    "MessageBacklog",
    "Sample",
    "Window",
    "measure_activity",
    "parse_sample",
    "sampled_counts",
]

#: Counters by name and labels.
Counts = Mapping[tuple[str, ...], int]

#: Lengths of the two windows, in seconds.
MINUTE, QUARTER_HOUR = 60.0, 900.0
#: Shortest window, in seconds, that says anything about a rate.
_SHORTEST = 5.0
#: Counters that are sampled, as in heartbeat.lua. ``sent`` is the sum of a histogram's buckets.
_SAMPLED = frozenset({"accepted", "attempts", "errors", "ended", "hooks"})
#: States in which a message stops waiting without being sent.
_NOT_SENT = ("failed", "cancelled", "unknown")
#: Smallest change of the backlog that counts: a part of the messages that left it, or a number.
_LEAST_PART, _LEAST = 0.02, 5


class Sample(NamedTuple):
    """The counters at a moment."""

    #: Redis's clock, in seconds.
    at: float
    #: Messages that were queued or retrying.
    waiting: int
    counts: Counts


@dataclass(frozen=True)
class Window:
    """What was counted between a sample and now."""

    #: Its length.
    seconds: float
    counts: Counts

    def total(self, name: str, *labels: str) -> int:
        """Sum of the counters of a name whose first labels are these."""
        start = (name, *labels)
        return sum(n for labels, n in self.counts.items() if labels[: len(start)] == start)

    def per_second(self, name: str, *labels: str) -> float:
        """The same per second."""
        return self.total(name, *labels) / self.seconds

    @property
    def events_handled(self) -> int:
        """Events that need no handlers any more."""
        return sum(
            n for labels, n in self.counts.items() if labels[0] == "hooks" and labels[-1] != "retry"
        )


class Direction(StrEnum):
    """Where the backlog is heading."""

    EMPTY = "empty"
    SHRINKING = "shrinking"
    GROWING = "growing"
    #: About as many messages come as go.
    STEADY = "steady"
    #: Messages wait, and none has left.
    STUCK = "stuck"
    #: There is no sample yet that is old enough.
    UNKNOWN = "unknown"


class MessageBacklog(NamedTuple):
    """The messages that wait to be sent: those that are queued or retrying."""

    waiting: int
    direction: Direction
    #: Messages by which it grew in a second; negative: it shrank; None: not known.
    growth: float | None = None
    #: Seconds until it is gone if it goes on like this; None: it does not shrink, or not known.
    seconds_left: float | None = None


@dataclass(frozen=True)
class Activity:
    """What happened in the last minute and in the last quarter of an hour.

    A window is None if there is no sample yet, shorter if the first sample is younger, and longer
    if workers took no samples for a while: then they counted nothing either.
    """

    minute: Window | None
    quarter_hour: Window | None
    backlog: MessageBacklog


def sampled_counts(counters: Counts) -> dict[tuple[str, ...], int]:
    """The counters that are sampled, in the form of a sample."""
    sums = Counter[tuple[str, ...]]()
    for labels, number in counters.items():
        match labels:
            case ("took", "sent", provider, _):
                sums["sent", provider] += number
            case (name, *_) if name in _SAMPLED:
                sums[labels] += number
    return dict(sums)


def parse_sample(text: str, at_ms: float) -> Sample | None:
    """A member of the ledger's sorted set of samples and its score; None: it is damaged."""
    try:
        # Before the blank is the time, which makes members unique.
        fields = json.loads(text.partition(" ")[2])
        counts = {tuple(name.split("|")): int(n) for name, n in fields["counts"].items()}
        return Sample(at_ms / 1000, int(fields["waiting"]), counts)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None


def measure_activity(
    now: Sample, minute_ago: Sample | None, quarter_ago: Sample | None
) -> Activity:
    """Compare the present with two samples, which may be the same."""
    minute = _window(now, minute_ago)
    grown = now.waiting - minute_ago.waiting if minute_ago else 0
    return Activity(minute, _window(now, quarter_ago), _backlog(now.waiting, grown, minute))


def _window(now: Sample, then: Sample | None) -> Window | None:
    seconds = now.at - then.at if then else 0.0
    if then is None or seconds < _SHORTEST:
        return None
    # A damaged counter has begun again at 0.
    before = {labels: n for labels, n in then.counts.items() if n <= now.counts.get(labels, 0)}
    return Window(seconds, {k: n - before.get(k, 0) for k, n in now.counts.items()})


def _backlog(waiting: int, grown: int, window: Window | None) -> MessageBacklog:
    if window is None:
        return MessageBacklog(waiting, Direction.UNKNOWN if waiting else Direction.EMPTY)
    growth = grown / window.seconds
    if not waiting:
        return MessageBacklog(0, Direction.EMPTY, growth, 0.0)
    left = window.total("sent") + sum(window.total("ended", state) for state in _NOT_SENT)
    # A queue through which messages flow is never of the same length twice.
    least = max(_LEAST_PART * left, min(_LEAST, left))
    if grown < -least:
        return MessageBacklog(waiting, Direction.SHRINKING, growth, waiting / -growth)
    if grown > least:
        return MessageBacklog(waiting, Direction.GROWING, growth)
    return MessageBacklog(waiting, Direction.STEADY if left else Direction.STUCK, growth)
