"""The rounds of faults, and what they came to, counted at the provider."""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.naive.sides import Naive, Ours, Side
from tests.chaos.rig import SLOTS, Rig

__all__ = ["ROUNDS", "Score", "measure"]


class Score(NamedTuple):
    """What a round came to for one side."""

    round: str
    side: str
    messages: int
    #: Never taken by the provider, and nobody says so.
    lost: int
    #: SMS that went out although the same message had gone out before.
    twice: int
    #: Not known to be sent, and told as that; and how many of them were not.
    unknown: int
    unsent: int
    #: Messages taken per second, from the first send until nine of ten of them were.
    rate: float


#: Name: what messages ask of the provider, how often, and how many workers are killed.
ROUNDS: dict[str, tuple[dict[str, int], int]] = {
    "no faults": ({"slow": 1}, 0),
    "kill -9": ({"slow": 1}, 4),
    "connections cut": ({"accept": 12, "cutafter accept": 2, "cut accept": 2, "half accept": 1}, 0),
    "500, 502, late": ({"accept": 12, "took500 accept": 1, "took502 accept": 1, "late": 1}, 0),
}
#: A provider holds half of a worker's slots: so that as many calls run at once on both sides.
EQUAL = {"CHAOS_PROVIDERS": "a", "SMSQUEUE_CONCURRENCY": str(2 * SLOTS)}
SIDES: list[Callable[[Rig], Side]] = [Naive, Ours]


def measure(size: int, told: Callable[[str], None]) -> Iterator[Score]:
    """Each round with each side, on a Redis and a provider of its own."""
    for name, (texts, kills) in ROUNDS.items():
        for make in SIDES:
            told(f"{name}, {make.__name__.lower()}")
            with (
                tempfile.TemporaryDirectory(prefix="smsqueue-naive-") as folder,
                Rig(Path(folder), seed=1, workers=0, environment=EQUAL) as rig,
            ):
                side = make(rig)
                try:
                    yield _round(rig, side, name, texts, kills, size)
                finally:
                    side.close()


def _round(rig: Rig, side: Side, name: str, texts: dict[str, int], kills: int, size: int) -> Score:
    dice, began = random.Random(1), time.time()
    sent: list[str] = []
    for n in range(size):
        text = dice.choices(list(texts), list(texts.values()))[0]
        sent.append(side.send(f"1555{n:06d}", text))
    for n in range(kills):
        wanted = len(sent) * (n + 1) // (kills + 2)
        while len({request["id"] for request in rig.asked()}) < wanted:
            time.sleep(0.02)
        side.kill()
    unknown = side.finish()
    took = [request for request in rig.asked() if request["took"]]
    times = Counter(request["id"] for request in took)
    firsts = {request["id"]: request["at"] for request in reversed(took)}
    most = sorted(firsts.values())[: len(firsts) * 9 // 10]
    return Score(
        round=name,
        side=side.name,
        messages=size,
        lost=sum(id not in times and id not in unknown for id in sent),
        twice=sum(number - 1 for number in times.values()),
        unknown=len(unknown),
        unsent=len(unknown - set(times)),
        rate=len(most) / (most[-1] - began),
    )
