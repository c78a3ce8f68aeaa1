"""What the ledger tells of providers and workers, summed up."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from smsqueue.cli.words import clean, local
from smsqueue.ledger import Pause, Worker

__all__ = [
    "Tally",
    "advice",
    "consumed",
    "needs_somebody",
    "pause_shown",
    "paused",
    "start_worker",
    "tallies",
]

#: What to do about a pause; it ends by itself after any other error.
_REMEDIES = {"CreditError": "top up the account", "AuthError": "correct the credentials"}
#: Pauses in a row after which one is no passing trouble; each is twice as long, up to a minute.
_STUBBORN = 6


@dataclass
class Tally:
    """What happened at a provider since the ledger began."""

    attempts: int = 0
    sent: int = 0
    #: By error class.
    errors: Counter[str] = field(default_factory=Counter)


def tallies(counters: Mapping[tuple[str, ...], int]) -> dict[str, Tally]:
    """By provider; the counters are explained in docs/metrics.md."""
    found: dict[str, Tally] = defaultdict(Tally)
    for labels, number in counters.items():
        match labels:
            case ("attempts", provider):
                found[provider].attempts += number
            case ("took", "sent", provider, _):
                found[provider].sent += number
            case ("errors", provider, error, _) if provider:
                found[provider].errors[error] += number
    return dict(sorted(found.items()))


def advice(pause: Pause) -> str:
    """What to do about a pause."""
    return _REMEDIES.get(pause.error or "", "it goes on by itself")


def needs_somebody(pause: Pause) -> bool:
    """Does a pause not end by itself, or does it not seem to?"""
    return pause.error in _REMEDIES or pause.times >= _STUBBORN


def paused(pause: Pause | None) -> str:
    """A pause in words."""
    if pause is None:
        return ""
    until = f"until {local(pause.until)}" if pause.left else "over: the next message tries again"
    return f"{until} ({clean(pause.error)}, {pause.times} in a row): {advice(pause)}"


def pause_shown(pause: Pause | None) -> dict[str, Any] | None:
    """A pause for machines."""
    if pause is None:
        return None
    return {
        "until": pause.until,
        "left": round(pause.left, 1),
        "times": pause.times,
        "error": pause.error,
        "do": advice(pause),
    }


def consumed(workers: Iterable[Worker]) -> set[str]:
    """The queues that live workers consume."""
    return {queue for worker in workers if worker.alive for queue in worker.queues}


def start_worker(*queues: str) -> str:
    """That nobody consumes some queues, and what to do."""
    return (
        f"no worker is consuming {' and '.join(queues)}: "
        f"start one with: celery -A workers worker -Q {','.join(queues)}"
    )
