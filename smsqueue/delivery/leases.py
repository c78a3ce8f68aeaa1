"""How long a claimed message belongs to its worker.

A claim holds until the router has answered. Beginning an attempt replaces that lease by one for the
call of the provider. When a lease ends, upkeep decides what becomes of the message
(``smsqueue/ledger/sweep.lua``). All times are in seconds.
"""

from __future__ import annotations

import time

from smsqueue.providers.base import IProvider

__all__ = ["LATEST_CALL", "ROUTER_TIMEOUT", "call_lease", "is_too_late_to_call", "routing_lease"]

#: Time limit of a router.
ROUTER_TIMEOUT = 30.0
#: Time for a router and what comes before and after it.
_ROUTING = 60.0
#: From the longest duration of the work to the end of the lease.
_MARGIN = 30.0
#: Longest time from the beginning of an attempt to the call.
LATEST_CALL = 15.0


def routing_lease() -> float:
    """Lease of a claim, until the router has answered."""
    return _ROUTING + _MARGIN


def call_lease(provider: IProvider) -> float:
    """Lease of an attempt at a provider."""
    return provider.deadline + _MARGIN


def is_too_late_to_call(began: float) -> bool:
    """Whether an attempt began so long ago (monotonic) that its lease could end during the call."""
    return time.monotonic() - began > min(LATEST_CALL, _MARGIN / 2)
