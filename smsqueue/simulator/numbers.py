"""The magic numbers: what happens to a message is decided by where it goes.

Each is a hundred numbers, as the last two digits are free: ``1555 000 NN xx``. Any other number
behaves as *delivered*.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from smsqueue.message.states import State

__all__ = ["NUMBERS", "RICH_ACCOUNT", "Number", "Report", "number_for"]

#: The only account with enough credit for the number *no credit*.
RICH_ACCOUNT = "backup"

#: Seconds after the answer (for those before it: 0), and the state reported.
Report = tuple[float, str]

_USUAL: tuple[Report, ...] = ((0.1, "accepted"), (0.4, "delivered"))


@dataclass(frozen=True, kw_only=True)
class Number:
    """One behaviour.

    Attributes:
        prefix: The number without its last two digits.
        ends: State in which a message ends that asked for a report.
        calls: Calls to the provider that it takes until then.
        refusals: HTTP statuses that answer the first calls for each message.
        throttled: The account is throttled for a second, at most every twenty.
        poor: Every account but one has too little credit.
        lost: The message is accepted, but the connection is cut instead of answered.
        early: Reports that are delivered before the answer is given.
        reports: Reports that follow.
        replies: A reply comes back.
    """

    name: str
    prefix: str
    does: str
    ends: State = State.DELIVERED
    calls: int = 1
    refusals: tuple[int, ...] = ()
    throttled: bool = False
    poor: bool = False
    lost: bool = False
    early: tuple[str, ...] = ()
    reports: tuple[Report, ...] = _USUAL
    replies: bool = False

    @property
    def pattern(self) -> str:
        """The numbers as a user reads them."""
        return f"+{self.prefix}xx"

    def numbers(self, count: int) -> Iterable[str]:
        """The first ``count`` numbers, a hundred at most."""
        return (f"{self.prefix}{n:02}" for n in range(min(count, 100)))


NUMBERS: tuple[Number, ...] = (
    Number(name="delivered", prefix="155500001", does="accepted, then delivered"),
    Number(
        name="broken twice",
        prefix="155500002",
        does="500 twice, then delivered",
        calls=3,
        refusals=(500, 500),
    ),
    Number(
        name="throttled",
        prefix="155500003",
        does="429 with Retry-After for a second, then delivered",
        throttled=True,
    ),
    Number(
        name="early report",
        prefix="155500004",
        does="the report overtakes the answer",
        early=("delivered",),
        reports=(),
    ),
    Number(
        name="disorder",
        prefix="155500005",
        does="reports come doubled and in disorder",
        reports=(
            (0.1, "delivered"),
            (0.2, "accepted"),
            (0.3, "delivered"),
            (0.4, "accepted"),
        ),
    ),
    Number(
        name="no credit",
        prefix="155500006",
        does=f"402, unless the account is {RICH_ACCOUNT}",
        calls=2,
        poor=True,
    ),
    Number(
        name="refused",
        prefix="155500007",
        does="400: no such number",
        ends=State.FAILED,
        refusals=(400,) * 100,
        reports=(),
    ),
    Number(
        name="answer lost",
        prefix="155500008",
        does="accepted, the answer lost, a report later",
        lost=True,
        reports=((1.5, "accepted"), (2.0, "delivered")),
    ),
    Number(
        name="silent",
        prefix="155500009",
        does="accepted, the answer lost, and no report",
        ends=State.UNKNOWN,
        lost=True,
        reports=(),
    ),
    Number(
        name="expires",
        prefix="155500010",
        does="accepted, then expired: the phone is off",
        ends=State.EXPIRED,
        reports=((0.1, "accepted"), (0.5, "expired")),
    ),
    Number(
        name="replies",
        prefix="155500011",
        does="delivered, and its owner replies",
        replies=True,
    ),
)


def number_for(number: str) -> Number:
    """The behaviour of a number, digits only."""
    known = (n for n in NUMBERS if number[:-2] == n.prefix)
    return next(known, NUMBERS[0])
