"""The Celery tasks. Each hands a trigger to the engine and returns its result.

Celery retries nothing: the ledger has the times of retries. A task raises only so that monitors,
such as Flower, show the state of its message. Exceptions carry error classes, never texts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from smsqueue.broker.queue import DELIVER, DELIVER_MANY, HOOK, HOOK_MANY
from smsqueue.delivery.waiting_ids import Kind
from workers.task_display import NotDelivered

if TYPE_CHECKING:
    from workers.engine import Engine

__all__ = ["register"]


def register(app: Any, engine: Callable[[], Engine]) -> None:
    """Add the tasks to a Celery application.

    Args:
        engine: Returns the engine of the worker that runs them.
    """

    @app.task(name=DELIVER, throws=(NotDelivered,))  # type: ignore[untyped-decorator]
    def deliver(id: str) -> str:
        return engine().run(DELIVER, id)

    @app.task(name=HOOK, throws=(NotDelivered,))  # type: ignore[untyped-decorator]
    def hook(event: str) -> str:
        return engine().run(HOOK, event)

    # ``more``: later versions may add keyword arguments.

    @app.task(name=DELIVER_MANY)  # type: ignore[untyped-decorator]
    def deliver_many(ids: list[str], *, bulk: bool, routed: bool = False, **more: Any) -> str:
        engine().messages.add(ids, Kind(bulk, routed))
        return f"{len(ids)} messages"

    @app.task(name=HOOK_MANY)  # type: ignore[untyped-decorator]
    def hook_many(events: list[str], *, bulk: bool, **more: Any) -> str:
        engine().events.add(events, Kind(bulk))
        return f"{len(events)} events"
