"""A backlog: what 1,000,000 waiting messages cost, in time and in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice

import redis

from benchmarks.measured_figures import Figure, alternate, compared
from benchmarks.sending import BODY, messages
from benchmarks.stage import Stage, connected
from smsqueue import Gateway
from smsqueue.settings import Settings

__all__ = ["measure_backlog"]

#: The target for a body of 100 characters.
BYTES = 900
_SAMPLES = 300


def measure_backlog(stage: Stage) -> Iterator[Figure]:
    """Two servers, a full one and an empty one; ``send()`` to both in turn."""
    full, empty = stage.redis("full"), stage.redis("empty")
    clients = connected(full), connected(empty)
    many = stage.size(1_000_000, 20_000)
    with (
        Gateway(Settings(redis_url=full.url)) as to_full,
        Gateway(Settings(redis_url=empty.url)) as to_empty,
    ):
        queue = to_full.settings.send_key
        to_full.send(messages(1, 9_999_999)[0])  # scripts and bindings are there from now on
        before = _used(clients[0])
        for first in range(0, many, 10_000):
            stage.told(f"{first} of {many} messages wait")
            to_full.send_many(messages(10_000, first))
        clients[0].delete(queue)
        yield _memory(clients[0], before, many)

        rounds, per_round = stage.size(9, 3), stage.size(400, 200)
        found: list[tuple[float, float]] = []
        for i in range(-1, rounds):  # the first one warms up
            stage.told(f"round {i + 1} of {rounds}")
            first = many + (i + 1) * per_round
            batches = messages(per_round, first), messages(per_round, first)
            pair = alternate(
                per_round,
                lambda n, batches=batches: to_full.send(batches[0][n]),  # type: ignore[misc]
                lambda n, batches=batches: to_empty.send(batches[1][n]),  # type: ignore[misc]
            )
            if any(client.llen(queue) != per_round for client in clients):
                raise RuntimeError("not every message was published")
            for client in clients:
                client.delete(queue)
            for kind in ("msg", "number", "state", "due"):
                for key in clients[1].scan_iter(f"sms:{kind}:*", count=1000):
                    clients[1].delete(key)
            found += [pair] if i >= 0 else []
    yield compared(
        "backlog",
        "send(), backlog",
        f"p50 while {many:,} messages wait, beside a Redis where none do",
        "us",
        found,
        at_most=1.1,
        notes={"calls": rounds * per_round},
    )


def _used(client: redis.Redis) -> int:
    """Bytes in use, when no AOF is being rewritten."""
    while client.info("persistence")["aof_rewrite_in_progress"]:
        time.sleep(0.1)
    used: int = client.info("memory")["used_memory"]
    return used


def _memory(client: redis.Redis, before: int, count: int) -> Figure:
    each = (_used(client) - before) / count

    def sampled(kind: str) -> float:
        found = client.scan_iter(f"sms:{kind}:*", count=1000)
        sizes = [client.memory_usage(key) or 0 for key in islice(found, _SAMPLES)]
        return sum(sizes) / max(1, len(sizes))

    def shared(key: str) -> float:
        return (client.memory_usage(key, samples=0) or 0) / count

    parts = {
        "record": sampled("msg"),
        "number index": sampled("number"),
        "state index": shared("sms:state:queued"),
        "due index": shared("sms:due:send") + shared("sms:due:send_bulk"),
    }
    parts["rest"] = each - sum(parts.values())
    return Figure(
        "memory",
        "memory, waiting",
        f"Redis memory per waiting message with a body of {len(BODY)} characters",
        "B",
        ours=each,
        bare=None,
        value=each,
        low=each,
        high=each,
        target=BYTES,
        at_most=True,
        notes={name: round(size) for name, size in parts.items()} | {"messages": count},
    )
