"""Every error that a send can end in.

The nine classes of smsframework's manual, with facts attached, and the three that a queue adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "AuthError",
    "ConnectionError",
    "CreditError",
    "DamagedRecord",
    "IdempotencyConflict",
    "LedgerError",
    "LimitsError",
    "MessageSendError",
    "ProviderError",
    "QueueUnavailable",
    "RequestError",
    "ServerError",
    "UnsupportedError",
]


class ProviderError(RuntimeError):
    """Generic provider error.

    Facts are keyword arguments and attributes; a fact that is not given keeps its class-level
    default, so that a subclass may set its own before calling ``super().__init__``.
    """

    #: The provider's own error code, as the provider wrote it.
    code: str | int | None = None
    #: Name under which the provider was added to the gateway.
    provider: str | None = None
    #: Status of the provider's HTTP answer, if there was one.
    http_status: int | None = None
    #: Seconds after which the provider asked to be called again.
    retry_after: float | None = None
    #: True if the provider may have accepted the message all the same: nothing resends it.
    ambiguous: bool = False

    def __init__(self, *args: object, **facts: Any) -> None:
        super().__init__(*args)
        for name, value in facts.items():
            if name not in ("code", "provider", "http_status", "retry_after", "ambiguous"):
                raise TypeError(f"{type(self).__name__} knows no fact named {name!r}")
            setattr(self, name, value)


class ConnectionError(ProviderError):
    """The connection failed; with ``ambiguous=True`` after the request had been written."""


class MessageSendError(ProviderError):
    """Base of the errors that the provider itself reported."""


class RequestError(MessageSendError):
    """The message is invalid: repeating it would fail again."""

    #: Of ``send_many``: the message's place in the list, from 0, and its number, masked.
    index: int | None = None
    destination: str = ""


class UnsupportedError(MessageSendError):
    """The provider cannot do what the message asks for."""


class ServerError(MessageSendError):
    """The provider failed on its side: unavailable, internal error."""


class AuthError(MessageSendError):
    """The provider refused our credentials."""


class LimitsError(MessageSendError):
    """The provider's sending limits are exceeded (throttled)."""


class CreditError(MessageSendError):
    """Not enough money on the account."""


class QueueUnavailable(ConnectionError):
    """The ledger did not confirm the message: it may be in there or not.

    Sending the *same object*, or the same idempotency key, again is safe: it goes out once.
    """

    #: Of ``send``: this call did not put the message into the ledger, because Redis was not reached
    #: or refused it. False: that is not known. ``send_many`` does not set it.
    refused: bool = False
    #: Of a webhook: why there is no room for it, in words that hold nothing secret; "": it is not
    #: that.
    no_room: str = ""
    #: Of ``send_many``: the messages that were confirmed.
    accepted: Sequence[Any] = ()


class LedgerError(QueueUnavailable):
    """Redis is there, and answered with an error that repeating the command will not change."""


class DamagedRecord(LedgerError):
    """A record in the ledger is not as this package writes it.

    Args:
        cause: What is wrong with it, without any of its values.
        id: Of the message or event.
        mendable: False: ``repair`` met it and can only remove it.
    """

    def __init__(self, cause: str, id: str = "", *, mendable: bool = True) -> None:
        name, command = id or "the record", f"smsqueue repair {id or 'ID'}"
        super().__init__(
            f"{name} is damaged ({cause}): run {command}"
            if mendable
            else f"{name} is damaged and cannot be mended ({cause}): remove it with: "
            f"{command} --remove"
        )
        self.cause, self.mendable = cause, mendable


class IdempotencyConflict(RequestError):
    """The idempotency key was used before, for a message with other content."""

    #: Of ``send_many``: the messages that were confirmed.
    accepted: Sequence[Any] = ()
