"""What a provider can do, beyond taking a text for a number."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Can"]


class Can(StrEnum):
    """A capability. What a provider lacks raises UnsupportedError before anything is sent."""

    #: A sender id of letters in place of a number.
    ALPHANUMERIC = "alphanumeric"
    #: The validity of a message travels with it, so that the network drops it in time.
    VALIDITY = "validity"
    #: The provider can hold a message until a time. (The gateway does so itself: ``send_at``.)
    SCHEDULING = "scheduling"
    #: The address for a message's reports is given with the message.
    CALLBACK = "callback"
    #: Delivery reports.
    REPORTS = "reports"
    #: Incoming messages.
    INBOUND = "inbound"
    #: Pictures and other files of incoming messages (MMS).
    MEDIA = "media"
    #: What is left on the account.
    BALANCE = "balance"
    #: It can say what became of a message whose answer was lost.
    LOOKUP = "lookup"
    #: A repeated key sends once.
    DEDUPLICATION = "deduplication"

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ValueError(f"no capability has such a name: there are {', '.join(cls)}")
