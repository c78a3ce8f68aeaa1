"""A gateway on a Redis that fails over: a primary, two replicas, three sentinels, two workers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import redis

from smsqueue import Gateway, OutgoingMessage, Settings, exc
from smsqueue.ledger.client import connect
from smsqueue.stack import Process, RedisServer, ReplicatedRedis
from tests.chaos.rig import Rig, until

__all__ = [
    "Counted",
    "FailoverRig",
    "Sender",
    "confirm_nothing_broken",
    "kill_repeatedly",
    "resume",
]

#: What messages ask of the provider; every request goes out.
TEXTS = ("accept", "accept", "accept", "slow")


class Counted(NamedTuple):
    """What became of the messages, counted at the provider."""

    #: Confirmed by ``send()``.
    confirmed: int
    #: Of these: nothing of them is in the ledger, and the provider never got them.
    lost: int
    #: Messages that the provider got more than once.
    twice: int
    #: Messages whose end is unknown.
    unknown: int
    #: The provider got them, and the ledger has no record.
    forgotten: int
    #: Webhooks that were answered 2xx, and of which nothing is in the ledger.
    webhooks_lost: int
    #: Errors of ``send()``.
    errors: int

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self._asdict().items())


@dataclass
class Sender:
    """A caller that sends each message again until it is confirmed, in a thread of its own."""

    gateway: Gateway
    per_second: float
    confirmed: dict[str, float] = field(default_factory=dict)
    #: Not confirmed when the sender was stopped.
    unconfirmed: list[OutgoingMessage] = field(default_factory=list)
    errors: int = 0
    longest: float = 0.0

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._over.wait(1 / self.per_second):
            number += 1
            message = OutgoingMessage(f"1555{number:06d}", TEXTS[number % len(TEXTS)])
            while not self.send(message):
                if self._over.wait(0.05):
                    self.unconfirmed.append(message)
                    return

    def send(self, message: OutgoingMessage) -> bool:
        began = time.monotonic()
        try:
            self.gateway.send(message)
        except exc.QueueUnavailable:
            self.errors += 1
            return False
        else:
            self.confirmed[str(message.id)] = time.time()
            return True
        finally:
            self.longest = max(self.longest, time.monotonic() - began)

    def wait_for(self, number: int) -> None:
        """Wait until so many more are confirmed."""
        goal = len(self.confirmed) + number
        until(lambda: len(self.confirmed) >= goal, what=f"{number} confirmed messages")

    def stop(self) -> None:
        self._over.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


class FailoverRig(Rig):
    """The rig of the chaos tests, on a replicated Redis.

    Args:
        wait_replicas: The value of SMSQUEUE_WAIT_REPLICAS.
        options: More options of each redis-server.
    """

    def __init__(
        self, folder: Path, *options: str, wait_replicas: int = 0, workers: int = 2
    ) -> None:
        super().__init__(
            folder, workers=workers, environment={"SMSQUEUE_WAIT_REPLICAS": str(wait_replicas)}
        )
        self.replicated = ReplicatedRedis(folder / "redis", "--appendfsync", "always", *options)
        self.given["SMSQUEUE_REDIS_URL"] = self.replicated.url
        self.senders: list[Sender] = []

    def start_redis(self) -> None:
        self.proxy.start()  # of the other rig; unused
        self.replicated.__enter__()

    def direct_client(self) -> redis.Redis:
        return connect(self.settings, timeout=10.0)

    def close(self) -> None:
        for sender in self.senders:
            sender.stop()
        super().close()
        self.replicated.close()

    # --- failovers -----------------------------------------------------------------------------

    def kill_primary(self) -> RedisServer:
        """kill -9 of the primary; returns it."""
        old = self.replicated.primary()
        old.process.stop(signal.SIGKILL)
        return old

    def fail_over(self, meanwhile: Callable[[], object] = lambda: None) -> float:
        """Kill the primary, wait for the next one, and let the old one follow it.

        Args:
            meanwhile: Called once the new primary takes writes.

        Returns:
            Seconds until there was another primary.
        """
        began = time.monotonic()
        old = self.kill_primary()
        self.replicated.wait_for_failover(old)
        took = time.monotonic() - began
        meanwhile()
        self.come_back(old)
        return took

    def come_back(self, old: RedisServer) -> None:
        """Start a server again as a replica, and wait until sentinels may promote any replica."""
        if not old.process.alive:
            old.start()
        with self.replicated.connect(old) as client:
            new: Any = client
            new.replicaof("127.0.0.1", self.replicated.primary().port)
        until(self.replicated.is_known_in_step, what="two replicas")

    @contextmanager
    def replaced(self) -> Iterator[RedisServer]:
        """Another server is promoted, and the old primary is not told: it goes on.

        The other replica follows it for about a second more, until the sentinels reconfigure that.
        """
        with self._obstinate("-slaveof", "-replicaof") as old:
            self.replicated.demand_failover()
            self.replicated.wait_for_failover(old)
            yield old

    @contextmanager
    def cut_off(self) -> Iterator[RedisServer]:
        """A network partition, for Redis: replicas and sentinels lose the primary, which goes on
        with the clients that reach nothing else."""
        with self._obstinate("-slaveof", "-replicaof", "-psync", "-sync", "-replconf") as old:
            with self.replicated.connect(old) as client:
                client.client_kill_filter(_type="replica")
            self.replicated.demand_failover()
            self.replicated.wait_for_failover(old)
            yield old

    @contextmanager
    def _obstinate(self, *denied: str) -> Iterator[RedisServer]:
        """The primary refuses commands of sentinels and replicas; afterwards it follows the new
        primary."""
        old = self.replicated.primary()
        with self.replicated.connect(old) as client:
            client.acl_setuser("default", enabled=True, commands=list(denied))
            yield old
            allowed = [f"+{name[1:]}" for name in denied]
            client.acl_setuser("default", enabled=True, commands=allowed)
        self.come_back(old)

    # --- processes that only reach one server --------------------------------------------------

    def worker_at(self, server: RedisServer) -> Process:
        """A worker that knows no sentinel."""
        (worker,) = self.start_workers(1, SMSQUEUE_REDIS_URL=server.url)
        return worker

    def gateway_at(self, server: RedisServer) -> Gateway:
        """A gateway that knows no sentinel."""
        return Gateway(Settings.from_mapping(self.environment | {"SMSQUEUE_REDIS_URL": server.url}))

    def sender(self, gateway: Gateway | None = None, per_second: float = 40.0) -> Sender:
        """Start a sender."""
        self.senders.append(Sender(gateway or self.gateway, per_second))
        return self.senders[-1]

    # --- counting ------------------------------------------------------------------------------

    def count(self) -> Counted:
        """Count what became of everything; nothing may be under way."""
        known = self.records()
        requests = Counter(request["id"] for request in self.asked() if request["took"])
        confirmed = {id for sender in self.senders for id in sender.confirmed}
        confirmed |= set(self.book.sent)
        self.problems = [
            f"{kind}: {id} {known.get(id)} {[r for r in self.asked() if r['id'] == id]}"
            for kind, ids in (
                ("lost", [id for id in confirmed if id not in known and not requests[id]]),
                ("twice", [id for id, number in requests.items() if number > 1]),
            )
            for id in ids[:5]
        ]
        return Counted(
            confirmed=len(confirmed),
            lost=sum(id not in known and not requests[id] for id in confirmed),
            twice=sum(number > 1 for number in requests.values()),
            unknown=sum(record.state == "unknown" for record in known.values()),
            forgotten=sum(id not in known for id in requests),
            webhooks_lost=self._webhooks_lost(),
            errors=sum(sender.errors for sender in self.senders) + len(self.book.errors),
        )

    def _webhooks_lost(self) -> int:
        heard = {str(line.get("msgid")) for line in self.heard() if line["kind"] == "received"}
        names = {fields["id"] for path, fields in self.book.told if path.endswith("/im")}
        return len(names - heard)


def kill_repeatedly(rig: FailoverRig, publish: Callable[..., None], *, rounds: int) -> None:
    """Kill the primary under load, so many times, and check what became of the messages."""
    sender, gaps, old = rig.sender(), list[float](), None
    sender.wait_for(30)
    for _ in range(rounds):
        if old is not None:
            rig.come_back(old)
        old = rig.kill_primary()
        rig.replicated.wait_for_failover(old)
        sender.wait_for(30)
        gaps.append(max(b - a for a, b in pairwise(list(sender.confirmed.values()))))
    sender.stop()
    rig.settle()
    counted = rig.count()
    publish(counted, f"failovers={rounds} longest_gap={max(gaps):.1f}s send={sender.longest:.1f}s")
    assert rig.survived()
    assert sender.errors > 0
    confirm_nothing_broken(rig, counted)


def confirm_nothing_broken(rig: FailoverRig, counted: Counted, *, replicas: int = 1) -> None:
    """With so many replicas that have to confirm, a failover takes nothing back."""
    if rig.settings.wait_replicas >= replicas:
        broken = (counted.lost, counted.twice, counted.forgotten, counted.webhooks_lost)
        assert broken == (0, 0, 0, 0), "\n".join([str(counted), *rig.problems])


def resume(pid: int) -> None:
    """Let a process go on that has stopped itself."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
