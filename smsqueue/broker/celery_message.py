"""Triggers in the form that Celery gives them: recorded once, then filled in for each id.

Celery and kombu take most of a millisecond to make a task's message and its task-sent event, and
nearly all of both is the same each time. So one of each is made by them, and taken before it
goes to Redis; the thousandth differs from it in id, number of attempts, time and tag. What is
different each time, such as the context of a trace, has no place in it: the queue publishes
through Celery while somebody listens to its signals.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Envelope", "record"]

#: Stand for an id and its attempts; nothing else in a message looks like them.
_ID, _RETRIES, _TIME = "0recorded0recorded00", "907142903", 907142904
_BODY, _TAG = "0body0body0body", "0tag0tag0tag0tag"


class _Taken(Exception):
    """Leaves a batch without sending it."""


class Envelope:
    """The commands of Redis that publish one trigger.

    Args:
        commands: As they were recorded: name, key or channel, payload.
    """

    def __init__(self, commands: list[tuple[str, str, str]]) -> None:
        self._parts = [(name, where, *_opened(payload)) for name, where, payload in commands]

    def filled(self, triggers: Iterable[tuple[str, int]]) -> Iterator[tuple[str, ...]]:
        """The commands for triggers (id, attempts so far): one that fills the queue, and one event
        for each."""
        batch = list(triggers)
        for name, where, outside, inside in self._parts:
            payloads = [_closed(outside, inside, id, retries) for id, retries in batch]
            if name == "LPUSH":
                yield name, where, *payloads
            else:
                yield from ((name, where, payload) for payload in payloads)


def record(app: Celery, task: str, queue: str) -> Envelope:
    """Have a trigger made, and take it.

    It has the headers that Celery gives to every task and no others. ``send_task`` is not asked:
    it would call the handlers of ``before_task_publish``, whose headers belong to one publish,
    and the trigger would be the child of a task that happens to run in this thread.

    Raises:
        LookupError: kombu does not do it in the way that is known here; publish through it then.
        OSError, KombuError: as publishing.
    """
    commands: list[tuple[str, str, str]] = []
    amqp: Any = app.amqp
    try:
        target = amqp.queues[queue]
        headers, properties, body, event = amqp.as_task_v2(
            _ID,
            task,
            args=(_ID,),
            retries=int(_RETRIES),
            root_id=_ID,
            ignore_result=None,
            create_sent_event=app.conf.task_send_sent_event,
        )
        with app.producer_or_acquire() as producer, producer.batch(8) as batch:
            producer.publish(
                body,
                exchange="",
                routing_key=queue,
                serializer="json",
                headers=headers,
                declare=[target],
                retry=False,
                delivery_mode=target.exchange.delivery_mode or app.conf.task_default_delivery_mode,
                **properties,
            )
            if event:
                event |= {"queue": queue, "exchange": "", "routing_key": queue}
                dispatcher: Any = app.events.Dispatcher(enabled=False)
                dispatcher.publish("task-sent", event, producer, retry=False)
            commands += [command for command, _ in batch.state.session.pipeline.command_stack]
            raise _Taken
    except _Taken:
        pass
    except (AttributeError, TypeError) as error:
        raise LookupError("this version of kombu makes tasks in another way") from error
    if [name for name, *_ in commands] not in (["LPUSH"], ["LPUSH", "PUBLISH"]):
        raise LookupError("this version of kombu publishes in another way")
    return Envelope(commands)


def _opened(payload: str) -> tuple[str, str]:
    """A payload and the body that belongs into it, as texts with placeholders."""
    outside = json.loads(payload)
    inside = json.loads(base64.b64decode(outside["body"]))
    outside["body"], outside["properties"]["delivery_tag"] = _BODY, _TAG
    if isinstance(inside, dict):  # an event
        inside["timestamp"] = _TIME
    return json.dumps(outside), json.dumps(inside)


def _closed(outside: str, inside: str, id: str, retries: int) -> str:
    body = inside.replace(_ID, id).replace(_RETRIES, str(retries))
    body = body.replace(str(_TIME), repr(time.time()))
    return (
        outside.replace(_ID, id)
        .replace(_RETRIES, str(retries))
        .replace(_TAG, f"{id}-{secrets.token_hex(6)}")
        .replace(_BODY, base64.b64encode(body.encode()).decode())
    )
