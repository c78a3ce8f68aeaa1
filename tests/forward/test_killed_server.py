"""A sends through B, and B's processes are killed: no message is lost or sent twice.

Both have real worker processes, receivers and a Redis; the carrier behind B records all calls.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from smsqueue import Gateway, OutgoingMessage, Settings
from smsqueue.simulator import Simulator
from tests.conftest import RedisServer, free_port
from tests.forward.side import SECRET
from tests.receivers.server import PYTHON
from tests.workers.conftest import ROOT, Worker, until

FAST = "retry=RetryPolicy(base=0.2, cap=0.5, pause=0.1, pause_max=0.5)"
B = f"""
from smsqueue import Gateway, RetryPolicy
from smsqueue.providers.simulator import SimulatorProvider
from smsqueue.providers.forward import ForwardServerProvider
class Account(SimulatorProvider):
    deadline = 4.0
gateway = Gateway({FAST})
gateway.add_provider("main", Account, url="http://127.0.0.1:{{sim}}", read_timeout=3.0)
gateway.add_provider("forward", ForwardServerProvider, secret={SECRET!r},
    clients=["http://127.0.0.1:{{a}}/hidden/remote"])
"""
A = f"""
from smsqueue import Gateway, RetryPolicy
from smsqueue.providers.forward import ForwardClientProvider
gateway = Gateway({FAST})
gateway.add_provider("remote", ForwardClientProvider, secret={SECRET!r},
    server_url="http://127.0.0.1:{{b}}/hidden/forward")
def save(message):
    with open("received.txt", "a") as file:
        print(message.src, file=file)
gateway.onReceive += save
"""
MODULES = {"a": A, "b": B}
#: Threads of each worker.
THREADS = 8


class Application:
    """An application's worker and receivers."""

    def __init__(self, folder: Path, name: str, redis_url: str, ports: dict[str, int]) -> None:
        (folder / f"{name}_sms.py").write_text(MODULES[name].format(**ports))
        self._folder, self._name, self._port = folder, name, ports[name]
        self._environment = {
            **{"PYTHONPATH": str(ROOT), "HOME": str(folder), "SMSQUEUE_REDIS_URL": redis_url},
            **{"SMSQUEUE_GATEWAY": f"{name}_sms:gateway", "SMSQUEUE_RECEIVER_PREFIX": "hidden"},
            **{"SMSQUEUE_UPKEEP_INTERVAL": "0.1", "SMSQUEUE_CONCURRENCY": str(THREADS)},
            # Short, because a killed process's messages wait for them.
            **{"SMSQUEUE_GRACE": "2", "SMSQUEUE_HOOK_LEASE": "10", "SMSQUEUE_PARK_WAIT": "5"},
        }
        self._number = 0
        self.start()

    def start(self) -> None:
        self._number += 1
        log = self._folder / f"{self._name}{self._number}"
        self.worker = Worker(log.with_suffix(".worker.log"), self._folder, self._environment)
        where = f"127.0.0.1:{self._port}"
        command = ("gunicorn", "--config", "python:receivers.server", "--bind", where)
        with log.with_suffix(".web.log").open("wb") as out:
            self._receivers = subprocess.Popen(
                [*PYTHON, *command],
                cwd=self._folder,
                env=os.environ | self._environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def kill(self) -> None:
        self.worker.stop(signal.SIGKILL)
        os.killpg(self._receivers.pid, signal.SIGKILL)
        self._receivers.wait()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Application]]:
    applications: list[Application] = []

    def run(*arguments: Any) -> Application:
        applications.append(Application(tmp_path, *arguments))
        return applications[-1]

    yield run
    for application in applications:
        application.kill()


def test_no_message_is_lost_or_sent_twice_when_the_server_is_killed(
    redis_server: Callable[..., RedisServer], run: Callable[..., Application], tmp_path: Path
) -> None:
    ports = {"a": free_port(), "b": free_port(), "sim": free_port()}
    urls = {"a": redis_server().url, "b": redis_server().url}
    webhook = f"http://127.0.0.1:{ports['b']}/hidden/main"
    with Simulator({"main": webhook}, port=ports["sim"]) as carrier:
        middle = run("b", urls["b"], ports)
        run("a", urls["a"], ports).worker.wait_ready()
        with (
            Gateway(Settings(redis_url=urls["a"])) as a,
            Gateway(Settings(redis_url=urls["b"])) as b,
        ):
            ids: list[str] = []
            for kind in ("01", "11", "01"):  # delivered; delivered, and its owner replies
                for n in range(12):
                    number = f"1555000{kind}{len(ids):02}"
                    message = OutgoingMessage(number, f"{n}").options(status_report=True)
                    ids.append(a.send(message).id or "")
                accepted = len(requests.get(f"{carrier.url}/accepted", timeout=60).json())
                # Some messages are sent, some are being sent, some are not begun.
                until(
                    lambda before=accepted: (
                        len(requests.get(f"{carrier.url}/accepted", timeout=60).json()) > before
                    )
                )
                middle.kill()
                middle.start()
            until(lambda: all(is_over(a, b, id) for id in ids), 240)
            calls = requests.get(f"{carrier.url}/accepted", timeout=60).json()
            sent = [str(call["reference"]).partition(".")[0] for call in calls]
            numbers = Counter(b.lookup(id).message.dst for id in sent)
            assert set(numbers.values()) == {1}
            delivered = [a.lookup(id) for id in ids if a.lookup(id).state == "delivered"]
            assert {record.message.dst for record in delivered} == set(numbers)
            # A process killed during a call leaves an unknown message, which is not sent again.
            assert len(ids) - len(delivered) <= 3 * THREADS
            replying = {dst for dst in numbers if dst.startswith("155500011")}
            received = tmp_path / "received.txt"
            until(lambda: received.exists() and len(received.read_text().split()) >= len(replying))
            assert sorted(received.read_text().split()) == sorted(replying)


def is_over(a: Gateway, b: Gateway, id: str) -> bool:
    """Whether a message is delivered, or unknown at B."""
    record = a.lookup(id)
    if record.state == "delivered" or not record.msgid:
        return bool(record.state == "delivered")
    return bool(b.lookup(record.msgid).state == "unknown")
