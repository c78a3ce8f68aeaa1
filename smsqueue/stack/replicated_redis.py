"""A primary with replicas, watched by sentinels, for tests and measurements of failovers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from smsqueue.stack.process import Process, StackError, free_ports
from smsqueue.stack.redis_server import RedisServer, find_redis

__all__ = ["ReplicatedRedis"]

#: Seconds that starting, or a failover, may take.
_PATIENCE = 60.0


class ReplicatedRedis:
    """A primary, two replicas and three sentinels on this machine. A context manager.

    Args:
        down_after: Seconds without an answer after which a sentinel takes a server for down.
        options: Further options of each redis-server.
    """

    #: Name of the primary in the configuration of the sentinels.
    NAME = "sms"

    def __init__(self, folder: Path, *options: str, down_after: float = 1.0) -> None:
        self._folder, self._down_after_ms = folder, int(down_after * 1000)
        ports = free_ports(6)
        self.servers: list[RedisServer] = []
        for number, port in enumerate(ports[:3]):
            home = folder / f"redis{number}"
            home.mkdir(parents=True)
            of_replica = ("--replicaof", "127.0.0.1", str(ports[0])) if number else ()
            fast = ("--repl-diskless-sync-delay", "0")
            self.servers.append(RedisServer(home, *fast, *of_replica, *options, port=port))
        self.sentinel_ports = ports[3:]
        self.sentinels: list[Process] = []
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinel_ports)
        #: For SMSQUEUE_REDIS_URL.
        self.url = f"sentinel://{hosts}/0?master={self.NAME}"

    def __enter__(self) -> Self:
        try:
            for server in self.servers:
                server.start()
            for number, port in enumerate(self.sentinel_ports):
                self.sentinels.append(self._start_sentinel(number, port))
            self._wait(self._is_watched, "The sentinels do not know all servers")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start_sentinel(self, number: int, port: int) -> Process:
        home = self._folder / f"sentinel{number}"
        home.mkdir()
        name, primary = self.NAME, self.servers[0].port
        configuration = home / "sentinel.conf"  # a sentinel rewrites it
        configuration.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {home}\n"
            f"sentinel monitor {name} 127.0.0.1 {primary} 2\n"
            f"sentinel down-after-milliseconds {name} {self._down_after_ms}\n"
            f"sentinel failover-timeout {name} {max(3000, 3 * self._down_after_ms)}\n"
            f"sentinel parallel-syncs {name} 2\n"
        )
        command = [find_redis(), str(configuration), "--sentinel"]
        process = Process(f"sentinel {number}", command, home / "sentinel.log", stop_timeout=1.0)
        process.start(lambda: self._sentinel(port, "PING") is not None)
        return process

    def _sentinel(self, port: int, *command: str) -> Any:
        """Ask a sentinel; None if it does not answer."""
        client = redis.Redis(port=port, socket_timeout=1.0, decode_responses=True)
        try:
            with suppress(redis.exceptions.RedisError):
                execute: Any = client.execute_command  # has no types
                return execute(*command)
            return None
        finally:
            client.close()

    def _wait(self, condition: Callable[[], bool], failure: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise StackError(f"{failure} after {_PATIENCE:.0f} s (logs: {self._folder})")
            time.sleep(0.05)

    def _is_watched(self) -> bool:
        """Does each sentinel know two replicas that are in step, and two other sentinels?"""
        return self.replicas_in_step() and all(
            (known := self._states(port)) is not None
            and int(known["num-slaves"]) == 2
            and int(known["num-other-sentinels"]) == 2
            for port in self.sentinel_ports
        )

    def _states(self, port: int) -> dict[str, Any] | None:
        answer = self._sentinel(port, "SENTINEL", "MASTER", self.NAME)
        return dict(answer) if answer else None

    def replicas_in_step(self, number: int = 2) -> bool:
        """Do so many replicas follow the primary?"""
        with suppress(redis.exceptions.RedisError), self.connect(self.primary()) as client:
            facts: Any = client.info("replication")
            lines = [facts.get(f"slave{i}", {}) for i in range(int(facts["connected_slaves"]))]
            return bool(sum(line.get("state") == "online" for line in lines) >= number)
        return False

    def is_known_in_step(self) -> bool:
        """Do all sentinels know that both replicas have what the primary has written so far?

        They ask each replica for its offset every ten seconds. Until then, they may promote one
        that has less than another.
        """
        if not self.replicas_in_step():
            return False
        with self.connect(self.primary()) as client:
            facts: Any = client.info("replication")
        offset = int(facts["master_repl_offset"])
        known: list[bool] = []

        def all_known() -> bool:
            known[:] = [
                int(replica["slave-repl-offset"]) >= offset
                and replica["master-link-status"] == "ok"
                for port in self.sentinel_ports
                for replica in self._sentinel(port, "SENTINEL", "REPLICAS", self.NAME) or []
            ]
            return len(known) == 6 and all(known)

        self._wait(all_known, "The sentinels do not know that the replicas are in step")
        return True

    def connect(self, server: RedisServer) -> redis.Redis:
        """A client of one server, whatever the sentinels say of it."""
        return redis.Redis(port=server.port, socket_timeout=5.0, decode_responses=True)

    def primary(self) -> RedisServer:
        """The server that most sentinels take for the primary."""
        named: list[int] = []
        for port in self.sentinel_ports:
            answer = self._sentinel(port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.NAME)
            if answer:
                named.append(int(answer[1]))
        port = max(named, key=named.count, default=self.servers[0].port)
        return next(server for server in self.servers if server.port == port)

    def wait_for_failover(self, old: RedisServer) -> RedisServer:
        """Wait until another server is the primary and takes writes; returns it."""

        def promoted() -> bool:
            new = self.primary()
            if new is old:
                return False
            with suppress(redis.exceptions.RedisError), self.connect(new) as client:
                facts: Any = client.info("replication")
                return bool(facts["role"] == "master")
            return False

        self._wait(promoted, "No other primary")
        return self.primary()

    def demand_failover(self) -> None:
        """Let a sentinel promote a replica, while the primary goes on as if nothing had happened.

        The old primary takes writes until the sentinels make it a replica, after 8 s and more.
        """
        self._wait(
            lambda: any(
                self._sentinel(port, "SENTINEL", "FAILOVER", self.NAME)
                for port in self.sentinel_ports
            ),
            "No sentinel begins a failover",
        )

    def close(self) -> None:
        """Stop everything."""
        for process in (*self.sentinels, *(server.process for server in self.servers)):
            if process.alive:
                os.kill(process.pid, signal.SIGCONT)
            process.stop(signal.SIGKILL)
