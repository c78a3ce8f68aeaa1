"""How much of it is done, and what came of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["EXAMPLES", "MUTATIONS", "SECONDS", "SHARE", "Budget", "Tally"]

#: For how long; None: a fixed number of times, with a fixed seed.
SECONDS = float(os.environ.get("FUZZ_SECONDS", 0)) or None
#: Of each kind of receiver, if nobody says for how long.
MUTATIONS = 200
#: Of the time that is given, this part is for webhooks, the rest for parsers.
SHARE = 0.8
#: Inputs of each parser. They take about a tenth of the time.
EXAMPLES = 40 if SECONDS is None else max(40, int(SECONDS / 4))


@dataclass
class Tally:
    """What came of one kind of receiver's mutated webhooks."""

    mutations: int = 0
    #: Answered 2xx, with an event.
    accepted: int = 0
    #: Events that differ from the genuine webhook's.
    altered: int = 0
    #: Taken by us and not by the provider's SDK, or the other way round; None: without an SDK.
    wrongly: int | None = None
    stricter: int | None = None
    #: The first of them, to be looked at.
    examples: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Budget:
    """For how long, or how often, one kind of receiver is attacked."""

    seconds: float | None

    def rounds(self, most: int) -> Iterator[int]:
        """Numbers from 0, as long as there is time; without a time ``most`` of them."""
        ends, n = time.monotonic() + (self.seconds or 0), 0
        while time.monotonic() < ends if self.seconds else n < most:
            yield n
            n += 1
