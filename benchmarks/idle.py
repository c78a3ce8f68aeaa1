"""What a worker that has nothing to do costs Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator

import redis

from benchmarks.celery_workers import start_workers
from benchmarks.measured_figures import Figure, absolute
from benchmarks.resources import redis_use
from benchmarks.stage import Stage, connected

__all__ = ["measure_idle"]


def measure_idle(stage: Stage) -> Iterator[Figure]:
    """Redis's CPU time with one idle worker process, less that without any worker."""
    server = stage.redis()
    client = connected(server)
    seconds, settle = stage.size(60.0, 10.0), stage.size(10.0, 3.0)
    stage.told("without a worker")
    alone, _ = _percent_of_a_core(client, seconds)
    workers = start_workers(
        stage,
        "workers",
        {
            "SMSQUEUE_REDIS_URL": server.url,
            "SMSQUEUE_GATEWAY": "benchmarks.gateways:sending",
            "BENCH_STUB": "http://127.0.0.1:9",
        },
    )
    stage.told("one idle worker")
    time.sleep(settle)
    with_worker, round_trips = _percent_of_a_core(client, seconds)
    workers.check()
    yield absolute(
        "idle",
        "Redis CPU, idle worker",
        "percent of a core that Redis spends on one idle worker process",
        "%",
        [with_worker - alone],
        at_most=0.1,
        notes={
            "Redis without a worker, %": round(alone, 3),
            "round trips per second": round(round_trips, 1),
            "seconds": seconds,
        },
    )


def _percent_of_a_core(client: redis.Redis, seconds: float) -> tuple[float, float]:
    """Redis's CPU time over some seconds, and its round trips per second."""
    before, began = redis_use(client), time.monotonic()
    time.sleep(seconds)
    use, took = redis_use(client).since(before), time.monotonic() - began
    return 100 * use.cpu / took, (use.round_trips - 1) / took
