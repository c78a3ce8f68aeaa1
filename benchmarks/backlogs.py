"""Delivering a backlog: messages are put in first, then workers start, and the stub notes when the
messages come."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.bare_task import make_app
from benchmarks.celery_workers import Workers, start_workers
from benchmarks.resources import RedisUse, redis_memory, redis_use
from benchmarks.sending import messages
from benchmarks.stage import Stage, connected
from benchmarks.stub_client import Provider, rate
from smsqueue import Gateway
from smsqueue.message.states import State
from smsqueue.settings import Settings
from smsqueue.stack import RedisServer, StackError

__all__ = ["Delivered", "deliver_backlog", "deliver_bare_backlog"]

#: Threads of the worker with the bare task.
BARE_THREADS = 100
#: Seconds that recording the last answers may take, and between two looks.
_PATIENCE, _INTERVAL = 60.0, 0.05


@dataclass(frozen=True)
class Delivered:
    """How a backlog was delivered, from accepting it until everything was recorded."""

    count: int
    #: Messages per second at the provider, once all workers were ready.
    rate: float
    #: CPU seconds per 1,000 messages: of the process that puts them in, of the workers without
    #: their start, and of Redis.
    sender_cpu: float
    workers_cpu: float
    redis_cpu: float
    #: What Redis did for the workers, their start included.
    redis: RedisUse

    @property
    def cpu(self) -> float:
        """CPU seconds per 1,000 messages of workers and Redis together."""
        return self.workers_cpu + self.redis_cpu

    @property
    def round_trips(self) -> float:
        """Round trips to Redis per message that the workers made."""
        return self.redis.round_trips / self.count


def deliver_backlog(
    stage: Stage, server: RedisServer, provider: Provider, count: int, *, processes: int = 1
) -> Delivered:
    """Deliver so many messages of one ``send_many`` with smsqueue's workers, with its settings as
    they are by default."""
    run = _Run(stage, server, provider, count)
    with Gateway(Settings(redis_url=server.url)) as gateway:
        batch = messages(count)
        run.begin()
        gateway.send_many(batch)
        del batch
        several = f"{processes} workers" if processes > 1 else "one worker"
        run.start(f"Backlog, {several}", "workers", processes)

        def settled() -> bool:
            return gateway.ledger.counts()[State.SENT] == count

        return run.finish(settled)


def deliver_bare_backlog(
    stage: Stage, server: RedisServer, provider: Provider, count: int
) -> Delivered:
    """Deliver so many messages with one worker whose task only posts them."""
    run = _Run(stage, server, provider, count)
    settings = Settings(redis_url=server.url)
    client, app = connected(server), make_app(settings)
    run.begin()
    for message in messages(count):
        app.tasks["bare.post"].apply_async((message.dst, message.body), retry=False)
    app.close()
    title = f"Backlog, bare task with {BARE_THREADS} threads"
    run.start(title, "benchmarks.bare_task", 1, "-c", str(BARE_THREADS))
    return run.finish(lambda: not client.hlen(f"{settings.broker_prefix}unacked"))


class _Run:
    """The steps that are the same for both."""

    def __init__(self, stage: Stage, server: RedisServer, provider: Provider, count: int) -> None:
        self.stage, self.server, self.provider, self.count = stage, server, provider, count
        self.client = connected(server)
        self.client.flushall()
        provider.clear()

    def begin(self) -> None:
        """Call it before the messages are put in."""
        self.before = redis_use(self.client)
        self.sender_before = time.process_time()

    def start(self, title: str, app: str, processes: int, *options: str) -> None:
        """Start the workers, when the messages are in."""
        self.sender_cpu = time.process_time() - self.sender_before
        self.put_in = redis_use(self.client)
        environment = {
            "SMSQUEUE_REDIS_URL": self.server.url,
            "SMSQUEUE_GATEWAY": "benchmarks.gateways:sending",
            "BENCH_STUB": self.provider.url,
        }
        self.workers: Workers = start_workers(
            self.stage, app, environment, count=processes, options=options
        )
        self.recorder = self.stage.record(
            title,
            {
                "Redis": lambda: redis_memory(self.client),
                "workers, RSS": self.workers.resident_bytes,
            },
        )

    def finish(self, settled: Callable[[], bool]) -> Delivered:
        """Wait until every message was answered and ``settled()`` is true, and end the workers."""
        self.provider.wait_for_answers(self.count, self.workers.check)
        deadline, looks = time.monotonic() + _PATIENCE, 1
        while not settled():
            if time.monotonic() > deadline:
                raise StackError(f"not everything was recorded\n{self.workers.processes[0].tail()}")
            time.sleep(_INTERVAL)
            looks += 1
        workers_cpu, use = self.workers.cpu(), redis_use(self.client)
        times = self.provider.times()
        if self.recorder:
            self.stage.keep(self.recorder.stop(times, []))
            looks += self.recorder.samples
        self.workers.end(self.stage)
        by_workers = use.since(self.put_in)
        thousands = self.count / 1000
        return Delivered(
            count=self.count,
            rate=rate(times, since=self.workers.ready_at),
            sender_cpu=self.sender_cpu / thousands,
            workers_cpu=workers_cpu / thousands,
            redis_cpu=use.since(self.before).cpu / thousands,
            redis=by_workers._replace(round_trips=by_workers.round_trips - looks),
        )
