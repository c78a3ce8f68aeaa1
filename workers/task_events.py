"""Celery events for messages that have no task of their own, so that Flower shows them.

The messages of a batch share one task, and the task of a message that was handed over ends before
the message does. Their events use the message id as task id and have the same fields as Celery's
events of a single message. They are for display only. Dropping them is harmless, because the
ledger knows what happened.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from celery import Celery
from celery.events.event import get_exchange
from celery.utils.time import utcoffset

from smsqueue.delivery import TriggerResult
from smsqueue.logs import get_logger
from smsqueue.message.states import WAITING, EventState, State
from workers.task_display import TaskResult, task_result

__all__ = ["TaskEvents"]

log = get_logger("smsqueue.worker")

#: Most events that wait to be sent; beyond that the oldest are dropped.
_MOST = 10_000
#: Events in one publish.
_GROUP = 64
#: Seconds that an event waits for others. It must not arrive before Celery's ``task-started``,
#: which the worker's main loop sends: the monitor would go from RETRY back to STARTED.
_DELAY = 0.25
#: Seconds between two attempts to reach Redis.
_PAUSE = 1.0
#: Seconds between two log lines about dropped events.
_LOG_INTERVAL = 60.0
#: Longest duration of ``close``, in seconds.
_CLOSING = 5.0
#: Timeouts of the connection, in seconds: events do not wait for an outage to end.
_TRANSPORT = {"socket_timeout": 2.0, "socket_connect_timeout": 1.0}

_TYPES = {"SUCCESS": "task-succeeded", "RETRY": "task-retried", "FAILURE": "task-failed"}


@dataclass(frozen=True, slots=True)
class _TaskEvent:
    """The end of one message or event."""

    task: str
    id: str
    result: TaskResult
    started: bool
    retries: int
    runtime: float | None
    #: When it was added: seconds since the epoch, and monotonic.
    timestamp: float
    added_at: float

    def fields(self) -> dict[str, Any]:
        """The fields of the Celery event."""
        fields: dict[str, Any] = {
            "type": _TYPES[self.result.state],
            "uuid": self.id,
            "name": self.task,
            "args": repr((self.id,)),
            "kwargs": "{}",
            "root_id": self.id,
            "timestamp": self.timestamp,
        }
        if not self.started:
            # A monitor reads these fields from any event of a task, so one event is enough.
            began = self.timestamp - (self.runtime or 0.0)
            fields |= {"received": began, "started": began, "retries": self.retries}
        result = self.result
        if result.state == "RETRY" or result.state == "FAILURE":
            exception, last_line = _formatted(result.state, result.text, result.rounded_wait)
            return fields | {"exception": exception, "traceback": last_line}
        return fields | {"result": repr(result.text), "runtime": self.runtime}


@lru_cache(maxsize=1024)
def _formatted(
    state: Literal["RETRY", "FAILURE"], text: str, wait_seconds: int | None
) -> tuple[str, str]:
    """The ``repr`` of the exception, and the last line of its traceback."""
    error = TaskResult(state, text, wait_seconds).error
    return repr(error), "".join(traceback.format_exception_only(error))


class TaskEvents:
    """Sends the events in groups, from a thread with a connection of its own.

    It sends nothing while ``worker_send_task_events`` is off.

    Args:
        app: The worker's Celery application.
        hostname: The worker's name, as in its other events.
    """

    def __init__(self, app: Celery, hostname: str) -> None:
        self._app: Any = app
        self._hostname = hostname
        self._lock = threading.Lock()
        self._waiting: deque[_TaskEvent] = deque()
        self._dropped = 0
        self._logged = -_LOG_INTERVAL
        self._away = False
        self._added, self._closing = threading.Event(), threading.Event()
        self._connection: Any = None
        self._producer: Any = None
        self._thread = threading.Thread(target=self._run, name="smsqueue-task-events", daemon=True)
        self._thread.start()

    def add(
        self,
        task: str,
        id: str,
        trigger_result: TriggerResult,
        *,
        started: bool,
        has_row: bool = False,
        retries: int = 0,
        runtime: float | None = None,
    ) -> None:
        """Show how a message or an event ended.

        Nothing is shown for a message of a batch that succeeded at its first attempt, or that was
        not attempted yet. Returns at once and never raises, from any thread.

        Args:
            task: The task that it would have had: ``DELIVER`` or ``HOOK``.
            started: Celery has sent ``task-started`` for it, because it had a task of its own.
            has_row: A monitor may show it already, for example because a trigger of its own was
                published before. Then a success is shown, too.
            retries: Number of earlier attempts. If there were any, a monitor shows it already.
            runtime: Seconds since it was claimed, if known.
        """
        try:
            result = task_result(task, trigger_result)
            has_row = has_row or started or retries > 0
            if result.state == "IGNORED" or (result.state == "SUCCESS" and not has_row):
                return
            if (
                result.state == "RETRY"
                and not started
                and _was_not_attempted(trigger_result, has_row)
            ):
                return
            if self._closing.is_set() or not self._app.conf.worker_send_task_events:
                return
            now = time.time(), time.monotonic()
            event = _TaskEvent(task, id, result, started, retries, runtime, *now)
            with self._lock:
                self._waiting.append(event)
                if len(self._waiting) > _MOST:
                    self._waiting.popleft()
                    self._dropped += 1
            self._added.set()
        except Exception as error:
            name = type(error).__name__
            extra = {"id": id, "error": name}
            log.error("%s is not shown in Flower: %s", id, name, extra=extra)

    def close(self) -> None:
        """Send what is left and close the connection, within a few seconds."""
        self._closing.set()
        self._added.set()
        self._thread.join(_CLOSING)

    def _run(self) -> None:
        while True:
            closing = self._closing.is_set()  # before it looks: what was added earlier is sent
            while self._waiting:
                self._closing.wait(_DELAY)
                try:
                    self._send_due()
                except Exception as error:  # no event may end the thread
                    self._give_up(error)
            self._log_dropped(at_once=closing)
            if closing:
                return self._disconnect()
            self._added.wait(_LOG_INTERVAL if self._dropped else None)
            self._added.clear()

    def _send_due(self) -> None:
        """Send events that have waited long enough, or all of them when the worker stops."""
        until = time.monotonic() - (0.0 if self._closing.is_set() else _DELAY)
        while group := self._take(until):
            self._publish(group)
            self._away = False
            self._log_dropped()

    def _take(self, until: float) -> list[_TaskEvent]:
        with self._lock:
            events: list[_TaskEvent] = []
            while self._waiting and self._waiting[0].added_at <= until and len(events) < _GROUP:
                events.append(self._waiting.popleft())
            return events

    def _publish(self, events: list[_TaskEvent]) -> None:
        producer = self._producer or self._connect()
        sender = {"hostname": self._hostname, "pid": os.getpid(), "utcoffset": utcoffset()}
        clock = self._app.clock.forward
        # Celery's dispatcher uses the same routing key for a list of events.
        producer.publish(
            [event.fields() | sender | {"clock": clock()} for event in events],
            routing_key="task.multi",
            headers={"hostname": self._hostname},
            delivery_mode=1,
            retry=False,
        )

    def _connect(self) -> Any:
        connection = self._connection = self._app.connection_for_write()
        connection.transport_options = connection.transport_options | _TRANSPORT
        connection.ensure_connection(max_retries=0)
        conf = self._app.conf
        self._producer = connection.Producer(
            connection.channel(),
            exchange=get_exchange(connection, name=conf.event_exchange),
            serializer=conf.event_serializer,
        )
        return self._producer

    def _disconnect(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            try:
                connection.close()
            except Exception as error:
                log.debug("closing the connection for events: %s", type(error).__name__)

    def _give_up(self, error: Exception) -> None:
        """Drop what waits: a late RETRY would replace a SUCCESS that another worker reports."""
        self._disconnect()
        with self._lock:
            self._waiting.clear()
        if not self._away:
            name = type(error).__name__
            text = "events for Flower are not sent until Redis answers (%s): they are dropped"
            log.warning(text, name, extra={"error": name})
        self._away = True
        self._closing.wait(_PAUSE)

    def _log_dropped(self, at_once: bool = False) -> None:
        """Log dropped events, at most once a minute."""
        now = time.monotonic()
        if not self._dropped or (now - self._logged < _LOG_INTERVAL and not at_once):
            return
        with self._lock:
            dropped, self._dropped, self._logged = self._dropped, 0, now
        text = "%d events for Flower were dropped: %d wait to be sent at most"
        log.warning(text, dropped, _MOST, extra={"dropped": dropped})


def _was_not_attempted(trigger_result: TriggerResult, has_row: bool) -> bool:
    """It was too early, another worker has it, or no provider had a slot."""
    if trigger_result.state in (State.QUEUED, State.SCHEDULED) and not has_row:
        return True
    waits = trigger_result.state in WAITING or trigger_result.state == EventState.WAITING
    return waits and trigger_result.error is None
