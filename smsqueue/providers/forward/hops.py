"""Where a message has been, so that it does not go round in circles."""

from __future__ import annotations

import secrets
from typing import Any
from weakref import WeakKeyDictionary

from smsqueue import exc

__all__ = ["CONTEXT", "LOOP", "Hops", "told_of"]

#: The key in ``context`` and ``meta`` under which forwarding keeps what it knows.
CONTEXT = "forwarded"
#: Code of the error that refuses a message which goes round.
LOOP = "loop"

_eager: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def told_of(data: Any) -> dict[str, Any]:
    """What an earlier forward left in a ``context`` or a ``meta``."""
    told = data.get(CONTEXT) if isinstance(data, dict) else None
    return told if isinstance(told, dict) else {}


class Hops:
    """The name of this gateway on the way of a message, and the longest way.

    Args:
        origin: The name; without one: one of the ledger's own, for an eager gateway a random one.
        most: Gateways that a message may have passed when it comes here.
    """

    def __init__(self, gateway: Any, origin: str | None, most: int) -> None:
        self._gateway = gateway
        self._origin = origin
        self._most = most

    @property
    def here(self) -> str:
        """This gateway's name; QueueUnavailable if the ledger has to tell it and cannot."""
        if self._origin is None:
            if self._gateway.eager:
                self._origin = _eager.setdefault(self._gateway, secrets.token_hex(6))
            else:
                self._origin = str(self._gateway.ledger.hidden("forward"))
        return self._origin

    def onward(self, data: Any) -> tuple[str, ...]:
        """The hops to write when something goes on from here, by its ``context`` or ``meta``."""
        before = told_of(data).get("hops")
        named = before if isinstance(before, list | tuple) else ()
        return (*(str(each) for each in named), self.here)

    def check(self, hops: tuple[str, ...]) -> None:
        """Raise RequestError for what was here before, or has come too far."""
        if self.here in hops:
            raise exc.RequestError(
                "it was here before: these gateways forward in a circle", code=LOOP
            )
        if len(hops) > self._most:
            raise exc.RequestError(
                f"it has passed {len(hops)} gateways, more than the {self._most} of max_hops",
                code=LOOP,
            )
