"""What travels between the two sides, whichever format it is written in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from smsqueue import exc
from smsqueue.message import statuses
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.statuses import MessageStatus
from smsqueue.providers.forward.fields import flag, named, scalar

__all__ = [
    "STATUSES",
    "Event",
    "Format",
    "Passed",
    "Thing",
    "fill_status",
    "http_status",
    "nearest",
]

Thing = IncomingMessage | MessageStatus

#: Classes of reports, by name.
STATUSES: dict[str, type[MessageStatus]] = {n: getattr(statuses, n) for n in statuses.__all__}
_FLAGS = {"accepted": (None,), "delivered": (None,), "expired": (), "error": ()}


@dataclass(frozen=True)
class Passed:
    """An outgoing message that a client passes to its server."""

    message: OutgoingMessage
    #: The client's id of it and its number of the attempt; None if it keeps none.
    id: str | None = None
    attempt: int = 1
    #: Gateways that it has passed, the first is where it was sent.
    hops: tuple[str, ...] = ()
    #: The answer to the same attempt was lost before: the server may have it.
    repeated: bool = False
    #: Signature of the request that it came with; None: it was not signed.
    signature: str | None = None

    @property
    def reference(self) -> str | None:
        """What the client's ledger knows the attempt by."""
        return None if self.id is None else f"{self.id}.{self.attempt}"


@dataclass(frozen=True)
class Event:
    """An incoming message or a report that a server passes to a client."""

    #: With the names and ids of the server's provider.
    thing: Thing
    #: The server's own id: of the incoming message, or of the message reported on.
    id: str | None = None
    #: Gateways that it has passed.
    hops: tuple[str, ...] = ()


class Format(Protocol):
    """One of the formats. Readers raise ValueError for what they do not understand."""

    #: Does it tell the other side that a message came before?
    knows_repetitions: bool

    def dump_outgoing(self, passed: Passed) -> dict[str, Any]: ...
    def load_outgoing(self, document: dict[str, Any]) -> Passed: ...
    def dump_taken(self, message: OutgoingMessage, name: str | None) -> dict[str, Any]: ...
    def load_taken(self, document: dict[str, Any], message: OutgoingMessage) -> None: ...
    def dump_event(self, event: Event) -> dict[str, Any]: ...
    def load_event(self, view: str, document: dict[str, Any]) -> Event: ...
    def dump_heard(self, event: Event) -> dict[str, Any]: ...
    def load_heard(self, view: str, document: dict[str, Any]) -> None: ...
    def dump_error(self, error: exc.ProviderError) -> dict[str, Any]: ...
    def load_error(self, document: dict[str, Any]) -> exc.ProviderError | None: ...


def nearest(status: MessageStatus) -> str:
    """The name of the nearest class of reports that everybody knows."""
    return next(each.__name__ for each in type(status).__mro__ if each.__name__ in STATUSES)


def fill_status(status: MessageStatus, fields: dict[str, Any]) -> None:
    """Set those known fields of a report that are there, and no others."""
    for name, more in _FLAGS.items():
        if name in fields:
            setattr(status, name, flag(fields[name], name, (True, False, *more)))
    for name in ("status_code", "status"):
        if name in fields:
            setattr(status, name, scalar(fields[name], name))
    status.provider = named(fields.get("provider"), "provider")


_HTTP: list[tuple[type[exc.ProviderError], int]] = [
    (exc.RequestError, 400),
    (exc.UnsupportedError, 501),
    (exc.CreditError, 402),
    (exc.AuthError, 403),
    (exc.LimitsError, 429),
]


def http_status(error: exc.ProviderError) -> int:
    """The HTTP status that says the same, to whoever cannot read the document."""
    if error.ambiguous:
        return 502
    return next((status for kind, status in _HTTP if isinstance(error, kind)), 503)
