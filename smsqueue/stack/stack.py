"""Starts Redis, the carrier simulator, the receivers, a worker and Flower, in this order."""

from __future__ import annotations

import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Self

import requests

from smsqueue.settings import Settings
from smsqueue.stack.process import Process, free_ports
from smsqueue.stack.redis_server import RedisServer

__all__ = ["Stack"]

#: Variables that a file may hold: NAME_FILE.
_SECRETS = [
    *(item.metadata["variable"] for item in fields(Settings) if item.metadata["secret"]),
    "SMSQUEUE_SIMULATOR_TOKEN",
]


class Stack:
    """All processes of a gateway. A context manager: starts them, and stops them at its end.

    Args:
        gateway: The value of SMSQUEUE_GATEWAY.
        flower: Start Flower too.
        environment: Further variables of the children, e.g. shorter times.
        on_start: Called with the name of each process before it is started.
    """

    def __init__(
        self,
        gateway: str,
        *,
        flower: bool = False,
        environment: dict[str, str] | None = None,
        on_start: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="smsqueue-"))
        names = ("redis", "receivers", "simulator", "flower")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.redis = RedisServer(self.folder, port=self.ports["redis"])
        self.prefix = secrets.token_urlsafe(12)
        self.simulator_url = self._url("simulator")
        self.receivers_url = self._url("receivers")
        self.flower_url = self._url("flower") if flower else None
        self._on_start = on_start
        self.environment = {
            "SMSQUEUE_REDIS_URL": self.redis.url,
            "SMSQUEUE_GATEWAY": gateway,
            "SMSQUEUE_RECEIVER_PREFIX": self.prefix,
            "SMSQUEUE_PUBLIC_URL": self.receivers_url,
            "SMSQUEUE_SIMULATOR_URL": self.simulator_url,
            "SMSQUEUE_SIMULATOR_TOKEN": secrets.token_urlsafe(16),
            "SMSQUEUE_EAGER": "0",
            # Otherwise the last lines are missing from the log while the process runs.
            "PYTHONUNBUFFERED": "1",
        } | (environment or {})
        # Without this, a file named in the user's environment would replace these values.
        self.environment |= {f"{name}_FILE": "" for name in _SECRETS if name in self.environment}
        self._running: list[Process] = []

    def _url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    @property
    def settings(self) -> Settings:
        """Settings of a gateway that sends through this stack."""
        return Settings.from_mapping(self.environment)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException as error:
            self.close(keep_logs=isinstance(error, Exception))
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(keep_logs=isinstance(error, Exception))

    def _start(self) -> None:
        self._on_start("Redis")
        self._running.append(self.redis.process)
        self.redis.start()
        webhooks = [
            f"--webhook={account}={self.receivers_url}/{self.prefix}/{account}"
            for account in ("main", "backup")
        ]
        simulator = ["-m", "smsqueue.simulator", "--port", str(self.ports["simulator"])]
        self._python("simulator", [*simulator, *webhooks], f"{self.simulator_url}/healthz")
        bind = f"127.0.0.1:{self.ports['receivers']}"
        gunicorn = ["-m", "gunicorn", "--config", "python:receivers.server", "--bind", bind]
        home = {"HOME": str(self.folder)}  # gunicorn creates a control socket there
        self._python(
            "receivers",
            gunicorn,
            f"{self.receivers_url}/healthz",
            environment=home,
        )
        self._python("worker", ["-m", "celery", "-A", "workers", "worker", "-l", "INFO"])
        if self.flower_url:
            flower = ["-m", "celery", "-A", "workers", "flower", "--address=127.0.0.1"]
            port = f"--port={self.ports['flower']}"
            self._python("flower", [*flower, port, "--read_only"], self.flower_url)

    def _python(
        self,
        name: str,
        arguments: list[str],
        url: str | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        """Start a Python program and wait until ``url`` answers, or its log says " ready."."""
        self._on_start(name)
        process = Process(
            name,
            [sys.executable, *arguments],
            self.folder / f"{name}.log",
            environment=self.environment | (environment or {}),
        )
        self._running.append(process)
        process.start((lambda: _answers(url)) if url else (lambda: " ready." in process.tail(1000)))

    def died(self) -> Process | None:
        """Return a process that has ended by itself, if there is one."""
        return next((process for process in self._running if not process.alive), None)

    def close(self, *, keep_logs: bool = False) -> None:
        """Stop all, the last one first, and delete their files unless ``keep_logs`` is true."""
        while self._running:
            self._running.pop().stop()
        if not keep_logs:
            shutil.rmtree(self.folder, ignore_errors=True)


def _answers(url: str) -> bool:
    try:
        requests.get(url, timeout=1, proxies={"http": ""})
    except requests.RequestException:
        return False
    return True
