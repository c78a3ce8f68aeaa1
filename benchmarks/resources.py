"""CPU time and memory of processes and of Redis."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import redis

from smsqueue.stack import Process, StackError

__all__ = ["RedisUse", "cpu_seconds", "redis_memory", "redis_use", "resident_bytes"]

#: The commands that are no part of a script of ours, and tell most of who calls Redis how often.
_COMMANDS = ("evalsha", "publish", "brpop")


def cpu_seconds(process: Process) -> float:
    """User and system time of a process and its threads, to 10 ms.

    Raises:
        StackError: the system has no ``/proc``.
    """
    # The name stands in brackets and may hold spaces.
    fields = _proc(process, "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(process: Process) -> int:
    """Memory of a process that is in RAM (RSS)."""
    return int(_proc(process, "statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _proc(process: Process, name: str) -> str:
    try:
        return Path(f"/proc/{process.pid}/{name}").read_text("ascii", "replace")
    except OSError as error:
        raise StackError(
            f"/proc has nothing of {process.name} ({error.strerror}): it has ended, or this system "
            "is not Linux, which measuring CPU time and memory needs"
        ) from None


class RedisUse(NamedTuple):
    """What Redis has done since it was started."""

    #: CPU seconds, to a microsecond.
    cpu: float
    #: Answers written to sockets: each is the end of a round trip. A pipeline has one.
    round_trips: int
    #: Calls by command; scripts call commands too, but none of these.
    commands: dict[str, int]

    def since(self, before: RedisUse) -> RedisUse:
        """The difference to an earlier reading."""
        return RedisUse(
            self.cpu - before.cpu,
            self.round_trips - before.round_trips,
            {name: calls - before.commands[name] for name, calls in self.commands.items()},
        )


def redis_use(client: redis.Redis) -> RedisUse:
    """Read it: one round trip, the next reading counts it."""
    info: Any = client.info("everything")
    return RedisUse(
        cpu=sum(value for name, value in info.items() if name in _CPU),
        round_trips=info["total_writes_processed"],
        commands={name: info.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in _COMMANDS},
    )


def redis_memory(client: redis.Redis) -> int:
    """Bytes that Redis uses for its data (``used_memory``): one round trip."""
    info: Any = client.info("memory")
    return int(info["used_memory"])


_CPU = tuple(f"used_cpu_{kind}{who}" for kind in ("sys", "user") for who in ("", "_children"))
