"""One line per transition, with its fields in ``extra`` for whoever logs JSON."""

from __future__ import annotations

import logging

__all__ = ["transition"]


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
        log.log(level, "%s: %s%s", id, state, f" ({rest})" if rest else "", extra=extra)
