"""The magic numbers: the recipient's number selects what happens to a message.

The last two digits of ``1555 000 NN xx`` are free, so each behavior has a hundred numbers. All
other numbers behave as *delivered*.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from smsqueue.message.states import State

__all__ = ["NUMBERS", "RICH_ACCOUNT", "Number", "Report", "number_for"]

#: The only account that has credit for the number *no credit*.
RICH_ACCOUNT = "backup"

#: Delay after the answer in seconds, and the reported state.
Report = tuple[float, str]

_USUAL: tuple[Report, ...] = ((0.1, "accepted"), (0.4, "delivered"))


@dataclass(frozen=True, kw_only=True)
class Number:
    """A behavior of the simulator, and the numbers that select it.

    Attributes:
        prefix: The number without its last two digits.
        final_state: State in which a message ends if it asks for a report.
        calls: Calls of the provider until then.
        refusals: HTTP statuses of the first answers for each message.
        throttled: The account is throttled for a second, at most every 20 s.
        needs_credit: Only the account RICH_ACCOUNT has enough credit.
        answer_lost: The message is accepted, then the connection is closed without an answer.
        early_reports: Reports that are posted before the answer.
        reports: Reports that are posted after the answer.
        replies: The recipient replies.
    """

    name: str
    prefix: str
    description: str
    final_state: State = State.DELIVERED
    calls: int = 1
    refusals: tuple[int, ...] = ()
    throttled: bool = False
    needs_credit: bool = False
    answer_lost: bool = False
    early_reports: tuple[str, ...] = ()
    reports: tuple[Report, ...] = _USUAL
    replies: bool = False

    @property
    def pattern(self) -> str:
        """The numbers as the documentation writes them: ``+155500001xx``."""
        return f"+{self.prefix}xx"

    def numbers(self, count: int) -> Iterable[str]:
        """Return the first ``count`` numbers, at most 100."""
        return (f"{self.prefix}{n:02}" for n in range(min(count, 100)))


NUMBERS: tuple[Number, ...] = (
    Number(name="delivered", prefix="155500001", description="accepted, then delivered"),
    Number(
        name="broken twice",
        prefix="155500002",
        description="500 twice, then delivered",
        calls=3,
        refusals=(500, 500),
    ),
    Number(
        name="throttled",
        prefix="155500003",
        description="429 with Retry-After for a second, then delivered",
        throttled=True,
    ),
    Number(
        name="early report",
        prefix="155500004",
        description="the report overtakes the answer",
        early_reports=("delivered",),
        reports=(),
    ),
    Number(
        name="disorder",
        prefix="155500005",
        description="reports come doubled and in disorder",
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
        description=f"402, unless the account is {RICH_ACCOUNT}",
        calls=2,
        needs_credit=True,
    ),
    Number(
        name="refused",
        prefix="155500007",
        description="400: no such number",
        final_state=State.FAILED,
        refusals=(400,) * 100,
        reports=(),
    ),
    Number(
        name="answer lost",
        prefix="155500008",
        description="accepted, the answer lost, a report later",
        answer_lost=True,
        reports=((1.5, "accepted"), (2.0, "delivered")),
    ),
    Number(
        name="silent",
        prefix="155500009",
        description="accepted, the answer lost, and no report",
        final_state=State.UNKNOWN,
        answer_lost=True,
        reports=(),
    ),
    Number(
        name="expires",
        prefix="155500010",
        description="accepted, then expired: the phone is off",
        final_state=State.EXPIRED,
        reports=((0.1, "accepted"), (0.5, "expired")),
    ),
    Number(
        name="replies",
        prefix="155500011",
        description="delivered, and its owner replies",
        replies=True,
    ),
)


def number_for(number: str) -> Number:
    """Return the behavior of a number, which consists of digits only."""
    matches = (n for n in NUMBERS if number[:-2] == n.prefix)
    return next(matches, NUMBERS[0])
