"""What is drawn of a run: requests at the provider, latencies, and memory over time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from smsqueue.stack import StackError

__all__ = ["Recorder", "Recording"]

#: Seconds between two samples of memory.
_INTERVAL = 0.25


@dataclass
class Recording:
    """A run. All times are in seconds since its beginning."""

    title: str
    #: When requests came to the provider.
    requests: list[float] = field(default_factory=list)
    #: Single messages: when ``send()`` was called, and milliseconds until the provider had them.
    latencies: list[tuple[float, float]] = field(default_factory=list)
    #: Bytes over time, by what has them.
    memory: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


class Recorder:
    """Samples memory in a thread until :meth:`stop`.

    Args:
        memory: Functions that return bytes, by what has them.
    """

    def __init__(self, title: str, memory: dict[str, Callable[[], float]]) -> None:
        self._recording = Recording(title, memory={name: [] for name in memory})
        self._memory = memory
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="samples", daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while True:
            for name, read in self._memory.items():
                try:
                    value = read()
                except (StackError, RedisError):  # what is measured has ended
                    return
                self._recording.memory[name].append((time.monotonic() - self._began, value))
            if self._stop.wait(_INTERVAL):
                return

    def stop(self, requests: list[float], latencies: list[tuple[float, float]]) -> Recording:
        """End sampling; the recording.

        Args:
            requests, latencies: As in a Recording, but by ``time.monotonic()``.
        """
        self._stop.set()
        self._thread.join()
        self._recording.requests = [moment - self._began for moment in requests]
        self._recording.latencies = [(moment - self._began, ms) for moment, ms in latencies]
        return self._recording

    @property
    def samples(self) -> int:
        """How often each function was called."""
        return max(map(len, self._recording.memory.values()), default=0)
