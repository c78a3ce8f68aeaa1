"""Redis, a worker, the receivers, the carrier simulator and Flower, started in this order."""

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

#: Variables that may stand in a file.
_SECRETS = [
    *(each.metadata["variable"] for each in fields(Settings) if each.metadata["secret"]),
    "SMSQUEUE_SIMULATOR_TOKEN",
]


class Stack:
    """All processes of a gateway. A context manager: what it started ends with it.

    Args:
        gateway: What SMSQUEUE_GATEWAY is to be.
        flower: Start Flower too.
        environment: More variables for the children, e.g. shorter times.
    """

    def __init__(
        self,
        gateway: str,
        *,
        flower: bool = False,
        environment: dict[str, str] | None = None,
        told: Callable[[str], None] = lambda what: None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="smsqueue-"))
        names = ("redis", "receivers", "simulator", "flower")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.redis = RedisServer(self.folder, port=self.ports["redis"])
        self.prefix = secrets.token_urlsafe(12)
        self.simulator_url = self._url("simulator")
        self.receivers_url = self._url("receivers")
        self.flower_url = self._url("flower") if flower else None
        self.told = told
        self.environment = {
            "SMSQUEUE_REDIS_URL": self.redis.url,
            "SMSQUEUE_GATEWAY": gateway,
            "SMSQUEUE_RECEIVER_PREFIX": self.prefix,
            "SMSQUEUE_PUBLIC_URL": self.receivers_url,
            "SMSQUEUE_SIMULATOR_URL": self.simulator_url,
            "SMSQUEUE_SIMULATOR_TOKEN": secrets.token_urlsafe(16),
            "SMSQUEUE_EAGER": "0",
            # What hooks and providers log shall be in the log when it is read.
            "PYTHONUNBUFFERED": "1",
        } | (environment or {})
        # What is set here counts, not the file of the same setting that the user's own has.
        self.environment |= {f"{name}_FILE": "" for name in _SECRETS if name in self.environment}
        self._running: list[Process] = []

    def _url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    @property
    def settings(self) -> Settings:
        """The settings of a gateway that sends through this stack."""
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
        self.told("Redis")
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
        home = {"HOME": str(self.folder)}  # gunicorn keeps a control socket in there
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
        """Start a Python program; it is ready when its address answers, or its log says so."""
        self.told(name)
        process = Process(
            name,
            [sys.executable, *arguments],
            self.folder / f"{name}.log",
            environment=self.environment | (environment or {}),
        )
        self._running.append(process)
        process.start((lambda: _answers(url)) if url else (lambda: " ready." in process.tail(1000)))

    def died(self) -> Process | None:
        """A process that has ended by itself, if one has."""
        return next((process for process in self._running if not process.alive), None)

    def close(self, *, keep_logs: bool = False) -> None:
        """End all, the last one first; their files go too unless ``keep_logs``."""
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
