"""What a provider reports of a message after it was sent.

The fields are class attributes, because provider plugins override them in subclasses.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from smsqueue.message.masking import shown_id, word
from smsqueue.message.states import State

__all__ = [
    "MessageAccepted",
    "MessageDelivered",
    "MessageError",
    "MessageExpired",
    "MessageStatus",
]


class MessageStatus:
    """The network's word on a sent message.

    Args:
        msgid: The provider's message id, of any type.
        rtime: When it was reported; now (aware, UTC) if not given.
        meta: Anything else that the provider told.
    """

    #: Our id of the message, None if the report matches none that we know.
    id: str | None = None
    #: ``id.attempt`` as the provider gave it back, if it did.
    reference: str | None = None
    #: Is it of one part of a long message? ``msgid`` is then that part's, and ``state`` what became
    #: of the part; ``gateway.lookup(status.id).state`` is the message's.
    of_part: bool = False
    #: The provider's id of this report, if it has one: repetitions of it have the same.
    event_id: str | None = None
    #: The ``context`` option of the message.
    context: dict[str, Any] = {}  # noqa: RUF012  never changed in place
    #: Name of the provider that reported it.
    provider: str | None = None
    #: Accepted by the network? None: not known.
    accepted: bool | None = None
    #: Delivered to the phone? None: not known.
    delivered: bool | None = None
    #: Has the validity run out?
    expired: bool = False
    #: Has it failed? See ``status_code`` and ``status``.
    error: bool = False
    #: The provider's status code.
    status_code: Any = None
    #: The provider's words.
    status: Any = None
    meta: Any = None

    def __init__(self, msgid: Any, rtime: Any = None, meta: dict[str, Any] | None = None) -> None:
        self.msgid = msgid
        self.rtime = rtime or datetime.now(UTC)
        self.meta = meta or {}

    @property
    def states(self) -> set[str]:
        """The fields that hold, out of: accepted, delivered, expired, error."""
        return {n for n in ("accepted", "delivered", "expired", "error") if getattr(self, n)}

    @property
    def state(self) -> State | None:
        """The message state that this report speaks for; None if it speaks for none."""
        if self.delivered:
            return State.DELIVERED
        if self.expired:
            return State.EXPIRED
        if self.error:
            return State.UNDELIVERED
        return State.ACCEPTED if self.accepted else None

    def __repr__(self) -> str:
        # Error trackers record it, and a provider's sentence may quote the number or the text.
        status = self.status if self.status is None else word(str(self.status))
        return (
            f"{type(self).__name__}({self.provider!r}, {shown_id(self.msgid)}, "
            f"state={self.states!r}, status={status!r}, id={self.id!r})"
        )


class MessageAccepted(MessageStatus):
    """Accepted by the network, not delivered yet. Not every provider reports it."""

    accepted: bool | None = True
    delivered: bool | None = False
    expired = False


class MessageDelivered(MessageAccepted):
    """Delivered to the phone."""

    accepted = True
    delivered = True
    expired = False


class MessageExpired(MessageAccepted):
    """Accepted, and not delivered within its validity."""

    accepted = True
    delivered = False
    expired = True


class MessageError(MessageStatus):
    """A late error: sent, then failed. Also what a message that could not be sent ends with."""

    accepted: bool | None = True
    delivered: bool | None = False
    expired = False
    error = True
