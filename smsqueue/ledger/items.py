"""What is asked of the ledger for one item of a group."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Beginning", "Claiming", "HookSettlement", "Settlement"]


class Claiming(NamedTuple):
    """A message that a worker wants to deliver."""

    id: str
    token: str
    #: Until its router has answered, in seconds.
    lease: float
    worker: str
    #: Provider of messages that need no router: their attempt begins in the same step. "": none.
    usual: str = ""
    #: Of a call there, in seconds.
    usual_lease: float = 0.0
    #: It begins there only if it was not sent as one of many.
    if_single: bool = False


class Beginning(NamedTuple):
    """An attempt that a worker is about to make under its claim."""

    id: str
    token: str
    provider: str
    #: Of the call, in seconds.
    lease: float
    #: The number that it would be.
    attempt: int


class Settlement(NamedTuple):
    """How an attempt ended."""

    id: str
    #: Of the claim under which it was made.
    token: str
    attempt: int
    #: See settle.lua for the fields.
    outcome: dict[str, Any]


class HookSettlement(NamedTuple):
    """How the handlers of an event fared."""

    event: str
    #: Of the claim under which they ran.
    token: str
    #: done | retry | dead | unheard | back, see hook_settle.lua.
    verdict: str
    #: Seconds until a retry.
    delay: float = 0.0
    why: str = ""
    #: Names of handlers that succeeded and were not recorded before.
    succeeded: tuple[str, ...] = ()
