"""Delivering with one worker, beside a worker with a bare task that posts the same."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.backlogs import BARE_THREADS, Delivered, deliver_backlog, deliver_bare_backlog
from benchmarks.measured_figures import Figure, absolute, compared, middle_of
from benchmarks.stage import Stage

__all__ = ["measure_delivery"]


def measure_delivery(stage: Stage) -> Iterator[Figure]:
    """The rate beside the bare task's; CPU time and round trips to Redis of the same runs."""
    server, provider = stage.redis(), stage.provider()
    count, bare_count = stage.size(20_000, 4000), stage.size(3000, 1000)
    rounds = stage.size(3, 1)
    pairs: list[tuple[Delivered, Delivered]] = []
    for i in range(rounds):
        stage.told(f"round {i + 1} of {rounds}, smsqueue")
        ours = deliver_backlog(stage, server, provider, count)
        stage.told(f"round {i + 1} of {rounds}, the bare task")
        pairs.append((ours, deliver_bare_backlog(stage, server, provider, bare_count)))
    runs, bare_runs = zip(*pairs, strict=True)
    yield compared(
        "delivery",
        "one worker",
        "deliveries per second, beside a worker whose task only posts",
        "/s",
        [(ours.rate, bare.rate) for ours, bare in pairs],
        at_least=7.0,
        notes={"messages": count, "bare: messages": bare_count, "bare: threads": BARE_THREADS},
    )
    yield absolute(
        "cpu",
        "CPU, one worker",
        "CPU seconds per 1,000 messages, accept to settled, worker and Redis, INFO logs",
        "s",
        [run.cpu for run in runs],
        at_most=0.6,
        notes={
            "worker": middle_of(run.workers_cpu for run in runs),
            "Redis": middle_of(run.redis_cpu for run in runs),
            "not counted: the process that sends": middle_of(run.sender_cpu for run in runs),
            "bare": middle_of(run.cpu for run in bare_runs),
            "messages": count,
        },
    )
    yield absolute(
        "round_trips",
        "Redis round trips",
        "that the worker makes per message of a backlog",
        "",
        [run.round_trips for run in runs],
        at_most=1.5,
        notes={
            f"{name} per message": middle_of(run.redis.commands[name] / run.count for run in runs)
            for name in runs[0].redis.commands
        }
        | {"bare": middle_of(run.round_trips for run in bare_runs), "messages": count},
    )
