"""Loggers that never raise, and the log line of a transition."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

__all__ = ["SafeLogger", "get_logger", "transition"]


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
    error: str | None = None,
    why: str = "",
    level: int = logging.INFO,
) -> None:
    """Log that a message or event entered a state, with its fields in ``extra``.

    Args:
        error: Class of the error that caused it.
        why: Further explanation, without numbers and texts of messages.
    """
    if log.isEnabledFor(level):
        extra = {"id": id, "state": str(state), "provider": provider, "error_class": error}
        words = [f"at {provider}" if provider else "", error or "", why]
        rest = ", ".join(filter(None, words))
        rest = f" ({rest})" if rest else ""
        log.log(level, "%s: %s%s", id, state, rest, extra=extra, stacklevel=2)
