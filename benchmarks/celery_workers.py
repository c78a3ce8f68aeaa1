"""Celery workers that are measured."""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks.resources import cpu_seconds, resident_bytes
from benchmarks.stage import Stage
from smsqueue.stack import Process, StackError

__all__ = ["Workers", "start_workers"]

#: Seconds that a worker may take to start, and between two looks into its log.
_PATIENCE, _INTERVAL = 60.0, 0.01


@dataclass(frozen=True)
class Workers:
    """Running workers, and what they had used when they were ready."""

    processes: list[Process]
    #: When the last one was ready, in seconds of ``time.monotonic()``.
    ready_at: float
    cpu_before: float

    def cpu(self) -> float:
        """CPU seconds of all of them since each was ready."""
        return sum(map(cpu_seconds, self.processes)) - self.cpu_before

    def resident_bytes(self) -> int:
        """Their memory."""
        return sum(map(resident_bytes, self.processes))

    def check(self) -> None:
        """Raise StackError if one has ended."""
        for process in self.processes:
            if not process.alive:
                raise StackError(f"{process.name} has ended\n{process.tail()}")

    def end(self, stage: Stage) -> None:
        """End them."""
        for process in self.processes:
            stage.end(process)


def start_workers(
    stage: Stage,
    app: str,
    environment: dict[str, str],
    *,
    count: int = 1,
    options: tuple[str, ...] = (),
) -> Workers:
    """Start workers at the same time, as the README starts them: ``celery -A workers worker``, with
    the lines of INFO in their logs, and wait until all are ready."""
    stage.started += count
    command = ["-m", "celery", "-A", app, "worker", "-l", "INFO", *options]
    starting = []
    for i in range(count):
        name = f"{app.rpartition('.')[2]}-{stage.started - i}"
        starting.append(
            stage.python(
                name,
                [*command, "-n", f"{name}@%h"],
                environment=environment,
                ready=lambda process: True,
            )
        )
    workers = Workers(list(starting), 0.0, 0.0)
    deadline, cpu_before = time.monotonic() + _PATIENCE, 0.0
    while starting:
        workers.check()
        for process in list(starting):
            if " ready." in process.tail(1000):
                starting.remove(process)
                cpu_before += cpu_seconds(process)
        if time.monotonic() > deadline:
            raise StackError(f"{starting[0].name} was not ready in {_PATIENCE:.0f} s")
        time.sleep(_INTERVAL)
    return Workers(workers.processes, time.monotonic(), cpu_before)
