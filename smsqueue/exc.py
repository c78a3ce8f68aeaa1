"""The errors of smsqueue: the nine classes of smsframework's manual, and those of the queue."""

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
    "OptedOut",
    "ProviderError",
    "QueueUnavailable",
    "Refused",
    "RequestError",
    "ServerError",
    "UnsupportedError",
]


class ProviderError(RuntimeError):
    """Generic provider error.

    Its facts are keyword arguments and attributes. Facts without an argument keep their class-level
    default, so that a subclass may set them before calling ``super().__init__``.
    """

    #: The provider's own error code, as the provider wrote it.
    code: str | int | None = None
    #: Name under which the provider was added to the gateway.
    provider: str | None = None
    #: HTTP status of the provider's answer, if there was one.
    http_status: int | None = None
    #: Seconds after which the provider wants to be called again.
    retry_after: float | None = None
    #: True: the provider may have accepted the message, so it is not resent.
    ambiguous: bool = False

    def __init__(self, *args: object, **facts: Any) -> None:
        super().__init__(*args)
        for name, value in facts.items():
            if name not in ("code", "provider", "http_status", "retry_after", "ambiguous"):
                raise TypeError(f"{type(self).__name__} has no fact named {name!r}")
            setattr(self, name, value)


class ConnectionError(ProviderError):
    """The connection failed; ``ambiguous=True``: after the request had been written."""


class MessageSendError(ProviderError):
    """Base of the errors that the provider reported."""


class RequestError(MessageSendError):
    """The message is invalid: sending it again would fail again."""

    #: Set by ``send_many``: the message's index in the list, and its masked number.
    index: int | None = None
    destination: str = ""


class Refused(RequestError):
    """The application's own rules refuse the message; no provider was called."""


class OptedOut(Refused):
    """The recipient wants no messages, by our own list or by the provider's."""


class UnsupportedError(MessageSendError):
    """The provider cannot do what the message asks for."""


class ServerError(MessageSendError):
    """The provider is unavailable or has an internal error."""


class AuthError(MessageSendError):
    """The provider refused the credentials."""


class LimitsError(MessageSendError):
    """The provider's rate limit is exceeded."""


class CreditError(MessageSendError):
    """The account has not enough credit."""


class QueueUnavailable(ConnectionError):
    """Redis did not confirm the message: it may have been accepted or not.

    Sending the *same object*, or the same idempotency key, again is safe: it is sent once.
    """

    #: Set by ``send``, not by ``send_many``: the message was not accepted, because Redis was not
    #: reached or refused it. False: that is not known.
    refused: bool = False
    #: Of a webhook: why Redis has no room for it, without secrets; "": another cause.
    no_room: str = ""
    #: Set by ``send_many``: the messages that Redis confirmed.
    accepted: Sequence[Any] = ()


class LedgerError(QueueUnavailable):
    """Redis answered with an error that repeating the command would not change."""


class DamagedRecord(LedgerError):
    """A record in the ledger is damaged: no version of smsqueue writes it like this.

    Args:
        cause: What is wrong with it, without any of its values.
        id: Id of the message or event.
        mendable: False: it cannot be repaired, only removed.
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

    #: Set by ``send_many``: the messages that Redis confirmed.
    accepted: Sequence[Any] = ()
