"""Celery events for what ended without a task of its own, so that monitors such as Flower show it.

Messages of a batch have no task each, and the task of a message that was handed over ends before
the message does. Their events have the id of the message as the id of a task, and the fields that
Celery's own events of a single message would have. They are for display only: the ledger knows
what happened, so that events may be dropped.
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

from smsqueue.delivery import Outcome
from smsqueue.logs import get_logger
from smsqueue.message.states import WAITING, EventState, State
from workers.shown import Shown, shown

__all__ = ["Rows"]

log = get_logger("smsqueue.worker")

#: Events that wait to be sent at most; the oldest are dropped.
_MOST = 10_000
#: Events in one publish.
_GROUP = 64
#: Seconds that an event waits for others. It must not arrive before Celery's own event that the
#: task was started, which the main loop of the worker sends: RETRY would become STARTED again.
_DELAY = 0.25
#: Seconds until Redis is tried again after it was away.
_PAUSE = 1.0
#: Seconds between two log lines about events that were dropped for want of room.
_LOG_INTERVAL = 60.0
#: Seconds that ``close`` takes at most.
_CLOSING = 5.0
#: Of the connection. Events have no time to wait for an outage to end.
_TRANSPORT = {"socket_timeout": 2.0, "socket_connect_timeout": 1.0}

_TYPES = {"SUCCESS": "task-succeeded", "RETRY": "task-retried", "FAILURE": "task-failed"}


@dataclass(frozen=True, slots=True)
class _Row:
    """How one message or event ended."""

    task: str
    id: str
    shown: Shown
    started: bool
    retries: int
    runtime: float | None
    #: When it was told: by the clock, and monotonic.
    timestamp: float
    told: float

    def fields(self) -> dict[str, Any]:
        """What its event says of it, as Celery's events of a single message do."""
        fields: dict[str, Any] = {
            "type": _TYPES[self.shown.state],
            "uuid": self.id,
            "name": self.task,
            "args": repr((self.id,)),
            "kwargs": "{}",
            "root_id": self.id,
            "timestamp": self.timestamp,
        }
        if not self.started:
            # A monitor takes these fields from any event of a task: no need of one for each.
            began = self.timestamp - (self.runtime or 0.0)
            fields |= {"received": began, "started": began, "retries": self.retries}
        shown = self.shown
        if shown.state == "RETRY" or shown.state == "FAILURE":
            exception, last_line = _written(shown.state, shown.text, shown.when)
            return fields | {"exception": exception, "traceback": last_line}
        return fields | {"result": repr(shown.text), "runtime": self.runtime}


@lru_cache(maxsize=1024)
def _written(state: Literal["RETRY", "FAILURE"], text: str, when: int | None) -> tuple[str, str]:
    """How monitors show an exception, and the last line of its traceback."""
    error = Shown(state, text, when).error
    return repr(error), "".join(traceback.format_exception_only(error))


