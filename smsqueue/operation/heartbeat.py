"""Reports that a worker process is alive: in the ledger, and by touching a file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from smsqueue import exc
from smsqueue.ledger import Ledger, SlotUse
from smsqueue.logs import get_logger
from smsqueue.operation.build import build_of, python_version, version

__all__ = ["Heartbeat"]

log = get_logger("smsqueue.worker")

_NOTHING: Mapping[str, str] = {}
_INTERVAL_SECONDS = 5.0
#: Longest silence, in seconds, of the consumer of the broker's queues while Redis answers.
_MAX_SILENCE_SECONDS = 60.0


class Heartbeat:
    """The heartbeat of one process.

    Args:
        worker: Name of the worker; the process id is added to it.
        file: Path of a file that is touched while this process works; "" for none.
        hung: Returns the number of calls that are past their time limit, by kind.
        slots: Returns the slots in use, by provider.
        handlers: Returns the slots of event handlers in use.
        packages: Names of the top-level packages that the worker runs besides ``smsqueue``.
    """

    def __init__(
        self,
        ledger: Ledger,
        worker: str,
        *,
        queues: list[str],
        concurrency: int,
        file: str = "",
        hung: Callable[[], Mapping[str, int]] = dict,
        slots: Callable[[], Mapping[str, SlotUse]] = dict,
        handlers: Callable[[], SlotUse | None] = lambda: None,
        packages: tuple[str, ...] = (),
    ) -> None:
        self.ledger = ledger
        self.hung = hung
        self.slots = slots
        self.handlers = handlers
        self.name = f"{worker}/{os.getpid()}"
        self.file = Path(file) if file else None
        self.description: dict[str, object] = {
            "queues": queues,
            "concurrency": concurrency,
            "version": version(),
            "build": build_of("smsqueue", *packages),
            "python": python_version(),
            "batches": True,
            "pauses": True,
        }
        self._started = self._consumer_seen = time.monotonic()
        self._next = 0.0

    def note_consumer_alive(self) -> None:
        """Note that the consumer's loop runs. The loop calls this every few seconds."""
        self._consumer_seen = time.monotonic()

    def beat(self, *, redis: bool, failing: Mapping[str, str] = _NOTHING) -> None:
        """Report that the process is alive, if the last report is old enough.

        Without Redis the consumer has nothing to do and a restart would not help, so the file is
        touched. If Redis answers and the consumer is silent, the consumer hangs.

        Args:
            redis: Whether Redis answered the last command.
            failing: Causes of failing parts of upkeep, by name, for ``smsqueue status``.
        """
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _INTERVAL_SECONDS
        if not redis:
            self._consumer_seen = now
        elif now - self._consumer_seen > _MAX_SILENCE_SECONDS:
            log.error(
                "this worker has taken nothing from its queues for %.0f s although Redis answers: "
                "restart it",
                now - self._consumer_seen,
            )
            return
        if self.file is not None:
            try:
                if self.file.is_dir():
                    raise IsADirectoryError("it is a folder")
                self.file.touch()
            except OSError as error:
                log.error(
                    "SMSQUEUE_HEARTBEAT_FILE cannot be written (%s): name a file in a folder that "
                    "is there and may be written to",
                    error.strerror or error,
                )
        if redis:
            with suppress(exc.QueueUnavailable):
                self.ledger.record_heartbeat(self.name, self._describe(now, failing))

    def _describe(self, now: float, failing: Mapping[str, str]) -> dict[str, object]:
        """What :class:`smsqueue.ledger.Worker` is read from."""
        return self.description | {
            "uptime": round(now - self._started),
            "memory": resident_memory(),
            "slots": dict(self.slots()),
            "handlers": self.handlers(),
            "hung": dict(self.hung()),
            "failing": dict(failing),
        }

    def end(self) -> None:
        """Remove the file and the entry in the ledger: the process ends in order."""
        if self.file is not None:
            with suppress(OSError):
                self.file.unlink(missing_ok=True)
        with suppress(exc.QueueUnavailable):
            self.ledger.record_heartbeat(self.name, None)


def resident_memory() -> int | None:
    """Bytes of memory that this process holds (RSS); None: the system does not say (not Linux)."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
