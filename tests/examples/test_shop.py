"""The example shop: its own tests, and the shop itself with all its processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from smsqueue.stack import Process, RedisServer
from tests.conftest import free_port

ROOT = Path(__file__).parents[2]
SHOP = ROOT / "examples" / "shop"
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith(("SMSQUEUE_", "SHOP_", "PYTEST_"))}


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until a condition holds; fails after a bound that no healthy run comes near."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.03)


def test_its_own_tests_pass_without_redis_and_settings(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path}"],
        cwd=SHOP,
        env=CLEAN | {"PYTHONPATH": str(ROOT), "SMSQUEUE_REDIS_URL": "redis://127.0.0.1:1/0"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout


class Running:
    """The shop with Redis, simulator, worker and receivers, as its README starts them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.url, self.simulator, receivers = (f"127.0.0.1:{free_port()}" for _ in range(3))
        self._folder, self._stack = folder, stack
        redis = RedisServer(folder)
        redis.start()
        stack.callback(redis.stop)
        self._environment = {
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),  # gunicorn keeps a control socket in there
            "SMSQUEUE_REDIS_URL": redis.url,
            "SMSQUEUE_GATEWAY": "shop:gateway",
            "SMSQUEUE_RECEIVER_PREFIX": "hidden",
            "SMSQUEUE_EAGER": "0",
            "SHOP_SIMULATOR_URL": f"http://{self.simulator}",
            "SHOP_DATABASE": str(folder / "shop.sqlite3"),
        }
        webhooks = [
            f"--webhook={name}=http://{receivers}/hidden/{name}" for name in ("primary", "backup")
        ]
        port = self.simulator.partition(":")[2]
        self._start("simulator", "smsqueue.simulator", f"--port={port}", *webhooks)
        config = ("--config", "python:receivers.server")
        self._start("receivers", "gunicorn", *config, "-b", receivers)
        self._start("shop", "gunicorn", "-b", self.url, "shop:create_app()")
        self._start("worker", "celery", "-A", "workers", "worker", "-l", "INFO")

    def _start(self, name: str, *module: str) -> None:
        command = [sys.executable, "-m", *module]
        log = self._folder / f"{name}.log"
        process = Process(name, command, log, environment=self._environment, folder=SHOP)
        said = {"simulator": "carrier simulator on", "worker": " ready."}
        process.start(lambda: said.get(name, "Listening at") in process.tail(1000))
        self._stack.callback(process.stop)


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    for name in os.environ.keys() - CLEAN.keys():
        monkeypatch.delenv(name)
    with ExitStack() as stack:
        yield Running(tmp_path, stack)


def test_a_code_goes_through_all_its_processes(running: Running) -> None:
    customer = requests.Session()
    customer.trust_env = False

    def page(path: str) -> requests.Response:
        return customer.get(f"http://{running.url}{path}", timeout=30)

    [form] = re.findall(r'name="form" value="([^"]+)"', page("/").text)
    for _ in range(2):  # a double click
        answer = customer.post(
            f"http://{running.url}/code",
            data={"number": "+1 555 000 0101", "form": form},
            timeout=30,
        )
        assert answer.status_code == 200
        assert "on its way" in answer.text or "was delivered" in answer.text
    until(lambda: page("/code/state").json() == {"state": "delivered"})
    accepted = customer.get(f"http://{running.simulator}/accepted", timeout=30).json()
    assert [entry["account"] for entry in accepted] == ["primary"]
