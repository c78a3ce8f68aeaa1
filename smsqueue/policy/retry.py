"""What an error of a provider means for the message: one table, one decision as a value."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

from smsqueue import exc
from smsqueue.logs import get_logger
from smsqueue.message.masking import place_of

__all__ = ["Decision", "GuardedPolicy", "RetryPolicy", "error_label", "requested_wait"]

log = get_logger("smsqueue.delivery")

T = TypeVar("T")

#: Longest wait that a provider can ask for, in seconds.
_LONGEST_WAIT = 86400.0
_EVENT_ATTEMPTS = 25


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
    #: The error may be this message's own fault: pause the provider only once several messages
    #: have failed there.
    suspect: bool = False
    #: Seconds that the provider asked to be left alone; pauses it at once, for at least so long.
    wait: float = 0.0
    #: Did the provider show that it works?
    well: bool = False
    #: For unknown: not resent (any more), even if its sender chose ``on_unknown="resend"``.
    hold: bool = False


@dataclass(frozen=True)
class RetryPolicy:
    """When and where a failed attempt is repeated. Replace :meth:`decide` for rules of your own.

    Times are in seconds. With the defaults a message without a validity is tried for 36 hours, so
    it survives an outage of a day; each try is at most 10 minutes after the one before.
    """

    #: Backoff: a random time up to base, 2 x base, 4 x base ... up to cap.
    base: float = 2.0
    cap: float = 600.0
    #: A message has failed at the first error after this age.
    give_up: float = 36 * 3600.0
    #: Also after this many tries; None: tries only slow it down.
    attempts: int | None = None
    #: A message sent with ``on_unknown="resend"`` is sent again at most this often although its
    #: provider may have it: each of these may be a second SMS.
    resends: int = 25
    #: Pauses of a provider: throttled, unreachable or failing, and out of credit or locked out.
    pause: float = 1.0
    pause_max: float = 60.0
    slow_pause: float = 60.0
    slow_pause_max: float = 600.0

    def __post_init__(self) -> None:
        for field in fields(RetryPolicy):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                kind = type(value).__name__
                raise TypeError(f"RetryPolicy: {field.name} must be a number, not {kind}")
            if not value >= 0:  # nor is nan
                raise ValueError(f"RetryPolicy: {field.name} must not be below 0, but is {value}")

    def backoff(self, tries: int) -> float:
        """Full jitter: anything from 0 to the exponential bound."""
        return random.uniform(0, min(self.cap, self.base * 2 ** min(tries, 30)))

    @property
    def event_attempts(self) -> int:
        """Tries after which an event is dead, and a message that kills its workers has failed."""
        return _EVENT_ATTEMPTS if self.attempts is None else self.attempts

    def spent(self, tries: int, age: float) -> bool:
        """Is an error at this age, or at the last of so many tries, the message's last one?"""
        return age > self.give_up or (self.attempts is not None and tries >= self.attempts)

    def decide(
        self, error: BaseException, *, tries: int, age: float, wrote: bool | None
    ) -> Decision:
        """Judge an error.

        Args:
            tries: Tries that were used up before this one.
            age: Seconds since the message should have gone out.
            wrote: Did our HTTP layer begin to write? None: it cannot tell.
        """
        decision = self._with_wait(error, self._judge(error, tries=tries, wrote=wrote))
        spent = self.spent(tries + decision.counted, age)
        if decision.verdict == "unknown":
            return replace(decision, hold=spent)
        if decision.verdict == "retry" and spent:
            # The other providers of the route still get their turn.
            return replace(decision, verdict="failed", delay=0.0, counted=True)
        return decision

    def _judge(self, error: BaseException, *, tries: int, wrote: bool | None) -> Decision:
        later, slow = self.backoff(tries), self.slow_pause
        pause = Decision("retry", delay=later, pause=self.pause, pause_max=self.pause_max)
        match error:
            case exc.ProviderError(ambiguous=True):
                return replace(pause, verdict="unknown", suspect=True)
            case exc.LimitsError():
                return replace(pause, elsewhere=True, counted=False)
            case exc.CreditError() | exc.AuthError():
                return Decision(
                    "retry", True, slow, counted=False, pause=slow, pause_max=self.slow_pause_max
                )
            case exc.UnsupportedError():
                return Decision("failed", elsewhere=True, well=True)
            case exc.RequestError():
                return Decision("failed", well=True)
            case exc.ProviderError():
                return replace(pause, elsewhere=True, suspect=True)
        # Not an error that a provider reports. If anything was written, the provider may have
        # the message; if not, it is a fault that a deploy may mend.
        return replace(pause, verdict="retry" if wrote is False else "unknown", suspect=True)

    def _with_wait(self, error: BaseException, decision: Decision) -> Decision:
        """The decision with the wait that the provider asked for. Never shortens the backoff."""
        wait = requested_wait(error)
        if not wait:
            return decision
        pause = decision.pause or self.pause, decision.pause_max or self.pause_max
        return replace(
            decision,
            delay=max(decision.delay, wait),
            pause=pause[0],
            pause_max=pause[1],
            wait=wait,
            suspect=False,
            well=False,
        )


