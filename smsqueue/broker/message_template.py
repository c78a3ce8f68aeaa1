"""A template of a trigger's Celery message, recorded once and filled in for each id.

Celery and kombu take most of a millisecond to create a task's message and its task-sent event, of
which nearly everything is the same each time. So they create one of each, which is taken before it
is sent to Redis. Every other message differs from it in id, number of attempts, time and tag. The
template cannot contain headers of a single publish, such as the context of a trace: while a handler
is connected to Celery's publishing signals, the queue publishes through Celery.
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

__all__ = ["MessageTemplate", "record"]

#: Placeholders for an id and its attempts, which occur nowhere else in a message.
_ID, _RETRIES, _TIME = "0recorded0recorded00", "907142903", 907142904
_BODY, _TAG = "0body0body0body", "0tag0tag0tag0tag"


class _Recorded(Exception):
    """Leaves a kombu batch without sending it."""


class MessageTemplate:
    """The Redis commands that publish one trigger.

    Args:
        commands: The recorded commands: name, key or channel, payload.
    """

    def __init__(self, commands: list[tuple[str, str, str]]) -> None:
        self._parts = [(name, where, *_as_template(payload)) for name, where, payload in commands]

    def commands(self, triggers: Iterable[tuple[str, int]]) -> Iterator[tuple[str, ...]]:
        """The commands that publish triggers (id, attempts so far): one LPUSH for all of them, and
        one PUBLISH of a task-sent event for each."""
        batch = list(triggers)
        for name, where, outer, body in self._parts:
            payloads = [_filled(outer, body, id, retries) for id, retries in batch]
            if name == "LPUSH":
                yield name, where, *payloads
            else:
                yield from ((name, where, payload) for payload in payloads)


def record(app: Celery, task: str, queue: str) -> MessageTemplate:
    """Let Celery create a trigger, and record its commands instead of sending them.

    The message has the headers that Celery gives to every task and no others. ``send_task`` is not
    used: it would call the handlers of ``before_task_publish``, whose headers belong to one
    publish, and it would make the trigger a child of the task that runs in this thread.

    Raises:
        LookupError: This version of kombu works in another way; publish through it instead.
        OSError, KombuError: As when publishing.
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
            raise _Recorded
    except _Recorded:
        pass
    except (AttributeError, TypeError) as error:
        raise LookupError("this version of kombu creates tasks in another way") from error
    if [name for name, *_ in commands] not in (["LPUSH"], ["LPUSH", "PUBLISH"]):
        raise LookupError("this version of kombu publishes in another way")
    return MessageTemplate(commands)


def _as_template(payload: str) -> tuple[str, str]:
    """A kombu message and its body, as JSON with placeholders."""
    outer = json.loads(payload)
    body = json.loads(base64.b64decode(outer["body"]))
    outer["body"], outer["properties"]["delivery_tag"] = _BODY, _TAG
    if isinstance(body, dict):  # an event
        body["timestamp"] = _TIME
    return json.dumps(outer), json.dumps(body)


def _filled(outer: str, body: str, id: str, retries: int) -> str:
    body = body.replace(_ID, id).replace(_RETRIES, str(retries))
    body = body.replace(str(_TIME), repr(time.time()))
    return (
        outer.replace(_ID, id)
        .replace(_RETRIES, str(retries))
        .replace(_TAG, f"{id}-{secrets.token_hex(6)}")
        .replace(_BODY, base64.b64encode(body.encode()).decode())
    )
