"""Loggers that never raise, the log line of a transition, and the format of lines: text or JSON."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from datetime import datetime
from typing import Any, NoReturn

__all__ = [
    "FORMATS",
    "JsonFormatter",
    "SafeLogger",
    "TextFormatter",
    "end_process",
    "get_logger",
    "log_json",
    "transition",
]

#: Values of SMSQUEUE_LOG.
FORMATS = ("text", "json")

#: Attributes of each record, and Celery's copy of a task. All others are fields of a line.
_NO_FIELDS = {*vars(logging.makeLogRecord({})), "message", "asctime", "data"}


class SafeLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose calls raise no Exception.

    The application's filters and handlers may raise. That must not stop the caller: a message that
    was sent would not be recorded as sent.
    """

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        with suppress(Exception):
            # Log the line of the caller, not this one.
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
            self.logger.log(level, msg, *args, **kwargs)

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs


def get_logger(name: str) -> SafeLogger:
    """The logger of a name, which never raises; for all log lines of this package."""
    return SafeLogger(logging.getLogger(name))


def transition(
    log: SafeLogger,
    id: str | None,
    state: str | None,
    *,
    provider: str | None = None,
    attempt: int | None = None,
    error: str | None = None,
    code: str | None = None,
    why: str = "",
    level: int = logging.INFO,
) -> None:
    """Log that a message or event entered a state, with its fields in ``extra``.

    Args:
        attempt: Number of the attempt, from 1.
        error: Class of the error that caused it.
        code: The provider's code of that error.
        why: Further explanation, without numbers and texts of messages.
    """
    if log.isEnabledFor(level):
        extra = {
            "id": id,
            "state": str(state),
            "provider": provider,
            "attempt": attempt,
            "error": error,
            "code": code,
        }
        words = [f"at {provider}" if provider else "", error or "", why]
        rest = ", ".join(filter(None, words))
        rest = f" ({rest})" if rest else ""
        log.log(level, "%s: %s%s", id, state, rest, extra=extra, stacklevel=2)


class TextFormatter(logging.Formatter):
    """Lines of text; times have milliseconds and a zone."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """The time in ISO 8601."""
        return _time_of(record)


class JsonFormatter(logging.Formatter):
    """One JSON object for each line: time, level, logger, message, and the fields in ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": _time_of(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = {
            name: value
            for name, value in vars(record).items()
            if name not in _NO_FIELDS and name not in line and value is not None
        }
        if record.exc_info and record.exc_info[0]:
            fields["exception"] = self.formatException(record.exc_info)
        try:
            return json.dumps(line | fields, default=str)
        except (TypeError, ValueError):  # keys of other types, or a circle
            return json.dumps(line)


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


def log_json() -> None:
    """Write all log lines of this process as JSON to standard error, unless it has handlers."""
    root = logging.getLogger()
    if root.hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    root.addHandler(handler)
    logging.captureWarnings(True)


def end_process(text: str, *, as_json: bool, code: int = 1) -> NoReturn:
    """End this process, which cannot start: one line on standard error says why."""
    if as_json:
        record = logging.makeLogRecord(
            {"name": "smsqueue", "levelname": "CRITICAL", "levelno": 50, "msg": text}
        )
        line = JsonFormatter().format(record)
    else:
        line = f"smsqueue: {text}"
    print(line, file=sys.__stderr__, flush=True)
    raise SystemExit(code)
