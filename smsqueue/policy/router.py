"""Which providers a message may go to, in order of preference, or why it may not go now."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from smsqueue import exc
from smsqueue.message.masking import word
from smsqueue.message.messages import OutgoingMessage, check_send_at

__all__ = [
    "NotBefore",
    "Refuse",
    "Route",
    "Router",
    "RoutingError",
    "default_router",
    "refusal",
    "resolve",
    "unknown_provider",
]

Router = Callable[..., Any]

_LONGEST_REASON = 200


@dataclass(frozen=True)
class Refuse:
    """A router's answer: the message is not sent, and becomes failed with the error ``Refused``.

    Raises:
        TypeError: the reason is not text.
        ValueError: the reason is empty or longer than 200 characters.
    """

    #: Shown with the message's record, not in logs.
    reason: str

    def __post_init__(self) -> None:
        if not isinstance(self.reason, str):
            raise TypeError(f"Refuse: reason must be text, not {type(self.reason).__name__}")
        if not 0 < len(self.reason) <= _LONGEST_REASON:
            raise ValueError(f"Refuse: reason must have 1 to {_LONGEST_REASON} characters")


@dataclass(frozen=True)
class NotBefore:
    """A router's answer: the message waits, and the router is called again at this time.

    Raises:
        TypeError: the time is not a datetime.
        ValueError: it has no time zone, or is more than a hundred years ahead.
    """

    #: An aware datetime. One that is past means a second from now.
    time: datetime

    def __post_init__(self) -> None:
        check_send_at("NotBefore", self.time)


Route = list[str] | Refuse | NotBefore


class RoutingError(AssertionError):
    """A message cannot be routed. Its text says why and holds no personal data."""


def default_router(message: OutgoingMessage, *values: Any) -> None:
    """The default provider for every message."""


def resolve(
    message: OutgoingMessage,
    router: Router,
    providers: Collection[str],
    default: str | None,
) -> Route:
    """Names of providers, at least one, or the router's Refuse or NotBefore.

    The message's own provider; else, if it has routing values, what the router says: None (the
    default provider), a name, a list of names, Refuse or NotBefore; else the default provider.

    Raises:
        AssertionError: a name that no provider has, or no provider at all. Raised explicitly,
            as smsframework asserts it.
        Exception: whatever the router raises.
    """
    asked_for = None if message.provider == message.routed_to else message.provider
    if asked_for is not None:
        names, by = [asked_for], "The message names"
    elif message.routing_values is not None:
        answer = router(message, *message.routing_values) or ()
        if isinstance(answer, Refuse | NotBefore):
            return answer
        names = [answer] if isinstance(answer, str) else list(answer)
        by = "The router named"
    else:
        names, by = [], ""
    if not names:
        if default is None:
            raise RoutingError("The gateway has no provider: add one with add_provider()")
        return [default]
    for name in names:
        if not isinstance(name, str) or name not in providers:
            raise unknown_provider(by, name, providers)
    return names


def refusal(answer: Refuse | NotBefore) -> exc.Refused:
    """The error for a message that is sent in the calling process, which cannot wait."""
    if isinstance(answer, Refuse):
        return exc.Refused(answer.reason)
    return exc.Refused(
        f"the router says not before {answer.time.isoformat()}, and a message that is delivered "
        "in this process cannot wait: send it through the queue"
    )


def unknown_provider(by: str, name: object, providers: Iterable[str]) -> RoutingError:
    """The error for a provider's name that no provider has.

    Args:
        by: Who named it: ``"The router named"``.
    """
    known = ", ".join(sorted(providers)) or "none"
    shown = repr(word(name)) if isinstance(name, str) else f"a {type(name).__name__}"
    return RoutingError(f"{by} an unknown provider: {shown} (known: {known})")
