"""What a worker process tells of its life: to the ledger for people, by a file for supervisors."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from smsqueue import exc
from smsqueue.ledger import Ledger
from smsqueue.logs import get_logger

__all__ = ["Pulse"]

log = get_logger("smsqueue.worker")

_NOTHING: Mapping[str, str] = {}
_EVERY = 5.0
#: So long may the consumer of the broker's queues be silent while Redis answers.
_PATIENCE = 60.0


class Pulse:
    """One process's pulse.

    Args:
        worker: Name of the worker; the process id is added to it.
        file: Touched as long as this process works; "": none.
        hung: Calls that are past their time limit, by kind.
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
    ) -> None:
        self.ledger = ledger
        self.hung = hung
        self.name = f"{worker}/{os.getpid()}"
        self.file = Path(file) if file else None
        self.told: dict[str, object] = {
            "queues": queues,
            "concurrency": concurrency,
            "version": _version(),
            "batches": True,
        }
        self._felt = time.monotonic()
        self._next = 0.0

    def feel(self) -> None:
        """The consumer's own loop calls this every few seconds, unless it hangs."""
        self._felt = time.monotonic()

    def beat(self, *, redis: bool, failing: Mapping[str, str] = _NOTHING) -> None:
        """Beat if it is time to.

        Without Redis the consumer has nothing to do, and a restart would heal nothing: the file
        is touched all the same. With Redis, a silent consumer is one that hangs.

        Args:
            redis: Did it answer of late?
            failing: What of upkeep fails although it did: causes by name, for ``smsqueue status``.
        """
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY
        if not redis:
            self._felt = now
        elif now - self._felt > _PATIENCE:
            log.error(
                "this worker has taken nothing from its queues for %.0f s although Redis answers: "
                "restart it",
                now - self._felt,
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
                told = self.told | {"hung": dict(self.hung())}
                if failing:
                    told |= {"failing": dict(failing)}
                self.ledger.beat(self.name, told)

    def end(self) -> None:
        """The process ends in order."""
        if self.file is not None:
            with suppress(OSError):
                self.file.unlink(missing_ok=True)
        with suppress(exc.QueueUnavailable):
            self.ledger.beat(self.name, None)


def _version() -> str:
    try:
        return version("smsqueue-gateway")
    except PackageNotFoundError:  # run from a folder that nobody installed
        return "?"
