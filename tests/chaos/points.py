"""Named moments at which a worker or a receiver can be told to kill (or stop) itself, once.

A moment is armed by a file of its name in the folder; it holds the signal's number. Whichever
process comes there first removes the file and gets the signal.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from smsqueue.ledger import AttemptBegun, Claimed, ClaimedEvent, Ledger, Settlement
from smsqueue.ledger.scripts import Scripts
from tests.chaos.provider import ChaosProvider

__all__ = ["MOMENTS", "RECORDING", "here", "install"]

#: What a worker does between taking a trigger and acknowledging it, in order.
MOMENTS = {
    "claim": ("claim-before", "claim-half", "claim-after", "begin-before", "begin-after"),
    "call": ("call-before", "call", "settle-before", "settle-half", "settle-after"),
    "route": ("next-before", "next-after"),
    "upkeep": ("sweep-after", "take-before", "take-after"),
    "hook": (
        "hook-claim-half",
        "hook-claim-after",
        "hook",
        "hook-settle-before",
        "hook-settle-half",
        "hook-settle-after",
    ),
}

#: What a receiver does between reading a webhook and answering it.
RECORDING = ("record-before", "record-after")

_folder = Path(os.environ.get("CHAOS_POINTS", "/nonexistent"))


def here(moment: str) -> None:
    """Die here if that was ordered."""
    path = _folder / moment
    try:
        number = int(path.read_text())
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return
    (_folder / f"{moment}.{os.getpid()}.done").touch()
    # To this thread: sent to the process, it may take effect when this one is already further.
    signal.pthread_kill(threading.get_ident(), number)
    if number == signal.SIGKILL:
        time.sleep(60)


def _around(
    owner: type,
    name: str,
    moment: Callable[..., str],
    after: Callable[[Any], object] = lambda answer: True,
) -> None:
    """``after``: which answers make a moment; those that found nothing to do do not."""
    inner = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        called = moment(*args)
        here(f"{called}-before")
        answer = inner(*args, **options)
        if after(answer):
            here(f"{called}-after")
        return answer

    setattr(owner, name, wrapped)


def _got(answers: list[Any]) -> bool:
    """Did one of a group get what it asked for?"""
    return any(isinstance(answer, Claimed | ClaimedEvent | AttemptBegun) for answer in answers)


def _settle(ledger: Any, items: list[Settlement]) -> str:
    return "next" if any(item.outcome.next for item in items) else "settle"


def _in_halves() -> None:
    """A script ends after a part of its group, as it does when Redis needs some milliseconds for
    that: the rest is another call, and between them is a moment."""
    inner = Scripts.run_group

    def wrapped(self: Any, name: str, items: Sequence[Any], **options: Any) -> list[Any]:
        if len(items) < 2:
            return inner(self, name, items, **options)
        middle = len(items) // 2
        first = inner(self, name, items[:middle], **options)
        moment = {"claim_event": "hook-claim", "settle_event": "hook-settle"}.get(name, name)
        here(f"{moment}-half")
        return first + inner(self, name, items[middle:], **options)

    Scripts.run_group = wrapped  # type: ignore[method-assign]


def _during_the_call() -> None:
    inner = ChaosProvider.send

    def wrapped(self: Any, message: Any) -> Any:
        here("call-before")
        if message.body.startswith("slow"):
            timer = threading.Timer(0.1, here, ("call",))  # the stub holds it for longer
            timer.daemon = True
            timer.start()
        return inner(self, message)

    ChaosProvider.send = wrapped  # type: ignore[method-assign]


def install() -> None:
    """Put the moments into this process."""
    _during_the_call()
    _in_halves()
    _around(Ledger, "settle_many", _settle)
    for name in ("claim", "begin"):
        _around(Ledger, f"{name}_many", lambda *args, n=name: n, _got)
    _around(Ledger, "sweep", lambda *args: "sweep", bool)
    _around(Ledger, "take_due", lambda *args: "take", bool)
    for name in ("receive", "report"):
        _around(Ledger, name, lambda *args: "record")
    _around(Ledger, "claim_events", lambda *args: "hook-claim", _got)
    _around(Ledger, "settle_events", lambda *args: "hook-settle")
