"""Optional capabilities of providers."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Can"]


class Can(StrEnum):
    """A capability. A message that needs a missing one is refused with UnsupportedError."""

    #: Sender ids of letters in place of numbers.
    ALPHANUMERIC = "alphanumeric"
    #: The provider accepts a validity, after which the network drops the message.
    VALIDITY = "validity"
    #: The provider can send at a later time. (The gateway does so itself: ``send_at``.)
    SCHEDULING = "scheduling"
    #: Each message sets the URL of its reports.
    CALLBACK = "callback"
    #: Delivery reports.
    REPORTS = "reports"
    #: Incoming messages.
    INBOUND = "inbound"
    #: Pictures and other files of incoming messages (MMS).
    MEDIA = "media"
    #: A query for the balance of the account.
    BALANCE = "balance"
    #: A query for the state of a message whose response was lost.
    LOOKUP = "lookup"
    #: A message with a repeated key is sent once.
    DEDUPLICATION = "deduplication"

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ValueError(f"unknown capability; choose from {', '.join(cls)}")
