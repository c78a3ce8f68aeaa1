"""Real worker processes, and a real Flower."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smsqueue import Gateway, Settings
from tests.conftest import free_port

ROOT = Path(__file__).parents[2]


_COMMAND = [sys.executable, "-m", "celery", "-A", "workers", "worker", "-l", "INFO"]
_COMMAND += ["--without-gossip", "--without-mingle"]
_FLOWER = [sys.executable, "-m", "celery", "-A", "workers", "flower", "--address=127.0.0.1"]

#: Asks Flower's API.
Ask = Callable[[str], Any]


class Worker:
    """A ``celery -A workers worker`` process."""

    def __init__(self, log: Path, folder: Path, environment: dict[str, str], *options: str) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [*_COMMAND, *options],
                cwd=folder,
                env=os.environ | environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def text(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def wait_ready(self) -> None:
        deadline = time.monotonic() + 60
        while " ready." not in self.text():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.05)

    def stop(self, signum: int = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signum)
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise


@pytest.fixture
def start_worker(tmp_path: Path, settings: Settings) -> Iterator[Callable[..., Worker]]:
    """Writes the given gateway module and starts a worker on it."""
    made: list[Worker] = []

    def start(gateway: str = "", *options: str, wait: bool = True, **environment: str) -> Worker:
        if gateway:
            (tmp_path / "app_sms.py").write_text(gateway)
        given = {
            "PYTHONPATH": str(ROOT),
            "SMSQUEUE_REDIS_URL": settings.redis_url,
            "SMSQUEUE_NAMESPACE": settings.namespace,
            "SMSQUEUE_GATEWAY": "app_sms:gateway",
            "SMSQUEUE_UPKEEP_INTERVAL": "0.1",
            "SMSQUEUE_CONCURRENCY": "8",
            "SMSQUEUE_MAX_IN_FLIGHT": "8",
        }
        log = tmp_path / f"worker{len(made)}.log"
        made.append(Worker(log, tmp_path, given | environment, *options))
        if wait:
            made[-1].wait_ready()
        return made[-1]

    yield start
    for worker in made:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until a condition holds; fails after a bound that no healthy run comes near."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.03)


@pytest.fixture(name="until")
def _until() -> Callable[..., None]:
    return until


@pytest.fixture
def start_flower(tmp_path: Path) -> Iterator[Callable[[str, str], Ask]]:
    """Flower without the gateway's module or settings; asks its API."""
    started: list[subprocess.Popen[bytes]] = []

    def start(redis_url: str, namespace: str) -> Ask:
        port = free_port()
        with (tmp_path / "flower.log").open("wb") as log:
            process = subprocess.Popen(
                [*_FLOWER, f"--port={port}"],
                cwd=tmp_path,
                env=os.environ
                | {
                    "PYTHONPATH": str(ROOT),
                    "SMSQUEUE_REDIS_URL": redis_url,
                    "SMSQUEUE_NAMESPACE": namespace,
                    "FLOWER_UNAUTHENTICATED_API": "1",
                },
                stdout=log,
                stderr=log,
            )
        started.append(process)

        def ask(path: str) -> Any:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                    return json.load(answer)
            except OSError:
                assert process.poll() is None, (tmp_path / "flower.log").read_text()
                return None

        return ask

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def flower(gateway: Gateway, start_flower: Callable[[str, str], Ask]) -> Ask:
    return start_flower(gateway.settings.redis_url, gateway.settings.namespace)
