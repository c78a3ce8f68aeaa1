"""What the Redis server is: its version, persistence, memory and role, and what breaks a promise.

INFO tells all of it but two settings, which only CONFIG tells. Managed services and the accounts of
``smsqueue acl`` forbid CONFIG, some services restrict INFO. What is not told is None, and is shown
as unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

import redis

from smsqueue.ledger.client import translated
from smsqueue.settings import Settings

__all__ = ["Risk", "Server", "format_size", "read_server"]

#: Oldest version of Redis that runs the ledger's scripts.
_OLDEST = (6, 2)
#: Names of servers that speak Redis's protocol, by the field of INFO that has their own version.
_NAMES = {
    "valkey_version": "Valkey",
    "dragonfly_version": "Dragonfly",
    "garnet_version": "Garnet",
    "keydb_version": "KeyDB",
    "memurai_version": "Memurai",
    "rlec_version": "Redis Enterprise",
}
#: Settings that INFO does not tell.
_CONFIG = ("appendfsync", "save")
#: Fields of a server that say how it was asked.
_NOT_IN_JSON = ("max_known", "was_asked")
_SIZE_UNITS = ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB"))


def format_size(number: int) -> str:
    """A number of bytes."""
    for length, unit in _SIZE_UNITS:
        if number >= length:
            return f"{number / length:.1f} {unit}"
    return f"{number} B"


class Risk(NamedTuple):
    """Something about the server that breaks a promise or may do so."""

    #: ``problem``: accepted messages may be lost, or cannot be written. ``warning``: it may come to
    #: that. ``note``: less is promised, or less is known.
    level: Literal["problem", "warning", "note"]
    #: What is wrong: "Redis at redis://db:6379/0 has no AOF".
    text: str
    #: The consequence and the remedy.
    remedy: str

    def __str__(self) -> str:
        return f"{self.text}: {self.remedy}"


@dataclass(frozen=True, kw_only=True)
class Server:
    """The Redis server that holds the ledger. None: the server does not tell."""

    #: What it calls itself.
    name: str

    #: Its own version; "?": unknown.
    version: str
    #: Bytes in use, and maxmemory; 0: no limit, or unknown.
    used: int
    max: int
    #: Whether it writes an append-only file, and its maxmemory-policy.
    aof: bool | None
    policy: str | None
    #: The version of Redis with which it says that it is compatible.
    redis_version: str | None
    #: ``always``, ``everysec`` or ``no``: when the append-only file is written to the disk.
    fsync: str | None
    #: Whether it takes snapshots at times of its own.
    rdb: bool | None
    #: ``primary`` or ``replica``.
    role: str | None
    replicas: int | None
    #: Whether it tells its maxmemory.
    max_known: bool
    #: Bytes of memory of its machine.
    machine: int | None
    #: Whether its last write of the append-only file, rewrite of it, and snapshot succeeded.
    aof_written: bool | None
    aof_rewritten: bool | None
    rdb_written: bool | None
    #: Whether it was asked for what only CONFIG tells: ``fsync`` and ``rdb``.
    was_asked: bool = False
    #: Replicas that have to confirm what counts (SMSQUEUE_WAIT_REPLICAS).
    needed_replicas: int = 0

    @property
    def free(self) -> int | None:
        """Bytes that are left below maxmemory; None: there is no limit, or it is unknown."""
        return max(0, self.max - self.used) if self.max else None

    def __str__(self) -> str:
        """One line: name and version, role, persistence, memory."""
        parts = [f"{self.name} {self.version}" if self.version != "?" else f"{self.name}, version"]
        if self.version == "?":
            parts[0] += " unknown"
        elif self.name != "Redis" and self.redis_version:
            parts[0] += f" (as Redis {self.redis_version})"
        parts.append(self._role())
        parts.append(self._persistence())
        parts.append(f"eviction policy {self.policy or 'unknown'}")
        if self.max:
            of = f"{format_size(self.used)} of {format_size(self.max)} in use"
            parts.append(f"{of}, {format_size(self.free or 0)} free")
        elif self.max_known:
            parts.append(f"{format_size(self.used)} in use, no maxmemory")
        else:
            parts.append("memory unknown")
        return ", ".join(parts)

    def _role(self) -> str:
        if self.role is None:
            return "role unknown"
        if self.role == "primary" and self.replicas is not None:
            number = self.replicas
            return f"primary with {number or 'no'} replica{'' if number == 1 else 's'}"
        return self.role

    def _persistence(self) -> str:
        aof = {True: "AOF", False: "no AOF", None: "AOF unknown"}[self.aof]
        if not self.was_asked:
            return aof
        snapshots = {True: "RDB snapshots", False: "no RDB snapshots", None: "RDB unknown"}
        fsync = f" with appendfsync {self.fsync or 'unknown'}" if self.aof else ""
        return f"{aof}{fsync}, {snapshots[self.rdb]}"

    def document(self) -> dict[str, Any]:
        """For JSON."""
        facts = asdict(self) | {"free": self.free}
        return {name: value for name, value in facts.items() if name not in _NOT_IN_JSON}

    def risks(self, settings: Settings) -> Iterator[Risk]:
        """What breaks a promise.

        Args:
            settings: Those of the processes that use the server.
        """
        where = f"{self.name} at {settings.safe_redis_url}"
        for risks in (
            self._losses(),
            self._failures(),
            self._missing_replicas(settings.wait_replicas),
            self._limits(),
            self._unknown(),
        ):
            for risk in risks:
                yield risk._replace(text=f"{where} {risk.text}")

    def _losses(self) -> Iterator[Risk]:
        version = re.match(r"(\d+)\.(\d+)", self.redis_version or "")
        if version and (int(version[1]), int(version[2])) < _OLDEST:
            yield Risk("problem", f"is version {self.redis_version}", "6.2 or later is needed")
        if self.aof is False:
            remedy = (
                "accepted messages are lost when it stops. Set appendonly yes in its configuration"
            )
            yield Risk("problem", "has no AOF", remedy)
        if self.policy not in (None, "noeviction"):
            text = f"evicts keys when it is full (maxmemory-policy {self.policy})"
            yield Risk("problem", text, "accepted messages are lost then. Set noeviction")

    def _failures(self) -> Iterator[Risk]:
        if self.replicas is not None and self.replicas < self.needed_replicas:
            text = f"is a {self._role()}, but SMSQUEUE_WAIT_REPLICAS is {self.needed_replicas}"
            yield Risk("problem", text, "nothing is sent until they are there. Start them")
        if self.aof_written is False:
            remedy = "it refuses messages until it can. Free its disk, and look into its log"
            yield Risk("problem", "cannot write its AOF", remedy)
        if self.aof_rewritten is False:
            remedy = "the file grows until the disk is full. Free disk and memory, see its log"
            yield Risk("warning", "could not rewrite its AOF", remedy)
        if self.rdb_written is False:
            remedy = (
                "it may refuse all writes (stop-writes-on-bgsave-error). Free its disk, or take no "
                'snapshots (save "")'
            )
            yield Risk("warning", "could not write its last snapshot", remedy)

    def _missing_replicas(self, needed: int) -> Iterator[Risk]:
        if self.replicas is not None and self.replicas < needed:
            text = f"has {self.replicas} of {needed} replicas"
            remedy = "nothing is accepted or sent. Start them, or lower SMSQUEUE_WAIT_REPLICAS"
            yield Risk("problem", text, remedy)

    def _limits(self) -> Iterator[Risk]:
        if self.max_known and not self.max:
            remedy = "set it below the machine's memory"
            if self.machine:
                remedy += f", which is {format_size(self.machine)}"
            remedy += ": otherwise the system ends Redis when memory is full"
            yield Risk("warning", "has no maxmemory", remedy)
        if self.machine and self.max > self.machine:
            text = f"has a maxmemory of {format_size(self.max)}, more than its machine has"
            yield Risk("warning", text, f"set it below {format_size(self.machine)}")
        if self.aof and self.fsync == "no":
            text = "leaves writing its AOF to the system (appendfsync no)"
            remedy = "a power cut loses about the last 30 s. Set appendfsync always, or everysec"
            yield Risk("warning", text, remedy)
        if self.aof and self.fsync == "everysec":
            text = "writes its AOF to the disk every second (appendfsync everysec)"
            yield Risk("note", text, "a power cut loses about the last second; always loses none")

    def _unknown(self) -> Iterator[Risk]:
        facts = {
            "version": self.version != "?",
            "AOF": self.aof is not None,
            "eviction policy": self.policy is not None,
            "maxmemory": self.max_known,
            "role": self.role is not None,
        }
        hidden = [name for name, is_known in facts.items() if not is_known]
        if hidden:
            text = f"does not tell its {', '.join(hidden)}"
            yield Risk("note", text, "allow this account INFO, or see the service's own settings")
        if self.aof and self.was_asked and self.fsync is None:
            text = "does not tell its appendfsync, as CONFIG is not allowed"
            yield Risk("note", text, "see its configuration, or the service's own settings")


def read_server(
    client: redis.Redis, settings: Settings, *, configuration: bool
) -> tuple[Server, bool]:
    """The server, and whether it answers CONFIG; one round trip.

    Args:
        configuration: Ask for what INFO does not tell.

    Raises:
        QueueUnavailable: It does not answer.
    """
    with translated(settings):
        pipe = client.pipeline(transaction=False)
        pipe.info()
        for name in _CONFIG if configuration else ():
            pipe.config_get(name)
        info, *answers = pipe.execute(raise_on_error=False)
        for answer in (info, *answers):
            # A refused command only hides facts.
            if isinstance(answer, Exception) and not _is_refusal(answer):
                raise answer
    told = [answer for answer in answers if isinstance(answer, Mapping)]
    config = {name: value for answer in told for name, value in answer.items()}
    facts = info if isinstance(info, Mapping) else {}
    server = replace(_server(facts, config), needed_replicas=settings.wait_replicas)
    return server, bool(config)


def _is_refusal(error: Exception) -> bool:
    """Did the server refuse this one command?"""
    return isinstance(error, redis.exceptions.ResponseError)


def _server(info: Mapping[str, Any], config: Mapping[str, Any]) -> Server:
    own = next((field for field in _NAMES if info.get(field)), "")
    redis_version = info.get("redis_version")
    return Server(
        name=_NAMES.get(own) or _text(info, "server_name") or "Redis",
        version=str(info.get(own) or redis_version or "?"),
        redis_version=None if redis_version is None else str(redis_version),
        used=int(info.get("used_memory", 0)),
        max=int(info.get("maxmemory", 0)),
        max_known="maxmemory" in info,
        machine=_number(info, "total_system_memory"),
        policy=_text(info, "maxmemory_policy"),
        aof=bool(info["aof_enabled"]) if "aof_enabled" in info else None,
        fsync=_text(config, "appendfsync"),
        rdb=bool(str(config["save"]).strip()) if "save" in config else None,
        aof_written=_succeeded(info, "aof_last_write_status"),
        aof_rewritten=_succeeded(info, "aof_last_bgrewrite_status"),
        rdb_written=_succeeded(info, "rdb_last_bgsave_status"),
        role={"master": "primary", "slave": "replica"}.get(str(info.get("role"))),
        replicas=_number(info, "connected_slaves"),
    )


def _number(info: Mapping[str, Any], name: str) -> int | None:
    return int(info[name]) if name in info else None


def _text(facts: Mapping[str, Any], name: str) -> str | None:
    return str(facts[name]) if facts.get(name) not in (None, "") else None


def _succeeded(info: Mapping[str, Any], name: str) -> bool | None:
    return None if name not in info else info[name] == "ok"
