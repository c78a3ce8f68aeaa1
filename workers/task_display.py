"""The result of a task as Celery's monitors, such as Flower, show it.

It contains states, error classes and codes, but no number, text or secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from celery.exceptions import Ignore, Retry

from smsqueue.broker.queue import HOOK
from smsqueue.delivery import TriggerResult
from smsqueue.message.states import DAMAGED, ENDED_BADLY, ENDED_WELL, WAITING, EventState, State

__all__ = ["NotDelivered", "TaskResult", "Waiting", "task_result"]


class NotDelivered(Exception):
    """The message failed, expired, was cancelled, or was reported as undelivered."""


class Waiting(Exception):
    """The message waits for another attempt, or for the result of its last one."""


class _WaitingRetry(Retry):
    """Monitors show the ``repr`` of a retry: this one is the reason alone."""

    def __repr__(self) -> str:
        return repr(self.exc)


@dataclass(frozen=True)
class TaskResult:
    """How a task ends in Celery.

    Args:
        state: Celery's state. With IGNORED nothing is shown.
        text: For SUCCESS the state of the message or event, for RETRY and FAILURE the reason.
        wait_seconds: For RETRY, seconds until the next attempt, if there is one.
    """

    state: Literal["SUCCESS", "RETRY", "FAILURE", "IGNORED"]
    text: str = ""
    wait_seconds: float | None = None

    @property
    def rounded_wait(self) -> int | None:
        """``wait_seconds`` as a whole number. For display only: the ledger knows the time."""
        return None if self.wait_seconds is None else int(self.wait_seconds + 0.5)

    @property
    def error(self) -> Exception | None:
        """What the task raises unless it succeeds; monitors show its ``repr``."""
        match self.state:
            case "SUCCESS":
                return None
            case "RETRY":
                when: Any = self.rounded_wait
                return _WaitingRetry(exc=Waiting(self.text), when=when)
            case "FAILURE":
                return NotDelivered(self.text)
            case "IGNORED":
                return Ignore()

    def end_task(self) -> str:
        """End the running task: raise ``error``, or return its result."""
        if error := self.error:
            raise error from None
        return self.text


def task_result(task: str, trigger_result: TriggerResult) -> TaskResult:
    """The result of a task whose trigger ended like this.

    Args:
        task: The name of the task, ``DELIVER`` or ``HOOK``.
    """
    return _event_result(trigger_result) if task == HOOK else _message_result(trigger_result)


def _message_result(trigger_result: TriggerResult) -> TaskResult:
    state, error = str(trigger_result.state), trigger_result.error
    if state == State.UNKNOWN:  # without a wait: nothing is sent when it ends
        return TaskResult("RETRY", error or state)
    if state in WAITING:
        return TaskResult("RETRY", error or state, trigger_result.wait)
    if state in ENDED_WELL:
        return TaskResult("SUCCESS", state)
    if state in ENDED_BADLY or state == DAMAGED:
        return TaskResult("FAILURE", _joined(state, error))
    return TaskResult("IGNORED")  # another worker has it, or its record is gone


def _event_result(trigger_result: TriggerResult) -> TaskResult:
    state, error = str(trigger_result.state), trigger_result.error
    if state == EventState.WAITING:
        return TaskResult("RETRY", error or "Waiting", trigger_result.wait)
    if state in (DAMAGED, EventState.DEAD):
        return TaskResult("FAILURE", _joined(state, error))
    return TaskResult("SUCCESS", state)


def _joined(state: str, error: str | None) -> str:
    return f"{state}: {error}" if error else state
