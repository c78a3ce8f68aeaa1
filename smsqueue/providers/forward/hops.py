"""Loop detection: the list of gateways that a message or an event has passed."""

from __future__ import annotations

import secrets
from typing import Any
from weakref import WeakKeyDictionary

from smsqueue import exc

__all__ = ["CONTEXT", "LOOP", "Hops", "forward_data"]

#: The key of forwarding's data in ``context`` and ``meta``.
CONTEXT = "forwarded"
#: Code of the error that ends a loop.
LOOP = "loop"

_eager_origins: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def forward_data(context_or_meta: Any) -> dict[str, Any]:
    """The data that an earlier forward stored in a ``context`` or a ``meta``."""
    data = context_or_meta.get(CONTEXT) if isinstance(context_or_meta, dict) else None
    return data if isinstance(data, dict) else {}


class Hops:
    """This gateway's name among the hops, and the checks of what arrives here.

    Args:
        origin: The name; None: one that the ledger keeps, or a random one for an eager gateway.
        max_hops: Gateways that a message may have passed when it arrives here.
    """

    def __init__(self, gateway: Any, origin: str | None, max_hops: int) -> None:
        self._gateway = gateway
        self._origin = origin
        self._max_hops = max_hops

    @property
    def origin(self) -> str:
        """This gateway's name.

        Raises:
            QueueUnavailable: the ledger has the name, and cannot be reached.
        """
        if self._origin is None:
            if self._gateway.eager:
                self._origin = _eager_origins.setdefault(self._gateway, secrets.token_hex(6))
            else:
                self._origin = str(self._gateway.ledger.hash_of("forward"))
        return self._origin

    def extend(self, context_or_meta: Any) -> tuple[str, ...]:
        """The hops in a ``context`` or ``meta``, and this gateway as the last one."""
        hops = forward_data(context_or_meta).get("hops")
        known = hops if isinstance(hops, list | tuple) else ()
        return (*(str(hop) for hop in known), self.origin)

    def check(self, hops: tuple[str, ...]) -> None:
        """Raise RequestError if this gateway is one of the hops, or if they are too many."""
        if self.origin in hops:
            raise exc.RequestError(
                "forwarding loop: this gateway has forwarded it before", code=LOOP
            )
        if len(hops) > self._max_hops:
            raise exc.RequestError(
                f"it was forwarded by {len(hops)} gateways, max_hops allows {self._max_hops}",
                code=LOOP,
            )
