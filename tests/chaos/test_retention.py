"""What is over is forgotten: in Redis, and in the memory of the processes."""

from __future__ import annotations

import gc
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tests.chaos.carrier import Webhooks
from tests.chaos.load import CALM, Load
from tests.chaos.rig import Rig, until

if TYPE_CHECKING:
    from smsqueue import Gateway

#: What stays for ever, and does not grow with the messages.
STAYS = {"secret", "counts", "workers", "pauses", "pause", "health", "sweeper", "passed", "filled"}
#: Rounds until everything has happened once that is kept for good: connections, threads, caches.
WARM = 3


def _tell_objects() -> None:
    """Write down how many objects this process has, whenever that is asked for."""
    asked = Path(os.environ["CHAOS_POINTS"]) / f"objects.{os.getpid()}"
    while True:
        if asked.exists() and not asked.read_text():
            gc.collect()
            asked.write_text(str(len(gc.get_objects())))
        time.sleep(0.05)


def __getattr__(name: str) -> Gateway:
    """``gateway``: what the workers load."""
    if name != "gateway":
        raise AttributeError(name)
    from tests.chaos.app import gateway

    threading.Thread(target=_tell_objects, daemon=True).start()
    globals()["gateway"] = gateway
    return gateway


def _left(rig: Rig) -> set[str]:
    """Kinds of keys that are to go; of the broker's, those that hold triggers."""
    known = set(rig.direct.scan_iter(rig.key("*"), count=1000))
    held = known & {rig.settings.send_key, rig.settings.hook_key, rig.key("broker", "unacked")}
    return held | {key.split(":")[1] for key in known} - STAYS - {"broker"}


def _kept(rig: Rig) -> int:
    """Bytes of all keys, those of the broker too."""
    keys = list(rig.direct.scan_iter("*", count=1000))
    return sum(int(rig.direct.memory_usage(key, samples=0) or 0) for key in keys)


def _objects(rig: Rig) -> list[int]:
    """Of each worker."""
    files = [rig.points / f"objects.{worker.pid}" for worker in rig.workers]
    for file in files:
        file.write_text("")
    until(lambda: all(file.read_text() for file in files), what="the workers' answers")
    return [int(file.read_text()) for file in files]


def _resident(rig: Rig) -> list[int]:
    """KiB of each worker."""
    pids = ",".join(str(worker.pid) for worker in rig.workers)
    command = ["ps", "-o", "rss=", "-p", pids]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(n) for n in said.stdout.split()]


def test_nothing_stays_behind(make_rig: Callable[..., Rig], size: int) -> None:
    more = {"SMSQUEUE_RETENTION": "3", "SMSQUEUE_REPORT_WAIT": "1"}
    rig = make_rig(environment=more | {"SMSQUEUE_GATEWAY": f"{__name__}:gateway"})
    bytes_, objects, resident = [], [], []
    count = max(size, 240)
    for _ in range(WARM + 2):
        with Webhooks(rig), Load(rig, count, texts=CALM, impatient=0):
            pass
        rig.settle()
        until(lambda: not _left(rig), 60, "the end of all records")
        bytes_.append(_kept(rig))
        objects.append(_objects(rig))
        resident.append(_resident(rig))
    # In two rounds: five bytes of each message, and two objects of each in the worker that had it.
    # Less is noise: a worker that is never idle has some hundred objects more or less.
    assert bytes_[-1] - bytes_[WARM - 1] < 10 * count
    for before, after in zip(objects[WARM - 1], objects[-1], strict=True):
        assert after - before < 2 * count
    assert all(b < a + 20_000 for a, b in zip(resident[WARM - 1], resident[-1], strict=True))
    requests = rig.asked()
    took = [request["id"] for request in requests if request["took"]]
    assert len(took) == len(set(took))
    accepted = int(rig.direct.hget(rig.key("counts"), "accepted") or 0)
    ended = {r["id"] for r in requests} | (set(rig.book.sent) - {r["id"] for r in requests})
    assert len(ended) == accepted
    assert set(rig.book.sent) <= ended
