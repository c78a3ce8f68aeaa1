"""The options of a message that came from another machine."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from smsqueue.message.messages import OutgoingMessage, OutgoingMessageOptions
from smsqueue.providers.forward.fields import named, text

__all__ = ["set_options"]


def set_options(message: OutgoingMessage, given: dict[str, Any], allowed: tuple[str, ...]) -> None:
    """Set those options of a message that are allowed; ValueError if one cannot be used."""
    flags = {n for n in allowed if isinstance(getattr(OutgoingMessageOptions, n), bool)}
    options = {name: given[name] for name in allowed if name in given}
    if any(not isinstance(options[name], bool) for name in flags & options.keys()):
        raise ValueError("an option is neither true nor false")
    named(options.get("senderId"), "senderId")
    if given.get("send_at") is not None:
        options["send_at"] = datetime.fromisoformat(text(given["send_at"], "send_at"))
    try:
        message.options(**options)
    except TypeError as error:
        raise ValueError(str(error)) from None
