"""The log of a worker: Celery's, without its lines about single tasks, and as JSON if asked for."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from celery import Celery, signals
from celery.apps import worker as celery_worker

from smsqueue.logs import JsonFormatter, log_json

__all__ = ["set_up_logs"]

#: Log "received" and "succeeded" of each task at INFO. Each message has lines of its own.
_PER_TASK = ("celery.app.trace", "celery.worker.strategy")


def set_up_logs(app: Celery, *, as_json: bool) -> None:
    """Set up the log of the worker of an application, before Celery does so.

    Celery replaces the handlers of the root logger, and keeps its own level (``--loglevel``). Its
    lines about tasks appear at the level DEBUG only.
    """

    def configure(instance: Any, **_: Any) -> None:
        if instance.app is not app:
            return
        if not logging.getLogger().isEnabledFor(logging.DEBUG):
            for name in _PER_TASK:
                logging.getLogger(name).setLevel(logging.WARNING)
        if as_json:
            instance.quiet = True  # no banner

    signals.celeryd_after_setup.connect(configure, weak=False)
    if as_json:
        for signal in (signals.after_setup_logger, signals.after_setup_task_logger):
            signal.connect(_use_json, weak=False, dispatch_uid="smsqueue.logs")
        log_json()  # what comes before Celery's own handlers
        printer: Any = celery_worker
        printer.safe_say = _say


def _use_json(logger: logging.Logger, **_: Any) -> None:
    for handler in logger.handlers:
        handler.setFormatter(JsonFormatter())


def _say(text: str, stream: Any = None) -> None:
    """What Celery prints in a signal handler, where a lock of the log may be held."""
    record = logging.makeLogRecord(
        {"name": "celery.worker", "levelname": "INFO", "levelno": logging.INFO, "msg": text}
    )
    line = JsonFormatter().format(record) + "\n"
    out: Any = stream or sys.__stderr__
    try:
        os.write(out.fileno(), line.encode())
    except (AttributeError, OSError, ValueError):
        return  # there is no such stream