class Rows:
    """Sends the events of what ended without a task of its own, in groups, from a thread.

    It has a connection of its own. Nothing is sent while ``worker_send_task_events`` is off.

    Args:
        app: The application of the worker.
        hostname: The name of the worker, as its own events have it.
    """

    def __init__(self, app: Celery, hostname: str) -> None:
        self._app: Any = app
        self._hostname = hostname
        self._lock = threading.Lock()
        self._waiting: deque[_Row] = deque()
        self._dropped = 0
        self._logged = -_LOG_INTERVAL
        self._away = False
        self._told, self._closing = threading.Event(), threading.Event()
        self._connection: Any = None
        self._producer: Any = None
        self._thread = threading.Thread(target=self._run, name="smsqueue-rows", daemon=True)
        self._thread.start()

    def tell(
        self,
        task: str,
        id: str,
        outcome: Outcome,
        *,
        started: bool,
        has_row: bool = False,
        retries: int = 0,
        runtime: float | None = None,
    ) -> None:
        """Show how a message or an event ended, unless nothing is to be seen of it: it ended well
        at its first attempt in a batch, or there was no attempt yet.

        Returns at once and never raises, from any thread.

        Args:
            task: The task that it would have had: ``DELIVER`` or ``HOOK``.
            started: Celery has sent an event that its task was started, as of a single message that
                was handed over.
            has_row: It may be shown already for another reason, such as a trigger of its own that
                was published before. A good end is shown then, too.
            retries: Attempts before this one. If there were any, it has a row.
            runtime: Seconds since it was claimed, if known.
        """
        try:
            end = shown(task, outcome)
            has_row = has_row or started or retries > 0
            if end.state == "IGNORED" or (end.state == "SUCCESS" and not has_row):
                return
            if end.state == "RETRY" and not started and _untried(outcome, has_row):
                return
            if self._closing.is_set() or not self._app.conf.worker_send_task_events:
                return
            now = time.time(), time.monotonic()
            row = _Row(task, id, end, started, retries, runtime, *now)
            with self._lock:
                self._waiting.append(row)
                if len(self._waiting) > _MOST:
                    self._waiting.popleft()
                    self._dropped += 1
            self._told.set()
        except Exception as error:
            name = type(error).__name__
            extra = {"id": id, "error_class": name}
            log.error("%s is not shown in Flower: %s", id, name, extra=extra)

    def close(self) -> None:
        """Send what is left, and close the connection; bounded in time."""
        self._closing.set()
        self._told.set()
        self._thread.join(_CLOSING)

    def _run(self) -> None:
        while True:
            closing = self._closing.is_set()  # what was told before is in the queue
            while self._waiting:
                self._closing.wait(_DELAY)
                try:
                    self._send_due()
                except Exception as error:  # nothing that is shown may end the showing
                    self._give_up(error)
            self._log_dropped(at_once=closing)
            if closing:
                return self._disconnect()
            self._told.wait(_LOG_INTERVAL if self._dropped else None)
            self._told.clear()

    def _send_due(self) -> None:
        """Send all that has waited long enough; all, when the worker stops."""
        until = time.monotonic() - (0.0 if self._closing.is_set() else _DELAY)
        while group := self._take(until):
            self._publish(group)
            self._away = False
            self._log_dropped()

    def _take(self, until: float) -> list[_Row]:
        with self._lock:
            rows: list[_Row] = []
            while self._waiting and self._waiting[0].told <= until and len(rows) < _GROUP:
                rows.append(self._waiting.popleft())
            return rows

    def _publish(self, rows: list[_Row]) -> None:
        producer = self._producer or self._connect()
        sender = {"hostname": self._hostname, "pid": os.getpid(), "utcoffset": utcoffset()}
        clock = self._app.clock.forward
        # Celery's own dispatcher sends a list under this key, too.
        producer.publish(
            [row.fields() | sender | {"clock": clock()} for row in rows],
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
        """Drop what waits: a late RETRY would replace the SUCCESS that another worker tells."""
        self._disconnect()
        with self._lock:
            self._waiting.clear()
        if not self._away:
            name = type(error).__name__
            text = "events for Flower are not sent until Redis answers (%s): they are dropped"
            log.warning(text, name, extra={"error_class": name})
        self._away = True
        self._closing.wait(_PAUSE)

    def _log_dropped(self, at_once: bool = False) -> None:
        """At most once in a minute, unless it is the last time."""
        now = time.monotonic()
        if not self._dropped or (now - self._logged < _LOG_INTERVAL and not at_once):
            return
        with self._lock:
            dropped, self._dropped, self._logged = self._dropped, 0, now
        text = "%d events for Flower were dropped: %d wait to be sent at most"
        log.warning(text, dropped, _MOST, extra={"dropped": dropped})


def _untried(outcome: Outcome, has_row: bool) -> bool:
    """Was nothing tried: it was too early, somebody else has it, or no provider was free?"""
    if outcome.state in (State.QUEUED, State.SCHEDULED) and not has_row:
        return True
    waits = outcome.state in WAITING or outcome.state == EventState.WAITING
    return waits and outcome.error is None
