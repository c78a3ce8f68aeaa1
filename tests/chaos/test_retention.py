"""What is over is forgotten: in Redis, and in the memory of the processes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from tests.chaos.load import CALM, Load
from tests.chaos.rig import Rig, until

#: What stays for ever, and does not grow with the messages.
STAYS = {"secret", "counts", "workers", "pauses", "full", "pause", "passed"}


def _left(rig: Rig) -> set[str]:
    keys = {key.split(":")[1] for key in rig.direct.scan_iter(rig.key("*"), count=1000)}
    return keys - STAYS - {"broker"}


def _memory(rig: Rig) -> tuple[int, list[int]]:
    """Bytes of Redis's data, and KiB of each worker."""
    rig.direct.execute_command("MEMORY", "PURGE")
    pids = ",".join(str(worker.pid) for worker in rig.workers)
    said = subprocess.run(
        ["ps", "-o", "rss=", "-p", pids], capture_output=True, text=True, check=True
    )
    return int(rig.direct.info("memory")["used_memory"]), [int(n) for n in said.stdout.split()]


def test_nothing_stays_behind(make_rig: Callable[..., Rig], size: int) -> None:
    times = {"SMSQUEUE_RETENTION": "3", "SMSQUEUE_REPORT_WAIT": "1"}
    rig = make_rig(environment=times)
    before = []
    for _ in range(2):
        with Load(rig, size, texts=CALM, impatient=0):
            pass
        rig.settle()
        until(lambda: not _left(rig), 60, "the end of all records")
        before.append(_memory(rig))
    (first, firsts), (last, lasts) = before[0], before[-1]
    assert last < first + 1_000_000
    assert all(b < a + 20_000 for a, b in zip(sorted(firsts), sorted(lasts), strict=True))
    requests = rig.asked()
    took = [request["id"] for request in requests if request["took"]]
    assert len(took) == len(set(took))
    accepted = int(rig.direct.hget(rig.key("counts"), "accepted") or 0)
    ended = {r["id"] for r in requests} | (set(rig.book.sent) - {r["id"] for r in requests})
    assert len(ended) == accepted
    assert set(rig.book.sent) <= ended
