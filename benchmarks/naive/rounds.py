"""The rounds of faults, and what they came to, counted at the provider."""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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


class Faults(NamedTuple):
    """What is done to both sides in a round."""

    #: What messages ask of the provider, and how often.
    texts: dict[str, int]
    #: How many workers are killed; each is replaced.
    kills: int = 0
    #: How often all connections to Redis are cut, and as often one just as it brings a task.
    cuts: int = 0


ROUNDS = {
    "no faults": Faults({"slow": 1}),
    "kill -9": Faults({"slow": 1}, kills=4),
    "Redis cut": Faults({"slow": 1}, cuts=4),
    "provider cut": Faults({"accept": 12, "cutafter accept": 2, "cut accept": 2, "half accept": 1}),
    "500, 502, late": Faults({"accept": 12, "took500 accept": 1, "took502 accept": 1, "late": 1}),
}
#: A provider holds half of a worker's slots: so that as many calls run at once on both sides.
EQUAL = {"CHAOS_PROVIDERS": "a", "SMSQUEUE_CONCURRENCY": str(2 * SLOTS)}
SIDES: list[Callable[[Rig], Side]] = [Naive, Ours]


def measure(size: int, told: Callable[[str], None]) -> Iterator[Score]:
    """Each round with each side, on a Redis and a provider of its own."""
    for name, faults in ROUNDS.items():
        for make in SIDES:
            told(f"{name}, {make.__name__.lower()}")
            with (
                tempfile.TemporaryDirectory(prefix="smsqueue-naive-") as folder,
                Rig(Path(folder), seed=1, workers=0, environment=EQUAL) as rig,
            ):
                side = make(rig)
                try:
                    yield _round(rig, side, name, faults, size)
                finally:
                    side.close()


def _texts(faults: Faults, size: int) -> list[str]:
    return random.Random(1).choices(list(faults.texts), list(faults.texts.values()), k=size)


def _round(rig: Rig, side: Side, name: str, faults: Faults, size: int) -> Score:
    began = time.time()
    with ThreadPoolExecutor(1) as caller:
        sending = caller.submit(
            lambda: [side.send(f"1555{n:06d}", text) for n, text in enumerate(_texts(faults, size))]
        )
        for n in range(faults.cuts):
            _reach(rig, size * n // (faults.cuts + 1))
            rig.proxy.cut(b"BRPOP", reply=side.task)
            rig.proxy.cut_all()
        for n in range(faults.kills):
            _reach(rig, size * (n + 1) // (faults.kills + 2))
            side.kill()
        sent = sending.result()
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


def _reach(rig: Rig, count: int) -> None:
    """Wait until the provider was asked for so many messages."""
    while len({request["id"] for request in rig.asked()}) < count:
        time.sleep(0.02)
