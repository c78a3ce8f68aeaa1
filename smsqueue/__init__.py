"""A two-way SMS gateway: queued sending with retries, delivery reports, incoming messages."""

from typing import TYPE_CHECKING, Any

from smsqueue import exc
from smsqueue.data import (
    IncomingMessage,
    Media,
    MessageAccepted,
    MessageDelivered,
    MessageError,
    MessageExpired,
    MessageStatus,
    OutgoingMessage,
)
from smsqueue.gateway import Gateway
from smsqueue.message.states import State
from smsqueue.policy.retry import RetryPolicy
from smsqueue.policy.router import NotBefore, Refuse
from smsqueue.providers.base import IProvider
from smsqueue.settings import Settings

if TYPE_CHECKING:
    from smsqueue.providers.forward import ForwardClientProvider as ForwardClientProvider
    from smsqueue.providers.forward import ForwardServerProvider as ForwardServerProvider
else:

    def __getattr__(name: str) -> Any:
        """The forward providers, which smsframework's manual imports from here; only when asked."""
        if name not in ("ForwardClientProvider", "ForwardServerProvider"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from smsqueue import providers

        return getattr(providers, name)


__all__ = [
    "Gateway",
    "IProvider",
    "IncomingMessage",
    "Media",
    "MessageAccepted",
    "MessageDelivered",
    "MessageError",
    "MessageExpired",
    "MessageStatus",
    "NotBefore",
    "OutgoingMessage",
    "Refuse",
    "RetryPolicy",
    "Settings",
    "State",
    "exc",
]
