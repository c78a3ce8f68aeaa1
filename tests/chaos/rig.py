"""Everything that a gateway needs, as real processes that a test may kill, freeze and cut off."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import redis
import requests

from smsqueue import Gateway, Settings
from smsqueue.stack import Process, RedisServer, free_port
from tests.chaos.faults import Faults
from tests.chaos.hits import Hits
from tests.chaos.load import Book
from tests.chaos.proxy import Proxy
from tests.chaos.records import Record, read_lines, records

__all__ = ["ROOT", "SLOTS", "Rig", "until"]

ROOT = Path(__file__).parents[2]
SLOTS = 8
#: States of messages and events that are under way.
OPEN = ("queued", "scheduled", "retrying", "sending", "waiting", "parked", "running")
#: Seconds after which something counts as stuck.
PATIENCE = 900.0 if os.environ.get("CHAOS_ROUNDS") else 120.0

_TIMES = {
    "SMSQUEUE_GRACE": "1.5",
    "SMSQUEUE_UPKEEP_INTERVAL": "0.1",
    "SMSQUEUE_PARK_WAIT": "1",
    "SMSQUEUE_HOOK_LEASE": "3",
    "SMSQUEUE_HANDLER_TIMEOUT": "2.4",
    "SMSQUEUE_CONCURRENCY": str(SLOTS),
    "SMSQUEUE_MAX_IN_FLIGHT": str(2 * SLOTS),
}


def until(condition: Callable[[], object], seconds: float = PATIENCE, what: str = "it") -> None:
    """Wait until a condition holds; the bound is one that no healthy run comes near."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds:.0f} s"
        time.sleep(0.03)


