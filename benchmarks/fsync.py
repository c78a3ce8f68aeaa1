"""What ``appendfsync`` costs: accepting messages and round trips on three Redis servers that differ
in it only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from statistics import median

from benchmarks.celery_workers import Workers, start_workers
from benchmarks.measured_figures import Figure, compared, middle_of
from benchmarks.sending import BODY, messages
from benchmarks.stage import Stage
from benchmarks.stub_client import Provider
from smsqueue import Gateway, OutgoingMessage
from smsqueue.message.states import State
from smsqueue.settings import Settings
from smsqueue.stack import StackError

__all__ = ["measure_fsync"]

#: Values of ``appendfsync``.
_POLICIES = ("always", "everysec", "no")
#: Threads that call ``send()`` at once.
_THREADS = 8
#: Seconds between two single messages, without progress, and between two looks.
_APART, _STUCK, _INTERVAL = 0.05, 60.0, 0.02


@dataclass
class _Side:
    """A Redis server with one policy, and a worker."""

    policy: str
    gateway: Gateway
    provider: Provider
    workers: Workers
    #: Numbers of the messages.
    numbers: Iterator[int]

    def send_one_by_one(self, number: int) -> float:
        """The p50 of ``send()``, in microseconds. One caller, so each call waits for its own
        fsync."""
        took = []
        for message in self._messages(number):
            began = time.perf_counter()
            self.gateway.send(message)
            took.append(time.perf_counter() - began)
        return median(took) * 1e6

    def send_in_threads(self, number: int) -> float:
        """Messages per second that callers at once have accepted. Redis writes what several have
        sent by one fsync."""
        batch = self._messages(number)
        with ThreadPoolExecutor(_THREADS) as threads:
            began = time.perf_counter()
            for _ in threads.map(self.gateway.send, batch):
                pass
            return number / (time.perf_counter() - began)

    def round_trips(self, number: int) -> float:
        """Messages per second from ``send_many`` until all are recorded as sent."""
        batch = self._messages(number)
        began = time.perf_counter()
        self.gateway.send_many(batch)
        self.wait()
        return number / (time.perf_counter() - began)

    def singles(self, number: int) -> float:
        """The p50 from the call of ``send()`` to the provider, in milliseconds."""
        called = {}
        self.provider.clear()
        for message in self._messages(number):
            message.body = f"single {message.dst} {BODY}"
            called[message.body] = time.monotonic()
            self.gateway.send(message)
            time.sleep(_APART)
        self.wait()
        came = self.provider.singles()
        return median(came[text] - at for text, at in called.items()) * 1000

    def wait(self) -> None:
        """Wait until everything is recorded as sent."""
        last, since = -1, time.monotonic()
        while True:
            counts = self.gateway.ledger.counts()
            left = sum(counts[state] for state in (State.QUEUED, State.SENDING, State.RETRYING))
            if not left:
                return
            self.workers.check()
            if left != last:
                last, since = left, time.monotonic()
            elif time.monotonic() - since > _STUCK:
                raise StackError(f"{left} messages are not sent (appendfsync {self.policy})")
            time.sleep(_INTERVAL)

    def _messages(self, number: int) -> list[OutgoingMessage]:
        return messages(number, next(self.numbers) * 10_000)


def measure_fsync(stage: Stage) -> Iterator[Figure]:
    """Rounds with ``always``, ``everysec`` and ``no`` in turn; a worker for each runs all the
    time."""
    sides = [_start(stage, policy) for policy in _POLICIES]
    calls, rounds = stage.size(300, 100), stage.size(9, 5)
    campaign, few = stage.size(3000, 1000), stage.size(20, 10)
    steps: dict[str, Callable[[_Side], float]] = {
        "send": lambda side: side.send_one_by_one(calls),
        "threads": lambda side: side.send_in_threads(calls),
        "round trips": lambda side: side.round_trips(campaign),
        "single": lambda side: side.singles(few),
    }
    results: dict[str, list[dict[str, float]]] = {step: [] for step in steps}
    for i in range(-1, rounds):  # the first one warms up
        stage.told(f"round {i + 1} of {rounds}")
        for step, run in steps.items():
            of_round = {}
            for k in range(len(sides)):
                side = sides[(i + k) % len(sides)]
                of_round[side.policy] = run(side)
                side.wait()
            if i >= 0:
                results[step].append(of_round)
    for side in sides:
        side.gateway.close()
    per_round: dict[str, float] = {"calls a round": calls, "rounds": rounds}
    yield _figure(
        *("send", "send(), fsync", "p50 of one send(), one caller", "us", results["send"]),
        notes=per_round,
        at_most=10.0,
    )
    what = f"accepted by {_THREADS} threads that call send()"
    yield _figure(
        *("threads", "accepted, fsync", what, "/s", results["threads"]),
        notes=per_round,
        at_least=0.3,
    )
    what = "from send_many until all are sent, one worker"
    yield _figure(
        *("round_trips", "round trips, fsync", what, "/s", results["round trips"]),
        notes={"messages a round": campaign, "rounds": rounds},
        at_least=0.5,
    )
    what = "p50 from send() to the provider"
    yield _figure(
        *("single", "single, fsync", what, "ms", results["single"]),
        notes={"messages a round": few, "rounds": rounds},
        at_most=3.0,
    )


def _start(stage: Stage, policy: str) -> _Side:
    server, provider = stage.redis(f"redis-{policy}", "--appendfsync", policy), stage.provider()
    environment = {
        "SMSQUEUE_REDIS_URL": server.url,
        "SMSQUEUE_GATEWAY": "benchmarks.gateways:sending",
        "BENCH_STUB": provider.url,
    }
    workers = start_workers(stage, "workers", environment)
    return _Side(policy, Gateway(Settings(redis_url=server.url)), provider, workers, count())


def _figure(
    name: str,
    title: str,
    what: str,
    unit: str,
    rounds: list[dict[str, float]],
    *,
    notes: dict[str, float],
    at_most: float | None = None,
    at_least: float | None = None,
) -> Figure:
    return compared(
        f"fsync_{name}",
        title,
        f"{what}: appendfsync always, beside everysec",
        unit,
        [(of_round["always"], of_round["everysec"]) for of_round in rounds],
        at_most=at_most,
        at_least=at_least,
        notes={"no": middle_of(of_round["no"] for of_round in rounds)} | notes,
    )
