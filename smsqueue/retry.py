"""What an error of a provider means for the message: one table, one decision as a value."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any, Literal

from smsqueue import exc

__all__ = ["Decision", "RetryPolicy", "error_label"]

#: Longest wait that a provider can ask for, in seconds.
_LONGEST_WAIT = 86400.0


@dataclass(frozen=True)
class Decision:
    """What happens next to a message, and to the provider that failed."""

    verdict: Literal["retry", "failed", "unknown"]
    #: For retry: may the next provider of the route be called at once?
    elsewhere: bool = False
    #: For retry: seconds until the next attempt, if there is no other provider.
    delay: float = 0.0
    #: Does it use up a try?
    counted: bool = True
    #: Pause the provider for this many seconds, doubled each time up to ``pause_max``.
    pause: float | None = None
    pause_max: float = 0.0
    #: Did the provider show that it works?
    well: bool = False
    #: For unknown: not resent (any more), even if its sender chose ``on_unknown="resend"``.
    hold: bool = False


@dataclass(frozen=True)
class RetryPolicy:
    """When and where a failed attempt is repeated. Replace :meth:`decide` for rules of your own.

    Times are in seconds.
    """

    #: Backoff: a random time up to base, 2 x base, 4 x base ... up to cap.
    base: float = 2.0
    cap: float = 600.0
    #: A message has failed after this many tries, or at the first error after this age.
    attempts: int = 25
    give_up: float = 86400.0
    #: Pauses of a provider: throttled or unreachable, and out of credit or locked out.
    pause: float = 1.0
    pause_max: float = 60.0
    slow_pause: float = 60.0
    slow_pause_max: float = 600.0

    def backoff(self, tries: int) -> float:
        """Full jitter: anything from 0 to the exponential bound."""
        return random.uniform(0, min(self.cap, self.base * 2 ** min(tries, 30)))

    def decide(
        self, error: BaseException, *, tries: int, age: float, wrote: bool | None
    ) -> Decision:
        """Judge an error.

        Args:
            tries: Tries that were used up before this one.
            age: Seconds since the message should have gone out.
            wrote: Did our HTTP layer begin to write? None: it cannot tell.
        """
        decision = self._judge(error, tries=tries, wrote=wrote)
        spent = tries + decision.counted >= self.attempts or age > self.give_up
        if decision.verdict == "unknown":
            return replace(decision, hold=spent)
        if decision.verdict == "retry" and spent:
            # The other providers of the route still get their turn.
            return Decision(
                "failed",
                elsewhere=decision.elsewhere,
                pause=decision.pause,
                pause_max=decision.pause_max,
            )
        return decision

    def _judge(self, error: BaseException, *, tries: int, wrote: bool | None) -> Decision:
        later = self.backoff(tries)
        match error:
            case exc.ProviderError(ambiguous=True):
                return Decision("unknown", delay=later)
            case exc.LimitsError():
                wait = _wait(error.retry_after)
                pause, longest = (self.pause, self.pause_max) if wait is None else (wait, wait)
                return Decision("retry", True, pause, counted=False, pause=pause, pause_max=longest)
            case exc.CreditError() | exc.AuthError():
                slow = self.slow_pause
                return Decision(
                    "retry", True, slow, counted=False, pause=slow, pause_max=self.slow_pause_max
                )
            case exc.ConnectionError():
                return Decision("retry", True, later, pause=self.pause, pause_max=self.pause_max)
            case exc.UnsupportedError():
                return Decision("failed", elsewhere=True, well=True)
            case exc.RequestError():
                return Decision("failed", well=True)
            case exc.ProviderError():
                return Decision("retry", True, later)
        # Not an error that a provider reports. If anything was written, the provider may have
        # the message; if not, it is a fault that a deploy may mend.
        return (
            Decision("retry", delay=later) if wrote is False else Decision("unknown", delay=later)
        )


def _wait(asked: Any) -> float | None:
    """Seconds that a provider asked for, a day at most; None if it is no number: a plugin may
    have copied whatever its provider wrote."""
    if isinstance(asked, bool) or not isinstance(asked, int | float) or asked != asked:
        return None
    return float(min(max(asked, 0), _LONGEST_WAIT))


def error_label(error: BaseException) -> str:
    """An error as logs, Flower and the timeline show it: its class, never its text.

    The nearest class of :mod:`smsqueue.exc`, so that plugins' own subclasses read alike.
    """
    for each in type(error).__mro__:
        if each.__module__ == exc.__name__:
            return each.__name__
    return type(error).__name__
