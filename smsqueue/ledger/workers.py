"""Worker processes, as they describe themselves in their heartbeats."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

__all__ = ["SlotUse", "Worker", "parse_heartbeat", "total_slots"]

T = TypeVar("T")

#: Seconds without a heartbeat after which a worker counts as gone; the interval is 5 s.
_GONE = 30.0


class SlotUse(NamedTuple):
    """The slots of one provider, or of the handlers, in one worker process or in several."""

    #: Calls in flight.
    in_use: int
    #: Calls that may be in flight now: it adapts to how the provider answers.
    limit: int
    #: The highest limit.
    most: int


@dataclass(frozen=True)
class Worker:
    """A worker process, as described by its last heartbeat.

    Older versions do not send all fields: these are None or empty.
    """

    name: str
    #: Seconds since its last heartbeat.
    ago: float
    #: Names of the broker queues that it consumes.
    queues: tuple[str, ...]
    #: Threads of its task pool.
    concurrency: int
    version: str
    #: Hash of its code, which differs between two builds of one version, and version of Python.
    build: str | None = None
    python: str | None = None
    #: Bytes of memory that are its own or shared (RSS).
    memory: int | None = None
    #: Seconds since it started.
    uptime: float | None = None
    #: Slots by provider, and those of the event handlers.
    slots: Mapping[str, SlotUse] = field(default_factory=dict)
    handlers: SlotUse | None = None
    #: Calls that exceeded their time limit and cannot be ended, by kind.
    hung: Mapping[str, int] = field(default_factory=dict)
    #: Causes of failing upkeep tasks, by task.
    failing: Mapping[str, str] = field(default_factory=dict)
    #: It accepts triggers with several ids.
    batches: bool = False
    #: It obeys an operator's pauses of tags and of everything.
    pauses: bool = False

    @property
    def alive(self) -> bool:
        """Was its last heartbeat recent? Otherwise it was killed, or hangs."""
        return self.ago < _GONE


def total_slots(workers: Iterable[Worker]) -> dict[str, SlotUse]:
    """The slots of each provider in all of these workers."""
    totals: dict[str, SlotUse] = {}
    for worker in workers:
        for provider, use in worker.slots.items():
            total = totals.get(provider, SlotUse(0, 0, 0))
            totals[provider] = SlotUse(*map(sum, zip(total, use, strict=True)))
    return dict(sorted(totals.items()))


def parse_heartbeat(name: str, text: str, now: float) -> Worker | None:
    """The worker of an entry in the ledger; None: the entry is damaged.

    A live worker writes its entry anew within seconds. A field that cannot be read is left out.

    Args:
        now: Redis's clock, in seconds.
    """
    seen, _, rest = text.partition(" ")
    try:
        # A time to come was written before Redis's clock was set back.
        ago = abs(now - int(seen) / 1000)
        about = json.loads(rest)
    except (ValueError, OverflowError, RecursionError):
        return None
    if not isinstance(about, dict):
        return None

    def get(field: str, parse: Callable[[Any], T], default: T) -> T:
        try:
            return default if about[field] is None else parse(about[field])
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError):
            return default

    return Worker(
        name=name,
        ago=ago,
        queues=get("queues", lambda names: tuple(map(str, names)), ()),
        concurrency=get("concurrency", int, 0),
        version=get("version", str, ""),
        build=get("build", str, None),
        python=get("python", str, None),
        memory=get("memory", int, None),
        uptime=get("uptime", float, None),
        slots=get("slots", lambda uses: {str(k): _slots(v) for k, v in uses.items()}, {}),
        handlers=get("handlers", _slots, None),
        hung=get("hung", lambda hung: {str(k): int(v) for k, v in hung.items()}, {}),
        failing=get("failing", lambda causes: {str(k): str(v) for k, v in causes.items()}, {}),
        batches=about.get("batches") is True,
        pauses=about.get("pauses") is True,
    )


def _slots(values: Any) -> SlotUse:
    in_use, limit, most = map(int, values)
    return SlotUse(in_use, limit, most)
