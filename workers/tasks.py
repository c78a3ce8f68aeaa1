"""The tasks: a trigger comes in, the floor below does the work, Celery shows how it ended.

Nothing is retried here: waits live in the ledger. Exceptions only make Celery's monitors, such
as Flower, show one row per message with its state; they carry classes, never texts.
"""

from __future__ import annotations

from typing import Any

from celery.exceptions import Ignore, Retry

from smsqueue import exc
from smsqueue.delivery import Outcome
from smsqueue.queue import DELIVER, HOOK
from smsqueue.states import DAMAGED, ENDED_BADLY, ENDED_WELL, WAITING, EventState, State

__all__ = ["NotDelivered", "Waiting", "register"]

#: Group of slots that hooks share.
_HOOKS = "(hooks)"


class NotDelivered(Exception):
    """The message failed, expired, was cancelled, or was reported as undelivered."""


class Waiting(Exception):
    """The message waits for another attempt, or for news of its last one."""


def register(app: Any) -> None:
    """Add the tasks to an application whose ``smsqueue_...`` attributes its worker sets."""

    @app.task(name=DELIVER, throws=(NotDelivered,))  # type: ignore[untyped-decorator]
    def deliver(id: str) -> str:
        try:
            outcome = app.smsqueue_delivery.deliver(id)
        except exc.QueueUnavailable as error:
            # The claim was not confirmed, nothing was sent: upkeep finds it.
            raise Retry(exc=Waiting(type(error).__name__), when=None) from None
        return _shown(outcome)

    @app.task(name=HOOK, throws=(NotDelivered,))  # type: ignore[untyped-decorator]
    def hook(event: str) -> str:
        with app.smsqueue_slots.held(_HOOKS) as busy:
            if busy:
                app.smsqueue_hooks.later(event, busy)
                raise Retry(exc=Waiting("WorkerBusy"), when=_whole(busy + 1))
            try:
                outcome: Outcome = app.smsqueue_hooks.run(event)
            except exc.QueueUnavailable as error:
                raise Retry(exc=Waiting(type(error).__name__), when=None) from None
        if outcome.state == EventState.WAITING:
            raise Retry(exc=Waiting(outcome.error or "Waiting"), when=_whole(outcome.wait))
        if outcome.state in (DAMAGED, EventState.DEAD):
            raise NotDelivered(f"{outcome.state}: {outcome.error}") from None
        return outcome.state


def _shown(outcome: Outcome) -> str:
    """How a message's state shows as the state of its task."""
    if outcome.state in WAITING or outcome.state == State.UNKNOWN:
        label = outcome.error or outcome.state
        # Nothing is sent when the wait of an unknown message is over.
        wait = None if outcome.state == State.UNKNOWN else outcome.wait
        raise Retry(exc=Waiting(label), when=_whole(wait)) from None
    if outcome.state in ENDED_WELL:
        return outcome.state
    if outcome.state in ENDED_BADLY or outcome.state == DAMAGED:
        raise NotDelivered(": ".join(filter(None, (outcome.state, outcome.error)))) from None
    raise Ignore  # another worker has it, or it is forgotten


def _whole(seconds: float | None) -> Any:
    """For display only: the ledger knows the time."""
    return None if seconds is None else int(seconds + 0.5)
