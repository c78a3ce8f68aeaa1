"""smsqueue status, send and requeue with a real worker."""

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
    processes: list[subprocess.Popen[bytes]] = []
    (tmp_path / "app_sms.py").write_text(MODULE)
    variables = {name: value for name, value in environment.items() if value is not None}
    variables |= {"PYTHONPATH": str(ROOT), "SMSQUEUE_GATEWAY": "app_sms:gateway"}
    command = [sys.executable, "-m", "celery", "-A", "workers", "worker", "--without-mingle"]

    def call() -> subprocess.Popen[bytes]:
        with (tmp_path / "worker.log").open("wb") as log:
            processes.append(
                subprocess.Popen(
                    command, cwd=tmp_path, env=os.environ | variables, stdout=log, stderr=log
                )
            )
        return processes[-1]

    yield call
    for process in processes:
        process.kill()
        process.wait()


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "timeout"
        time.sleep(0.1)


def test_commands_with_a_real_worker(run, run_json, make, gateway, start, settings) -> None:
    unknown = [make("unknown") for _ in range(30)]
    worker = start()
    _until(gateway.ledger.workers)
    [status] = run_json("status", code=1)["workers"]
    assert (status["alive"], status["slots"]) == (True, settings.concurrency)
    assert status["queues"] == [settings.hook_queue, settings.send_queue]
    sent = run_json("send", "15551234567", "x", "--wait")
    assert sent["state"] == "sent"
    run("requeue", "--state", "unknown")
    _until(lambda: {gateway.lookup(id).state for id in unknown} == {"sent"})
    [provider] = run_json("status")["providers"]
    assert provider["sent"] == 31
    worker.terminate()
    assert worker.wait(60) == 0
    assert run("status", code=1).stdout.startswith("WARNING: no worker is consuming")
