"""Delivering: one worker process beside a worker with a bare task that posts the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import requests

from benchmarks.bare_task import make_app
from benchmarks.figures import Figure, compared
from benchmarks.sending import messages
from benchmarks.stage import Stage, connected
from smsqueue import Gateway
from smsqueue.settings import Settings
from smsqueue.stack import Process, RedisServer, StackError, free_port

__all__ = ["measure_delivery"]

#: Threads of the worker.
THREADS = 100
#: Seconds that one round may take.
PATIENCE = 180.0


def measure_delivery(stage: Stage) -> Iterator[Figure]:
    """Messages are put in first; then a worker starts, and the stub notes when they come."""
    server, stub = stage.redis(), _stub(stage)
    count, rounds = stage.size(2000, 1000), stage.size(5, 2)
    environment = {
        "SMSQUEUE_REDIS_URL": server.url,
        "SMSQUEUE_GATEWAY": "benchmarks.gateways:sending",
        "BENCH_STUB": stub,
    }
    found: list[tuple[float, float]] = []
    for i in range(rounds):
        rates: dict[str, float] = {}
        both: dict[str, Callable[[RedisServer, int], None]] = {
            "workers": _put_ours,
            "benchmarks.bare_task": _put_bare,
        }
        for app in list(both)[:: 1 if i % 2 else -1]:
            stage.told(f"round {i + 1} of {rounds}, {app}")
            connected(server).flushall()
            both[app](server, count)
            worker = ["-m", "celery", "-A", app, "worker", "-P", "threads", "-c", str(THREADS)]
            _call("DELETE", stub)
            process = stage.python(
                f"{app}-{i}", [*worker, "-l", "INFO"], environment=environment, ready=_ready
            )
            rates[app] = _rate(_wait(process, stub, count))
            stage.end(process)
        found.append((rates["workers"], rates["benchmarks.bare_task"]))
    yield compared(
        "delivery",
        "one worker",
        "deliveries per second, beside a worker whose task only posts",
        "/s",
        found,
        at_least=0.75,
        notes={"messages": count, "threads": THREADS},
    )


def _stub(stage: Stage) -> str:
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def ready(process: Process) -> bool:
        try:
            return _call("DELETE", url) == []
        except requests.RequestException:
            return False

    stage.python("stub", ["-m", "benchmarks.stub", str(port)], environment={}, ready=ready)
    return url


def _call(method: str, url: str) -> list[float]:
    answer = requests.request(method, url, timeout=10, proxies={"http": ""})
    times: list[float] = answer.json()
    return times


def _ready(process: Process) -> bool:
    return " ready." in process.tail(1000)


def _put_ours(server: RedisServer, count: int) -> None:
    with Gateway(Settings(redis_url=server.url)) as gateway:
        gateway.send_many(messages(count))


def _put_bare(server: RedisServer, count: int) -> None:
    app = make_app(Settings(redis_url=server.url))
    for message in messages(count):
        app.tasks["bare.post"].apply_async((message.dst, message.body), retry=False)
    app.close()


def _wait(worker: Process, stub: str, count: int) -> list[float]:
    """When the messages came to the stub; waits until all have."""
    deadline = time.monotonic() + PATIENCE
    while True:
        times = _call("GET", stub)
        if len(times) >= count:
            return times
        if not worker.alive or time.monotonic() > deadline:
            raise StackError(f"{len(times)} of {count} messages were sent\n{worker.tail()}")
        time.sleep(0.5)


def _rate(times: list[float]) -> float:
    """Per second, without the first and the last tenth: a worker that starts or runs dry."""
    first, last = len(times) // 10, len(times) - len(times) // 10 - 1
    return (last - first) / (times[last] - times[first])
