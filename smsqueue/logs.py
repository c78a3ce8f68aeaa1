"""One line per transition, with its fields in ``extra`` for whoever logs JSON."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

__all__ = ["safely", "transition"]


def safely(log: logging.Logger, level: int, text: str, *args: Any, extra: dict[str, Any]) -> None:
    """Log what has happened already: an error of the application's log handlers changes nothing."""
    with suppress(Exception):
        log.log(level, text, *args, extra=extra, stacklevel=2)


def transition(
    log: logging.Logger,
    id: str | None,
    state: str | None,
    *,
    provider: str | None = None,
    error: str | None = None,
    why: str = "",
    level: int = logging.INFO,
) -> None:
    """Log that a message or event came into a state.

    Args:
        error: Class of the error that led there.
        why: More words for people; never a number or a text.
    """
    if log.isEnabledFor(level):
        extra = {"id": id, "state": str(state), "provider": provider, "error_class": error}
        words = [f"at {provider}" if provider else "", error or "", why]
        rest = ", ".join(filter(None, words))
        rest = f" ({rest})" if rest else ""
        safely(log, level, "%s: %s%s", id, state, rest, extra=extra)
