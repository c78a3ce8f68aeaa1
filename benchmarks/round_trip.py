"""The full round trip of a message: sent, its ``onSend`` handler, one delivery report, its
``onStatus`` handler."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.celery_workers import Workers, start_workers
from benchmarks.gateways import ON_SEND, ON_STATUS
from benchmarks.measured_figures import Figure, absolute, middle_of
from benchmarks.resources import redis_use
from benchmarks.sending import messages
from benchmarks.stage import Stage, connected
from benchmarks.stub_client import Provider
from smsqueue import Gateway
from smsqueue.message.states import EventState, State
from smsqueue.message.statuses import MessageDelivered
from smsqueue.settings import Settings
from smsqueue.stack import StackError

__all__ = ["measure_round_trip"]

#: Seconds without progress after which a run counts as stuck, and between two looks.
_STUCK, _INTERVAL = 30.0, 0.05


def measure_round_trip(stage: Stage) -> Iterator[Figure]:
    """CPU time and rate of one worker that sends and runs handlers."""
    server, provider = stage.redis(), stage.provider()
    count, rounds = stage.size(3000, 500), stage.size(3, 1)
    client = connected(server)
    environment = {
        "SMSQUEUE_REDIS_URL": server.url,
        "SMSQUEUE_GATEWAY": "benchmarks.gateways:with_handlers",
        "BENCH_STUB": provider.url,
    }
    totals, worker_shares, redis_shares, sender_shares, rates = [], [], [], [], []
    for i in range(rounds):
        stage.told(f"round {i + 1} of {rounds}")
        client.flushall()
        provider.clear()
        workers = start_workers(stage, "workers", environment)
        with Gateway(Settings(redis_url=server.url)) as gateway:
            batch = messages(count)
            for message in batch:
                message.options(status_report=True)
            use, sender, began = redis_use(client), time.process_time(), time.monotonic()
            gateway.send_many(batch)
            _report(gateway, provider, workers, count)
            _wait(gateway, workers, count)
            took, sender = time.monotonic() - began, time.process_time() - sender
        redis_cpu, worker_cpu = redis_use(client).since(use).cpu, workers.cpu()
        for key in (ON_SEND, ON_STATUS):
            calls = int(client.get(key) or 0)
            if calls != count:
                raise StackError(f"{key} has {calls} calls for {count} messages")
        workers.end(stage)
        worker_shares.append(1000 * worker_cpu / count)
        redis_shares.append(1000 * redis_cpu / count)
        sender_shares.append(1000 * sender / count)
        totals.append(worker_shares[-1] + redis_shares[-1])
        rates.append(count / took)
    yield absolute(
        "round_trip",
        "CPU, round trip",
        "CPU seconds per 1,000 messages with an onSend handler, one delivered report and an "
        "onStatus handler each; worker and Redis, INFO logs",
        "s",
        totals,
        at_most=2.6,
        notes={
            "worker": middle_of(worker_shares),
            "Redis": middle_of(redis_shares),
            "not counted: the process that sends and records the reports": middle_of(sender_shares),
            "messages per second": middle_of(rates),
            "messages": count,
        },
    )


def _report(gateway: Gateway, provider: Provider, workers: Workers, count: int) -> None:
    """Record a delivered report of every message, as the receivers do, soon after its answer."""
    reported, answered, since = 0, 0, time.monotonic()
    while reported < count:
        workers.check()
        # One look later: a report seldom overtakes the answer.
        for number in range(reported + 1, answered + 1):
            status = MessageDelivered(f"stub-{number}")
            status.provider = "stub"
            gateway.receive_status(status)
        if answered > reported:
            reported, since = answered, time.monotonic()
        if time.monotonic() - since > _STUCK:
            raise StackError(f"only {reported} of {count} messages were sent")
        time.sleep(_INTERVAL)
        answered = provider.state().answered


def _wait(gateway: Gateway, workers: Workers, count: int) -> None:
    """Wait until all messages are delivered and all events are done."""
    last, since = dict[str, int](), time.monotonic()
    while True:
        counts = gateway.ledger.counts()
        if counts[State.DELIVERED] == count and not any(
            counts[state] for state in (EventState.PARKED, EventState.WAITING, EventState.RUNNING)
        ):
            return
        workers.check()
        if counts != last:
            last, since = counts, time.monotonic()
        elif time.monotonic() - since > _STUCK:
            states = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
            raise StackError(f"the round trips do not end: {states}")
        time.sleep(_INTERVAL)