class GuardedPolicy:
    """A policy of the application's, which must not keep an outcome from being recorded: where it
    raises, or gives something that cannot be used, :class:`RetryPolicy` decides with its values.
    """

    def __init__(self, policy: Any) -> None:
        self._policy = policy

    def decide(
        self, error: BaseException, *, tries: int, age: float, wrote: bool | None
    ) -> Decision:
        def ask(policy: Any) -> Decision:
            return _checked(policy.decide(error, tries=tries, age=age, wrote=wrote))

        return self._ask("decide", ask)

    def backoff(self, tries: int) -> float:
        return self._ask("backoff", lambda policy: _seconds(policy.backoff(tries)))

    def spent(self, tries: int, age: float) -> bool:
        return self._ask("spent", lambda policy: bool(policy.spent(tries, age)))

    @property
    def resends(self) -> int:
        return self._ask("resends", lambda policy: int(_seconds(policy.resends)))

    @property
    def event_attempts(self) -> int:
        return self._ask("event_attempts", lambda policy: int(_seconds(policy.event_attempts)))

    def _ask(self, name: str, ask: Callable[[Any], T]) -> T:
        for make in (lambda: self._policy, self._with_its_values):
            try:
                return ask(make())
            except (Exception, SystemExit) as error:
                label = type(error).__name__
                log.error(
                    "the retry policy failed: %s of %s: %s at %s; RetryPolicy decides instead",
                    *(name, type(self._policy).__name__, label, place_of(error)),
                    extra={"error": label},
                )
        return ask(RetryPolicy())

    def _with_its_values(self) -> RetryPolicy:
        return RetryPolicy(**{f.name: getattr(self._policy, f.name) for f in fields(RetryPolicy)})


def _checked(decision: Any) -> Decision:
    """A decision that the ledger can record."""
    if not isinstance(decision, Decision):
        raise TypeError(f"decide() must return a Decision, not a {type(decision).__name__}")
    if decision.verdict not in ("retry", "failed", "unknown"):
        raise ValueError("the verdict of a Decision must be retry, failed or unknown")
    for value in (decision.delay, decision.pause or 0.0, decision.pause_max, decision.wait):
        _seconds(value)
    return decision


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a policy must give numbers, not a {type(value).__name__}")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"a policy must give finite numbers from 0, not {value}")
    return value


def requested_wait(error: BaseException) -> float:
    """Seconds that a provider asked for, a day at most; 0.0 if it asked for none.

    A plugin may have copied whatever its provider wrote, so what is no number above 0 is ignored.
    """
    try:
        asked: Any = getattr(error, "retry_after", None)
    except Exception:  # a property of a plugin's own error
        return 0.0
    if isinstance(asked, bool) or not isinstance(asked, int | float) or not asked > 0:
        return 0.0
    return float(min(asked, _LONGEST_WAIT))


def error_label(error: BaseException) -> str:
    """An error as logs, Flower and the timeline show it: its class, never its text.

    The nearest class of :mod:`smsqueue.exc`, so that plugins' own subclasses read alike.
    """
    for cls in type(error).__mro__:
        if cls.__module__ == exc.__name__:
            return cls.__name__
    return type(error).__name__
