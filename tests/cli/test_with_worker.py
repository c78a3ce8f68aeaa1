"""smsqueue status and its like, beside a real worker."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE = """
from smsqueue import Gateway
from smsqueue.providers import LogProvider

gateway = Gateway()
gateway.add_provider("main", LogProvider)
"""


@pytest.fixture
def start(tmp_path: Path, environment) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts a worker."""
    made: list[subprocess.Popen[bytes]] = []
    (tmp_path / "app_sms.py").write_text(MODULE)
    given = {name: value for name, value in environment.items() if value is not None}
    given |= {"PYTHONPATH": str(ROOT), "SMSQUEUE_GATEWAY": "app_sms:gateway"}
    command = [sys.executable, "-m", "celery", "-A", "workers", "worker", "--without-mingle"]

    def call() -> subprocess.Popen[bytes]:
        with (tmp_path / "worker.log").open("wb") as log:
            made.append(
                subprocess.Popen(
                    command, cwd=tmp_path, env=os.environ | given, stdout=log, stderr=log
                )
            )
        return made[-1]

    yield call
    for process in made:
        process.kill()
        process.wait()


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def test_a_worker_comes_works_and_goes(run, run_json, make, gateway, start, settings) -> None:
    unknown = [make("unknown") for _ in range(30)]
    worker = start()
    _until(gateway.ledger.workers)
    [told] = run_json("status", code=1)["workers"]
    assert (told["alive"], told["slots"]) == (True, settings.concurrency)
    assert told["queues"] == [settings.hook_queue, settings.send_queue]
    sent = run_json("send", "15551234567", "x", "--wait")
    assert sent["state"] == "sent"
    run("requeue", "--state", "unknown")
    _until(lambda: {gateway.lookup(id).state for id in unknown} == {"sent"})
    [provider] = run_json("status")["providers"]
    assert provider["sent"] == 31
    worker.terminate()
    assert worker.wait(60) == 0
    assert run("status", code=1).stdout.startswith("WARNING: no worker is consuming")