class Rig(Faults):
    """Redis behind a proxy, a provider, worker processes. A context manager.

    Args:
        seed: Of everything that is random in a test; printed when an invariant is broken.
        redis_options: More options of redis-server.
        environment: More variables for workers, receivers and the gateway of the test.
        plain: As an application runs it: default times, no proxy before Redis.
    """

    #: Those of the test that runs now.
    running: ClassVar[list[Rig]] = []

    def __init__(
        self,
        folder: Path,
        *,
        seed: int = 0,
        workers: int = 2,
        redis_options: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
        plain: bool = False,
    ) -> None:
        self.folder, self.wanted, self.plain = folder, workers, plain
        self.reseed(seed)
        self.redis = RedisServer(folder, "--appendfsync", "always", *redis_options)
        self.proxy = Proxy(self.redis.port)
        stub = free_port()
        self.stub_url, self.stub_file = f"http://127.0.0.1:{stub}", folder / "stub.jsonl"
        self.heard_file, self.points = folder / "heard.jsonl", folder / "points"
        self.points.mkdir()
        self._stub = self._python(
            "stub", "-m", "tests.chaos.stub", str(stub), str(self.stub_file), PYTHONPATH=str(ROOT)
        )
        self.given = environment or {}
        self.workers: list[Process] = []
        self.receivers: Process | None = None
        self.receivers_url = ""
        self.book = Book()
        #: Attempts in flight at a fault may end unknown.
        self.hits = Hits(self.points)
        #: The last check of the invariants found them all kept.
        self.clean = False
        self._started = 0

    def reseed(self, seed: int) -> None:
        self.seed, self.dice = seed, random.Random(seed)

    def __enter__(self) -> Rig:
        self.running.append(self)
        try:
            self.start_redis()
            self._stub.start(lambda: self.stub_file.exists())
            port = self.redis.port if self.plain else self.proxy.port
            self.environment = ({} if self.plain else _TIMES) | {
                "PYTHONPATH": str(ROOT),
                "PYTHONUNBUFFERED": "1",
                "SMSQUEUE_REDIS_URL": f"redis://127.0.0.1:{port}/0",
                "SMSQUEUE_NAMESPACE": "chaos",
                "SMSQUEUE_GATEWAY": f"tests.chaos.{'plain' if self.plain else 'app'}:gateway",
                "SMSQUEUE_RECEIVER_PREFIX": "hidden",
                "SMSQUEUE_EAGER": "0",
                "CHAOS_PROVIDERS": "a,b",
                "CHAOS_STUB": self.stub_url,
                "CHAOS_POINTS": str(self.points),
                "CHAOS_HEARD": str(self.heard_file),
                **self.given,
            }
            self.settings = Settings.from_mapping(self.environment)
            #: Sends through the proxy; ``direct`` looks, and is hit by no fault but Redis's own.
            self.gateway = Gateway(self.settings)
            self.direct = self.direct_client()
            self.heal()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def start_redis(self) -> None:
        self.proxy.start()
        self.redis.start()

    def direct_client(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis.url, decode_responses=True)

    def close(self) -> None:
        self.running.remove(self)
        with contextlib.suppress(AttributeError):
            self.gateway.close()
            self.direct.close()
        for process in (*self.workers, self.receivers, self._stub, self.redis.process):
            if process is not None:
                process.stop(signal.SIGKILL)
        self.proxy.stop()

    # --- processes -----------------------------------------------------------------------------

    def _python(self, name: str, *arguments: str, **environment: str) -> Process:
        log = self.folder / f"{name}.log"
        return Process(
            name,
            [sys.executable, *arguments],
            log,
            environment=environment,
            folder=self.folder,
        )

    def start_workers(self, count: int, **environment: str) -> list[Process]:
        """Start some together, and wait until they work."""
        made = []
        for _ in range(count):
            self._started += 1
            name = f"worker{self._started}"
            command = ["-m", "celery", "-A", "workers", "worker", "-l", "INFO", "-n", f"{name}@c"]
            command += ["--without-gossip", "--without-mingle"]
            made.append(self._python(name, *command, **(self.environment | environment)))
            made[-1].start(lambda: True)
            self.hits.names[made[-1].pid] = f"{name}@c"
        self.workers += made
        for worker in made:
            until(lambda w=worker: not w.alive or " ready." in w.tail(10_000), what=worker.name)
            # It may have been killed since, and at an armed moment even before.
            armed = list(self.points.glob(f"*.{worker.pid}.done"))
            assert armed or " ready." in worker.tail(10_000), worker.tail()
        return made

    def start_receivers(self) -> None:
        """Start the receivers, again at the same address if they ran before."""
        if not self.receivers_url:
            self.receivers_url = f"http://127.0.0.1:{free_port()}"
        command = ["-m", "gunicorn", "-c", "python:receivers.server", "-b", self.receivers_url[7:]]
        environment = self.environment | {"HOME": str(self.folder)}
        self.receivers = self._python("receivers", *command, **environment)
        self.receivers.start(self._listening)

    def _listening(self) -> bool:
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"{self.receivers_url}/healthz", timeout=5).ok
        return False

    def celery(self, *arguments: str) -> str:
        """What a celery command says."""
        command = [sys.executable, "-m", "celery", "-A", "workers", *arguments]
        done = subprocess.run(
            command,
            env=os.environ | self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    def heal(self) -> None:
        """Have as many workers as wanted; those that died stay dead."""
        self.workers = [worker for worker in self.workers if worker.alive]
        self.start_workers(self.wanted - len(self.workers))

    def survived(self) -> bool:
        """All workers live that nobody killed: trouble with Redis ends none."""
        dead = [worker for worker in self.workers if not worker.alive]
        assert not dead, "\n".join(worker.tail(40) for worker in dead)
        return True

    # --- looking -------------------------------------------------------------------------------

    def asked(self) -> list[dict[str, Any]]:
        """Every request that the provider got, in order."""
        return read_lines(self.stub_file)

    def heard(self) -> list[dict[str, Any]]:
        """Every call of a handler, in order."""
        return read_lines(self.heard_file)

    def records(self) -> dict[str, Record]:
        return records(self.direct, self.settings.namespace)

    def key(self, *parts: str) -> str:
        return ":".join((self.settings.namespace, *parts))

    def open(self) -> int:
        """Messages and events that somebody must still do something about."""
        return sum(int(self.direct.zcard(self.key("state", s))) for s in OPEN)

    def _quiet(self) -> bool:
        """Nothing is under way, and for a second nobody has come back with a late outcome."""
        before = self.direct.hgetall(self.key("counts"))
        if self.open():
            return False
        time.sleep(1)
        return not self.open() and before == self.direct.hgetall(self.key("counts"))

    def settle(self, seconds: float = PATIENCE) -> None:
        """Wait until nothing is under way any more."""
        until(self._quiet, seconds, "the end of all messages")

    def under_way(self) -> str:
        """For a test that failed: the seed, and what it left behind."""
        lines = [f"seed {self.seed}, {self.folder}"]
        try:
            known = self.records().values()
        except redis.RedisError as error:
            lines.append(f"Redis does not answer: {error}")
        else:
            lines.append(str(dict(Counter(each.state for each in known))))
            lines += [str(each) for each in known if each.state in OPEN][:10]
        return "\n".join([*lines, *(worker.tail(8) for worker in self.workers)])
