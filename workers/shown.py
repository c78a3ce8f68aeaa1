"""What Celery's monitors, such as Flower, show of how a message or an event ended.

They get states, classes and codes; never a number, a text or a secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from celery.exceptions import Ignore, Retry

from smsqueue.broker.queue import HOOK
from smsqueue.delivery import Outcome
from smsqueue.message.states import DAMAGED, ENDED_BADLY, ENDED_WELL, WAITING, EventState, State

__all__ = ["NotDelivered", "Shown", "Waiting", "shown"]


class NotDelivered(Exception):
    """The message failed, expired, was cancelled, or was reported as undelivered."""


class Waiting(Exception):
    """The message waits for another attempt, or for news of its last one."""


class _WaitingRetry(Retry):
    """Monitors show the ``repr`` of what is raised: only the reason, without what is around it."""

    def __repr__(self) -> str:
        return repr(self.exc)


@dataclass(frozen=True)
class Shown:
    """The end of a task as Celery knows it.

    Args:
        state: A state of Celery's; IGNORED: nothing is shown.
        text: Of SUCCESS, the result: a state of ours. Of RETRY and FAILURE, the reason.
        wait: Of RETRY, seconds until the next attempt, if there is one.
    """

    state: Literal["SUCCESS", "RETRY", "FAILURE", "IGNORED"]
    text: str = ""
    wait: float | None = None

    @property
    def when(self) -> int | None:
        """``wait`` in whole seconds. For display only: the ledger knows the time."""
        return None if self.wait is None else int(self.wait + 0.5)

    @property
    def error(self) -> Exception | None:
        """What a task raises to be shown in another state than SUCCESS; its ``repr`` is shown."""
        match self.state:
            case "SUCCESS":
                return None
            case "RETRY":
                when: Any = self.when
                return _WaitingRetry(exc=Waiting(self.text), when=when)
            case "FAILURE":
                return NotDelivered(self.text)
            case "IGNORED":
                return Ignore()

    def end_task(self) -> str:
        """End the task that runs in this way: what it returns, if it does not raise ``error``."""
        if error := self.error:
            raise error from None
        return self.text


def shown(task: str, outcome: Outcome) -> Shown:
    """How the outcome of a trigger is shown.

    Args:
        task: The name of the task that the trigger is for, ``DELIVER`` or ``HOOK``.
    """
    return _event(outcome) if task == HOOK else _message(outcome)


def _message(outcome: Outcome) -> Shown:
    state, error = str(outcome.state), outcome.error
    if state == State.UNKNOWN:  # nothing is sent when its wait is over
        return Shown("RETRY", error or state)
    if state in WAITING:
        return Shown("RETRY", error or state, outcome.wait)
    if state in ENDED_WELL:
        return Shown("SUCCESS", state)
    if state in ENDED_BADLY or state == DAMAGED:
        return Shown("FAILURE", _joined(state, error))
    return Shown("IGNORED")  # another worker has it, or it is forgotten


def _event(outcome: Outcome) -> Shown:
    state, error = str(outcome.state), outcome.error
    if state == EventState.WAITING:
        return Shown("RETRY", error or "Waiting", outcome.wait)
    if state in (DAMAGED, EventState.DEAD):
        return Shown("FAILURE", _joined(state, error))
    return Shown("SUCCESS", state)


def _joined(state: str, error: str | None) -> str:
    return f"{state}: {error}" if error else state
