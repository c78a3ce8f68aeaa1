"""Taking messages in: ``send`` and ``send_many`` beside a bare ``apply_async``."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.bare_task import make_app
from benchmarks.measured_figures import Figure, alternate, compared
from benchmarks.stage import Stage, connected
from smsqueue import Gateway, OutgoingMessage
from smsqueue.message.ids import new_id
from smsqueue.settings import Settings

__all__ = ["BODY", "measure_send", "measure_send_many", "messages"]

#: 100 characters.
BODY = (
    "Your parcel is on its way. It comes on Tuesday between nine and ten. "
    "Where it is: example.org/a1b2c3"
)


def messages(count: int, first: int = 0) -> list[OutgoingMessage]:
    """Messages to distinct numbers."""
    return [OutgoingMessage(f"+1555{first + i:07}", BODY) for i in range(count)]


def measure_send(stage: Stage) -> Iterator[Figure]:
    """``send()`` and ``apply_async`` in turn, no worker, short queues."""
    server = stage.redis()
    client = connected(server)
    settings = Settings(redis_url=server.url, namespace="ours")
    bare_settings = Settings(redis_url=server.url, namespace="bare")
    task = make_app(bare_settings).tasks["bare.nothing"]
    rounds, per_round = stage.size(9, 3), stage.size(400, 200)
    found: list[tuple[float, float]] = []
    with Gateway(settings) as gateway:
        for i in range(-1, rounds):  # the first one warms up
            stage.told(f"round {i + 1} of {rounds}")
            batch, ids = messages(per_round, i * per_round + per_round), _ids(per_round)
            pair = alternate(
                per_round,
                lambda n, batch=batch: gateway.send(batch[n]),  # type: ignore[misc]
                lambda n, ids=ids: task.apply_async(  # type: ignore[misc]
                    (ids[n],), task_id=ids[n], retry=False
                ),
            )
            for key in (settings.send_key, bare_settings.send_key):
                published = client.llen(key)
                if published != per_round:
                    raise RuntimeError(f"{key}: {published} of {per_round} were published")
                client.delete(key)
            found += [pair] if i >= 0 else []
    yield compared(
        "send",
        "send()",
        "p50, beside one apply_async of a task that does nothing",
        "us",
        found,
        at_most=0.6,
        notes={"calls": rounds * per_round},
    )


def measure_send_many(stage: Stage) -> Iterator[Figure]:
    """``send_many`` of 10,000 beside a loop of ``apply_async``."""
    server = stage.redis()
    client = connected(server)
    settings = Settings(redis_url=server.url, namespace="ours")
    bare_settings = Settings(redis_url=server.url, namespace="bare")
    task = make_app(bare_settings).tasks["bare.nothing"]
    rounds, many, loop = stage.size(9, 3), 10_000, stage.size(3000, 1500)
    found: list[tuple[float, float]] = []
    with Gateway(settings) as gateway:
        gateway.send_many(messages(600))
        for i in range(rounds):
            stage.told(f"round {i + 1} of {rounds}")
            client.delete(settings.send_key, bare_settings.send_key)
            # Half of the loop before, half after.
            bare = _loop(task, loop // 2)
            batch = messages(many, (i + 1) * many)
            gc.collect()
            began = time.perf_counter()
            gateway.send_many(batch)
            ours = time.perf_counter() - began
            del batch
            bare += _loop(task, loop // 2)
            found.append((ours / many * 1e6, bare / loop * 1e6))
    yield compared(
        "send_many",
        "send_many, 10,000",
        "per message, beside a loop of apply_async; the ratio is how many times as fast",
        "us",
        found,
        at_least=5.0,
        inverse=True,
        notes={"messages": many, "loop": loop},
    )


def _loop(task: Any, count: int) -> float:
    """Seconds that ``count`` calls of ``apply_async`` take."""
    ids = _ids(count)
    gc.collect()
    began = time.perf_counter()
    for id in ids:
        task.apply_async((id,), task_id=id, retry=False)
    return time.perf_counter() - began


def _ids(count: int) -> list[str]:
    return [new_id() for _ in range(count)]
