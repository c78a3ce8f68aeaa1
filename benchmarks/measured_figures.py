"""What was measured, and how two things are measured side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

__all__ = ["Figure", "NotMeasured", "absolute", "alternate", "compared", "middle_of", "p50_us"]


@dataclass(frozen=True)
class Figure:
    """One line of the report.

    ``value`` is what the target speaks of, mostly ours / bare; ``low`` and ``high`` are the
    smallest and the largest one of the rounds.
    """

    name: str
    title: str
    what: str
    unit: str
    ours: float
    bare: float | None
    value: float
    low: float
    high: float
    target: float
    #: True: the value should be at most the target; False: at least.
    at_most: bool
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Is the target met?"""
        return self.value <= self.target if self.at_most else self.value >= self.target


@dataclass(frozen=True)
class NotMeasured:
    """A line of the report that could not be measured on this machine."""

    name: str
    title: str
    #: Why not, and what to do about it.
    reason: str


def alternate(
    count: int, ours: Callable[[int], object], bare: Callable[[int], object]
) -> tuple[float, float]:
    """Call both ``count`` times in turn, each with 0, 1, 2 ...; the p50 of both in microseconds.

    Who goes first changes from call to call.
    """
    took: tuple[list[int], list[int]] = ([], [])
    both = (ours, bare)
    clock = time.perf_counter_ns
    for i in range(count):
        for which in (0, 1) if i % 2 else (1, 0):
            call = both[which]
            began = clock()
            call(i)
            took[which].append(clock() - began)
    return p50_us(took[0]), p50_us(took[1])


def middle_of(values: Iterable[float]) -> float:
    """The median, rounded for the notes of a figure."""
    return round(median(values), 3)


def p50_us(nanoseconds: list[int]) -> float:
    """The median in microseconds."""
    return median(nanoseconds) / 1000


def absolute(
    name: str,
    title: str,
    what: str,
    unit: str,
    rounds: list[float],
    *,
    at_most: float,
    notes: dict[str, Any] | None = None,
) -> Figure:
    """The figure of a quantity that is not compared with another: the median of its rounds."""
    value = median(rounds)
    return Figure(
        name,
        title,
        what,
        unit,
        ours=value,
        bare=None,
        value=value,
        low=min(rounds),
        high=max(rounds),
        target=at_most,
        at_most=True,
        notes=notes or {},
    )


def compared(
    name: str,
    title: str,
    what: str,
    unit: str,
    rounds: list[tuple[float, float]],
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    inverse: bool = False,
    notes: dict[str, Any] | None = None,
) -> Figure:
    """The figure that some rounds of (ours, bare) make: the median of each round's ratio.

    Args:
        inverse: The ratio is bare / ours: how many times as fast.
    """
    ratios = [bare / ours if inverse else ours / bare for ours, bare in rounds]
    target = at_most if at_most is not None else at_least
    assert target is not None
    return Figure(
        name,
        title,
        what,
        unit,
        ours=median(ours for ours, _ in rounds),
        bare=median(bare for _, bare in rounds),
        value=median(ratios),
        low=min(ratios),
        high=max(ratios),
        target=target,
        at_most=at_most is not None,
        notes=notes or {},
    )
