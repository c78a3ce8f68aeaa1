"""The tasks: a trigger comes in, the engine does the work, Celery shows how it ended.

Nothing is retried here: waits live in the ledger. Exceptions only make Celery's monitors, such
as Flower, show one row per message with its state; they carry classes, never texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smsqueue.broker.queue import DELIVER, DELIVER_MANY, HOOK, HOOK_MANY
from smsqueue.delivery.intake import Kind
from workers.shown import NotDelivered

if TYPE_CHECKING:
    from workers.engine import Engine

__all__ = ["register"]


def register(app: Any) -> None:
    """Add the tasks to an application whose ``smsqueue_engine`` its worker sets."""

    def engine() -> Engine:
        return app.smsqueue_engine  # type: ignore[no-any-return]

    @app.task(name=DELIVER, throws=(NotDelivered,))  # type: ignore[untyped-decorator]
    def deliver(id: str) -> str:
        return engine().do(DELIVER, id)

    @app.task(name=HOOK, throws=(NotDelivered,))  # type: ignore[untyped-decorator]
    def hook(event: str) -> str:
        return engine().do(HOOK, event)

    # Later versions may say more of a batch.

    @app.task(name=DELIVER_MANY)  # type: ignore[untyped-decorator]
    def deliver_many(ids: list[str], *, bulk: bool, routed: bool = False, **more: Any) -> str:
        engine().messages.add(ids, Kind(bulk, routed))
        return f"{len(ids)} messages"

    @app.task(name=HOOK_MANY)  # type: ignore[untyped-decorator]
    def hook_many(events: list[str], *, bulk: bool, **more: Any) -> str:
        engine().events.add(events, Kind(bulk))
        return f"{len(events)} events"
