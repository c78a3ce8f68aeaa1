"""Delivery reports.

Their fields are class attributes, because provider plugins override them in subclasses.
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
    """A delivery report about a sent message.

    Args:
        msgid: The provider's message id, of any type.
        rtime: When it was reported; None: now (aware, UTC).
        meta: Other data of the provider.
    """

    #: Id of the message; None: the report matches no known message.
    id: str | None = None
    #: ``id.attempt``, if the provider returned it.
    reference: str | None = None
    #: It is about one part of a long message: ``msgid`` and ``state`` are those of the part, and
    #: ``gateway.lookup(status.id).state`` is the message's state.
    of_part: bool = False
    #: The provider's id of this report, if it has one, by which repetitions are recognized.
    event_id: str | None = None
    #: The ``context`` option of the message.
    context: dict[str, Any] = {}  # noqa: RUF012  never changed in place
    #: Name of the provider that reported it.
    provider: str | None = None
    #: Accepted by the network? None: not known.
    accepted: bool | None = None
    #: Delivered to the phone? None: not known.
    delivered: bool | None = None
    #: Its validity has ended.
    expired: bool = False
    #: It has failed, see ``status_code`` and ``status``.
    error: bool = False
    #: The provider's status code.
    status_code: Any = None
    #: The provider's status text.
    status: Any = None
    meta: Any = None

    def __init__(self, msgid: Any, rtime: Any = None, meta: dict[str, Any] | None = None) -> None:
        self.msgid = msgid
        self.rtime = rtime or datetime.now(UTC)
        self.meta = meta or {}

    @property
    def states(self) -> set[str]:
        """Which of these fields are true: accepted, delivered, expired, error."""
        return {n for n in ("accepted", "delivered", "expired", "error") if getattr(self, n)}

    @property
    def state(self) -> State | None:
        """The message state that this report means; None: it means none."""
        if self.delivered:
            return State.DELIVERED
        if self.expired:
            return State.EXPIRED
        if self.error:
            return State.UNDELIVERED
        return State.ACCEPTED if self.accepted else None

    def __repr__(self) -> str:
        # Error trackers record it, and a provider's status text may quote number or text.
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
    """Sent, then failed. Also reported for a message that could not be sent."""

    accepted: bool | None = True
    delivered: bool | None = False
    expired = False
    error = True
