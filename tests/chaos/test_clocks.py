"""Workers whose clocks are wrong: only Redis's clock counts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.chaos.invariants import check
from tests.chaos.load import CALM, Load, reach
from tests.chaos.rig import Rig, until

if TYPE_CHECKING:
    from smsqueue import Gateway

#: Seconds that the workers' clocks are ahead. Longer than every lease, grace and timeout.
WRONG = (600, -600, 0)

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long ahead(void) {
  const char *text = getenv("CHAOS_AHEAD");
  return text ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int failed = real(clock, at);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += ahead();
  return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  struct timespec now;
  int failed = clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return failed;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
"""


def __getattr__(name: str) -> Gateway:
    """``gateway``: what the workers load; without a C compiler they are misled here."""
    if name != "gateway":
        raise AttributeError(name)
    if "LD_PRELOAD" not in os.environ:
        right, ahead = time.time, float(os.environ["CHAOS_AHEAD"])
        time.time = lambda: right() + ahead
    from tests.chaos.app import gateway

    globals()["gateway"] = gateway
    return gateway


def _preloaded(folder: Path) -> dict[str, str]:
    """What of the environment makes the C library tell another time."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return {}
    source, made = folder / "shim.c", folder / "shim.so"
    source.write_text(SHIM)
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(source), "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    return {"LD_PRELOAD": str(made)}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """With a worker for each of the clocks."""
    more = {"SMSQUEUE_GATEWAY": f"{__name__}:gateway"}
    with Rig(tmp_path, workers=0, environment=more) as made:
        shim = _preloaded(tmp_path)
        for ahead in WRONG:
            made.start_workers(1, CHAOS_AHEAD=str(ahead), **shim)
        yield made


def _clocks(rig: Rig) -> Counter[int]:
    """How far ahead of this one are the clocks by which handlers ran, in whole hundreds."""
    now = time.time()
    return Counter(round((line["at"] - now) / 100) * 100 for line in rig.heard())


def test_workers_with_wrong_clocks_send_everything_once(rig: Rig) -> None:
    with Load(rig, 90, texts=CALM, seconds=3, impatient=0) as load:
        while load.running:
            rig.leases_end()
            time.sleep(0.02)
    until(lambda: set(_clocks(rig)) == set(WRONG) or not rig.open(), what="work of each")
    rig.settle()
    assert set(_clocks(rig)) == set(WRONG), "each worker has worked, by its own clock"
    figures = check(rig)
    assert (figures.lost, figures.twice, figures.unknown) == (0, 0, 0)
    # What a dead worker leaves behind is neither taken too early nor left lying.
    began = time.monotonic()
    reach(rig, "call", signal.SIGKILL, texts={"slow": 1})
    rig.settle()
    assert time.monotonic() - began < 60
    check(rig)
