"""Cancelling a campaign: how long it takes, and how long a one-time password takes meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from statistics import median

from benchmarks.celery_workers import start_workers
from benchmarks.measured_figures import Figure, absolute, middle_of
from benchmarks.sending import messages
from benchmarks.stage import Stage, connected
from benchmarks.stub_client import Provider
from smsqueue import Gateway, OutgoingMessage
from smsqueue.ledger import BulkStep
from smsqueue.settings import Settings
from smsqueue.stack import StackError

__all__ = ["measure_cancelling"]

#: Seconds between two passwords, and how long the last ones may take.
_APART, _PATIENCE = 0.05, 30.0


def measure_cancelling(stage: Stage) -> Iterator[Figure]:
    """A campaign that is scheduled for later, one worker with its default settings."""
    server, provider = stage.redis(), stage.provider()
    campaign = stage.size(100_000, 10_000)
    with Gateway(Settings(redis_url=server.url)) as gateway:
        later = datetime.now(UTC) + timedelta(hours=1)
        for first in range(0, campaign, 10_000):
            stage.told(f"{first} of {campaign} messages wait")
            gateway.send_many(
                message.options(send_at=later, tag="campaign")
                for message in messages(10_000, first)
            )
        environment = {
            "SMSQUEUE_REDIS_URL": server.url,
            "SMSQUEUE_GATEWAY": "benchmarks.gateways:sending",
            "BENCH_STUB": provider.url,
        }
        workers = start_workers(stage, "workers", environment)
        passwords = _Passwords(gateway, provider)
        stage.told("passwords alone")
        passwords.send("warm", 0.5)
        alone = passwords.send("alone", stage.size(3.0, 1.0))
        before = connected(server).info("memory")["used_memory"]
        steps: list[float] = []
        ended, during = threading.Event(), list[float]()
        sender = threading.Thread(target=lambda: during.extend(passwords.until(ended)))
        stage.told(f"cancelling {campaign}")
        sender.start()
        began = last = time.monotonic()

        def step(_: BulkStep) -> None:
            nonlocal last
            now = time.monotonic()
            steps.append(1000 * (now - last))
            last = now

        try:
            result = gateway.cancel_all(tag="campaign", on_step=step)
        finally:
            took = time.monotonic() - began
            ended.set()
            sender.join()
        used = connected(server).info("memory")["used_memory"]
        workers.end(stage)
    if result.number != campaign:
        raise StackError(f"{result.number} of {campaign} messages were cancelled")
    yield absolute(
        "cancel",
        f"cancel {campaign:,}",
        "cancel_all() of a campaign that waits, while one-time passwords are sent",
        "s",
        [took],
        at_most=10,
        notes={
            "steps": len(steps),
            "a step, p50, ms": round(median(steps), 1),
            "a step, max, ms": round(max(steps), 1),
            "password meanwhile: p50, ms": middle_of([median(during)]),
            "password meanwhile: max, ms": middle_of([max(during)]),
            "password alone: p50, ms": middle_of([median(alone)]),
            "password alone: max, ms": middle_of([max(alone)]),
            "passwords meanwhile": len(during),
            "bytes of Redis per cancelled message": round((used - before) / campaign),
        },
    )


class _Passwords:
    """Sends single messages, and measures the time until the provider has them."""

    def __init__(self, gateway: Gateway, provider: Provider) -> None:
        # Of another thread than the one that cancels.
        self._gateway = Gateway(gateway.settings)
        self._provider = provider
        self._number = 0

    def send(self, kind: str, seconds: float) -> list[float]:
        """Send for some seconds; milliseconds that each took."""
        ended = threading.Event()
        timer = threading.Timer(seconds, ended.set)
        timer.start()
        return self.until(ended, kind)

    def until(self, ended: threading.Event, kind: str = "during") -> list[float]:
        """Send until an event is set; milliseconds that each took."""
        called: dict[str, float] = {}
        while not called or not ended.wait(_APART):
            self._number += 1
            text = f"single {kind} {self._number}"
            called[text] = time.monotonic()
            self._gateway.send(OutgoingMessage(f"+1777{self._number:07}", text))
        deadline = time.monotonic() + _PATIENCE
        while not (taken := self._provider.singles()).keys() >= called.keys():
            if time.monotonic() > deadline:
                raise StackError(f"{len(called.keys() - taken.keys())} passwords never came")
            time.sleep(0.1)
        return [1000 * (taken[text] - at) for text, at in called.items()]
