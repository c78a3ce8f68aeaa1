"""What a measurement runs on: a folder, Redis servers and child processes of its own."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import redis

from benchmarks.run_samples import Recorder, Recording
from benchmarks.stub_client import Provider
from smsqueue.stack import Process, RedisServer, free_port

__all__ = ["Stage", "connected"]

T = TypeVar("T")


class Stage:
    """A context manager: what was started on it ends with it.

    Args:
        quick: Measure less.
        told: Called with what is being done.
        recordings: What is to be drawn is added to it; None: nothing is.
    """

    def __init__(
        self,
        *,
        quick: bool,
        told: Callable[[str], None],
        recordings: list[Recording] | None = None,
    ) -> None:
        self.quick = quick
        self.told = told
        self._recordings = recordings
        self.folder = Path(tempfile.mkdtemp(prefix="smsqueue-bench-"))
        #: Workers that were started so far: their logs have names of their own.
        self.started = 0
        self._running: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._running:
            self._running.pop().stop()
        if not isinstance(error, Exception):  # its logs are needed then
            shutil.rmtree(self.folder, ignore_errors=True)

    def size(self, full: T, quick: T) -> T:
        """How much to measure."""
        return quick if self.quick else full

    def redis(self, name: str = "redis", *options: str) -> RedisServer:
        """A Redis of its own, started: AOF, everysec, noeviction, and more options."""
        folder = self.folder / name
        folder.mkdir()
        server = RedisServer(folder, "--appendfsync", "everysec", *options)
        self._running.append(server.process)
        server.start()
        return server

    def python(
        self,
        name: str,
        arguments: list[str],
        *,
        environment: dict[str, str],
        ready: Callable[[Process], bool],
    ) -> Process:
        """Start a Python program; its log is ``<name>.log``."""
        return self.program(
            name, [sys.executable, *arguments], environment=environment, ready=ready
        )

    def program(
        self,
        name: str,
        command: list[str],
        *,
        environment: dict[str, str],
        ready: Callable[[Process], bool],
    ) -> Process:
        """Start any program; its log is ``<name>.log``."""
        process = Process(
            name,
            command,
            self.folder / f"{name}.log",
            # What runs here is called without a proxy; gunicorn keeps a socket in its home.
            environment={"NO_PROXY": "127.0.0.1", "HOME": str(self.folder)} | environment,
        )
        self._running.append(process)
        process.start(lambda: ready(process))
        return process

    def provider(self) -> Provider:
        """Start the stub provider; its client."""
        port = free_port()
        provider = Provider(f"http://127.0.0.1:{port}")
        self.python(
            "stub",
            ["-m", "benchmarks.stub", str(port)],
            environment={},
            ready=lambda process: provider.answers(),
        )
        return provider

    def record(self, title: str, memory: dict[str, Callable[[], float]]) -> Recorder | None:
        """Begin to record a run; None: nothing is drawn, or the line's first round was recorded.

        Args:
            memory: Functions that return bytes, by what has them.
        """
        if self._recordings is None or title in [run.title for run in self._recordings]:
            return None
        return Recorder(title, memory)

    def keep(self, recording: Recording) -> None:
        """Draw a recording."""
        assert self._recordings is not None
        self._recordings.append(recording)

    def end(self, process: Process) -> None:
        """End a process before the rest."""
        self._running.remove(process)
        process.stop()


def connected(server: RedisServer) -> redis.Redis:
    """A client of a server."""
    client: redis.Redis = redis.Redis.from_url(server.url, decode_responses=True)
    return client
