"""Holding on to an outcome until the ledger has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from smsqueue import exc
from smsqueue.concurrency.loop import sleep
from smsqueue.logs import get_logger

__all__ = ["persist"]

log = get_logger(__name__)

T = TypeVar("T")


def persist(command: Callable[[], T]) -> T:
    """Repeat a command of the ledger until Redis confirms it: the message is in our hands, and
    its outcome must not be lost. LedgerError, which no repetition ends, is raised."""
    pause = 0.2
    while True:
        try:
            return command()
        except exc.LedgerError:
            raise
        except exc.QueueUnavailable as error:
            log.error("waiting for Redis: %s", error)
            sleep(pause)
            pause = min(pause * 2, 5.0)
