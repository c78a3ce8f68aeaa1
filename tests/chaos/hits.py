"""Who was hit by a fault, and when: what else may have ended unknown."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.records import Record

__all__ = ["Hit", "Hits"]


@dataclass(frozen=True)
class Hit:
    """A fault, from when to when (seconds since 1970, by Redis's clock, which is this one's)."""

    since: float
    until: float
    #: The worker that it hit; "": the connection of each to Redis.
    worker: str = ""

    def explains(self, record: Record) -> bool:
        """Was the attempt in flight that left this message unknown?"""
        ends = [line for line in record.timeline if line["state"] == "unknown"]
        attempt = ends[-1].get("attempt") if ends else None
        calls = [
            line
            for line in record.timeline
            if line["state"] == "sending" and line.get("attempt") == attempt
        ]
        if not calls:
            return False
        hit = self.worker in ("", calls[-1].get("worker"))
        return hit and self.since <= ends[-1]["at"] / 1000 and self.until >= calls[-1]["at"] / 1000


class Hits:
    """The part of the rig that remembers them.

    Args:
        points: Folder in which workers note that they came to an armed moment.
    """

    def __init__(self, points: Path) -> None:
        self._points = points
        self._hits: list[Hit] = []
        #: By the file that says so, as those are removed when a moment is armed again.
        self._moments: dict[tuple[str, int], Hit] = {}
        #: Names of workers by process id.
        self.names: dict[int, str] = {}

    @contextmanager
    def during(self, worker: str = "", *, after: float = 0.0) -> Iterator[None]:
        """What a block does hits this worker, or all; the effect lasts ``after`` seconds more."""
        since = time.time()
        try:
            yield
        finally:
            self._hits.append(Hit(since, time.time() + after, worker))

    def gather(self) -> None:
        """Read which workers came to their moments. One that is only stopped there may wake and
        be late at any time."""
        for done in self._points.glob("*.done"):
            at = done.stat().st_mtime_ns
            name = self.names.get(int(done.name.split(".")[-2]), "?")
            # The clock of files lags behind a little.
            self._moments[done.name, at] = Hit(at / 1e9 - 0.05, math.inf, name)

    def explain(self, record: Record) -> bool:
        """Is there one that explains that this message is unknown?"""
        self.gather()
        return any(hit.explains(record) for hit in (*self._hits, *self._moments.values()))
