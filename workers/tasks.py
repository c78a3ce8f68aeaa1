"""The tasks: a trigger comes in, the floor below does the work, Celery shows how it ended.

Nothing is retried here: waits live in the ledger. Exceptions only make Celery's monitors, such
as Flower, show one row per message with its state; they carry classes, never texts.
"""

from __future__ import annotations

from typing import Any

from smsqueue import exc
from smsqueue.queue import DELIVER, HOOK
from workers.shown import NotDelivered, Shown, shown

__all__ = ["register"]

#: Group of slots that hooks share.
_HOOKS = "(hooks)"


def register(app: Any) -> None:
    """Add the tasks to an application whose ``smsqueue_...`` attributes its worker sets."""

    @app.task(name=DELIVER, throws=(NotDelivered,))  # type: ignore[untyped-decorator]
    def deliver(id: str) -> str:
        try:
            outcome = app.smsqueue_delivery.deliver(id)
        except exc.QueueUnavailable as error:
            # The claim was not confirmed, nothing was sent: upkeep finds it.
            return Shown("RETRY", type(error).__name__).end_task()
        return shown(DELIVER, outcome).end_task()

    @app.task(name=HOOK, throws=(NotDelivered,))  # type: ignore[untyped-decorator]
    def hook(event: str) -> str:
        with app.smsqueue_slots.held(_HOOKS) as busy:
            if busy:
                app.smsqueue_hooks.later(event, busy)
                return Shown("RETRY", "WorkerBusy", busy + 1).end_task()
            try:
                outcome = app.smsqueue_hooks.run(event)
            except exc.QueueUnavailable as error:
                return Shown("RETRY", type(error).__name__).end_task()
        return shown(HOOK, outcome).end_task()
