"""Which providers a message may go to, in order of preference."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from smsqueue.message.masking import word
from smsqueue.message.messages import OutgoingMessage

__all__ = ["Router", "RoutingError", "default_router", "resolve", "unknown_provider"]

Router = Callable[..., Any]


class RoutingError(AssertionError):
    """A message cannot be routed. Its text says why and holds no personal data."""


def default_router(message: OutgoingMessage, *values: Any) -> None:
    """The default provider for every message."""


def resolve(
    message: OutgoingMessage,
    router: Router,
    providers: Collection[str],
    default: str | None,
) -> list[str]:
    """Names of providers, at least one.

    The message's own provider; else, if it has routing values, what the router says: None (the
    default provider), a name, or a list of names; else the default provider.

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


def unknown_provider(by: str, name: object, providers: Iterable[str]) -> RoutingError:
    """The error for a provider's name that no provider has.

    Args:
        by: Who named it: ``"The router named"``.
    """
    known = ", ".join(sorted(providers)) or "none"
    shown = repr(word(name)) if isinstance(name, str) else f"a {type(name).__name__}"
    return RoutingError(f"{by} an unknown provider: {shown} (known: {known})")
