"""The two that are compared: each sends, loses workers, and says what it knows in the end."""

from __future__ import annotations

import signal
import sys
import time
from typing import Protocol

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from benchmarks.naive.task import TASK, VISIBILITY, make_app
from smsqueue import OutgoingMessage
from smsqueue.broker.queue import DELIVER
from smsqueue.message.ids import new_id
from smsqueue.stack import Process
from tests.chaos.load import send
from tests.chaos.rig import ROOT, SLOTS, Rig, until

__all__ = ["Naive", "Ours", "Side"]


class Side(Protocol):
    """One way of sending."""

    name: str
    #: What a trigger or a task holds on its way from Redis to a worker.
    task: bytes

    def send(self, number: str, text: str) -> str:
        """Hand a message over, again until that is confirmed; its id."""

    def kill(self) -> None:
        """Kill -9 one of the two workers, and replace it."""

    def finish(self) -> set[str]:
        """Wait until nothing is under way; the ids that it says are not known to be sent."""

    def close(self) -> None:
        """End its workers."""


class Ours:
    """smsqueue."""

    name, task = "smsqueue", DELIVER.encode()

    def __init__(self, rig: Rig) -> None:
        self.rig, rig.wanted = rig, 2
        rig.heal()

    def send(self, number: str, text: str) -> str:
        return str(send(self.rig, OutgoingMessage(number, text)))

    def kill(self) -> None:
        self.rig.kill(self.rig.dice.choice(self.rig.workers))
        self.rig.heal()

    def finish(self) -> set[str]:
        self.rig.settle()
        told = {"unknown", "failed"}
        return {id for id, record in self.rig.records().items() if record.state in told}

    def close(self) -> None:
        for worker in self.rig.workers:
            worker.stop(signal.SIGKILL)


class Naive:
    """A plain Celery task; two workers of as many threads as ours have."""

    name, task = "plain task", TASK.encode()

    def __init__(self, rig: Rig) -> None:
        self.rig, self._started = rig, 0
        self._broker = f"redis://127.0.0.1:{rig.proxy.port}/0"
        self._app = make_app(self._broker)
        self._workers = [self._start(), self._start()]
        for worker in self._workers:
            self._ready(worker)

    def _start(self) -> Process:
        self._started += 1
        name = f"naive{self._started}"
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.naive.task", "worker"]
        command += ["-l", "INFO", "-n", f"{name}@c", "-P", "threads", "-c", str(SLOTS)]
        made = Process(
            name,
            [*command, "--without-gossip", "--without-mingle"],
            self.rig.folder / f"{name}.log",
            environment={
                "PYTHONPATH": str(ROOT),
                "NAIVE_BROKER": self._broker,
                "CHAOS_STUB": self.rig.stub_url,
                "NO_PROXY": "127.0.0.1",
            },
            folder=self.rig.folder,
        )
        made.start(lambda: True)
        return made

    def _ready(self, worker: Process) -> None:
        until(lambda: not worker.alive or " ready." in worker.tail(10_000), what=worker.name)
        assert worker.alive, worker.tail()

    def send(self, number: str, text: str) -> str:
        id = new_id()
        while True:
            try:
                self._app.tasks[TASK].delay(id, number, text)
                return id
            except (KombuError, RedisError, OSError):
                time.sleep(0.05)

    def kill(self) -> None:
        self.rig.dice.choice(self._workers).stop(signal.SIGKILL)
        self._heal()

    def _heal(self) -> None:
        """Replace what died, of whatever."""
        self._workers = [worker for worker in self._workers if worker.alive]
        while len(self._workers) < 2:
            self._workers.append(self._start())
            self._ready(self._workers[-1])

    def _quiet(self) -> bool:
        self._heal()
        client = self.rig.direct
        return not client.llen("celery") and not client.hlen("unacked")

    def finish(self) -> set[str]:
        until(self._quiet, 10 * VISIBILITY, "the end of all tasks")
        time.sleep(1)
        until(self._quiet, 10 * VISIBILITY, "the end of all tasks")
        return set()  # it keeps no record

    def close(self) -> None:
        for worker in self._workers:
            worker.stop(signal.SIGKILL)
        self._app.close()
