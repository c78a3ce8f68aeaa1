"""What a test can do to a rig's processes and connections."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
import requests

from smsqueue import Gateway, Settings
from smsqueue.stack import Process, RedisServer
from tests.chaos.hits import Hits
from tests.chaos.proxy import Proxy, Rule

__all__ = ["SCRIPTS", "Faults"]

#: The longest lease of a message: its provider's deadline and the margin of tests.chaos.app.
LEASE = 3.5
#: Whose exchanges with Redis are cut.
SCRIPTS = (
    "accept", "claim", "begin", "settle", "claim_event", "handler_done", "settle_event", "take_due",
    "sweep", "receive", "report",
)  # fmt: skip

#: Seconds until Redis has executed what a killed process had sent.
_IN_REDIS = 1.0
#: Seconds that a command of a worker may take.
WORKER_TIMEOUT = 10.0


class Faults:
    """The part of the rig that breaks things."""

    redis: RedisServer
    proxy: Proxy
    gateway: Gateway
    points: Path
    hits: Hits
    stub_url: str
    seed: int
    settings: Settings
    direct: redis.Redis
    key: Callable[..., str]

    def kill(self, process: Process) -> None:
        # What it had sent to Redis may be executed after its end.
        with self.hits.during(self.hits.names.get(process.pid, "?"), after=_IN_REDIS):
            process.stop(signal.SIGKILL)
        self.leases_end()

    def leases_end(self) -> None:
        """Whoever holds them: no lease of a message or an event has more than its length left."""
        pipe = self.direct.pipeline(transaction=True)
        pipe.time()
        longest = {("sending", "watch"): LEASE, ("running", "hook"): self.settings.hook_lease}
        for state, lane in longest:
            pipe.zrange(self.key("state", state), 0, -1)
            parts = [lane, f"{lane}_bulk"] if lane == "hook" else [lane]
            keys = [self.key("due", part) for part in parts]
            pipe.zunion(keys, aggregate="MAX", withscores=True)
        (seconds, micros), *found = pipe.execute()
        for n, lease in enumerate(longest.values()):
            ends = dict(found[2 * n + 1])
            for id in found[2 * n]:
                left = ends[id] / 1000 - seconds - micros / 1e6
                assert left <= lease, f"{id}: its lease ends in {left:.1f} s (seed {self.seed})"

    def kill_redis(self, away: float = 0.5) -> None:
        """Kill Redis, and start it again on its AOF."""
        with self.hits.during():
            self.redis.process.stop(signal.SIGKILL)
            time.sleep(away)
            self.redis.start()

    @contextlib.contextmanager
    def frozen(self, process: Process) -> Any:
        with self.hits.during(self.hits.names.get(process.pid, "")):
            os.kill(process.pid, signal.SIGSTOP)
            try:
                yield
            finally:
                if process.alive:
                    os.kill(process.pid, signal.SIGCONT)

    def cut_all(self) -> None:
        """Cut every connection to Redis."""
        with self.hits.during():
            self.proxy.cut_all()

    @contextlib.contextmanager
    def blackhole(self) -> Any:
        """Swallow what is said to Redis. A worker notices a half open connection by its timeout."""
        with self.hits.during(after=WORKER_TIMEOUT + 2):
            self.proxy.blackhole(True)
            try:
                yield
            finally:
                self.proxy.blackhole(False)

    def tell(self, account: str, word: str = "") -> None:
        """What the provider does with all that comes to an account from now on; "": as asked."""
        requests.put(f"{self.stub_url}/{account}", data=word, timeout=10).raise_for_status()

    def arm(self, moment: str, signum: int = signal.SIGKILL) -> None:
        """The next worker that comes to this moment gets the signal."""
        self.hits.gather()
        for done in self.points.glob(f"{moment}.*.done"):
            done.unlink()
        draft = self.points / f".{moment}"
        draft.write_text(str(int(signum)))
        draft.rename(self.points / moment)

    def reached(self, moment: str) -> int:
        """Process id of the worker that came to an armed moment last; 0: none did yet."""
        if (self.points / moment).exists():
            return 0
        done = sorted(self.points.glob(f"{moment}.*.done"), key=lambda p: p.stat().st_mtime_ns)
        return int(done[-1].name.split(".")[-2]) if done else 0

    def script(self, name: str) -> bytes:
        """How a command that runs this script is known on the wire."""
        sha: str = self.gateway.ledger._scripts._script(name).sha
        return sha.encode()

    def cut(self, script: str, **options: Any) -> Rule:
        return self.proxy.cut(self.script(script), **options)
