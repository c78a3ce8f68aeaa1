"""What each error means for a message, and when to give up."""

from __future__ import annotations

from typing import Any

import pytest

from smsqueue import Gateway, RetryPolicy, exc
from smsqueue.policy.retry import Decision, error_label

POLICY = RetryPolicy()


class PluginLimits(exc.LimitsError):
    """A plugin's own subclass."""


# error, wrote -> verdict, elsewhere, counted, what it says of the provider: "pause" it at once,
# "suspect" it (pause it once several messages failed), or it works ("well")
TABLE: dict[str, tuple[BaseException, bool | None, tuple[str, bool, bool, str]]] = {
    "nothing was written": (
        exc.ConnectionError("refused"),
        False,
        ("retry", True, True, "suspect"),
    ),
    "a plugin's connection error": (
        exc.ConnectionError("refused"),
        None,
        ("retry", True, True, "suspect"),
    ),
    "the provider's 5xx": (
        exc.ServerError("503", http_status=503),
        True,
        ("retry", True, True, "suspect"),
    ),
    "read timeout": (
        exc.ConnectionError("timeout", ambiguous=True),
        True,
        ("unknown", False, True, "suspect"),
    ),
    "a gateway's 502": (
        exc.ServerError("502", ambiguous=True),
        True,
        ("unknown", False, True, "suspect"),
    ),
    "2xx without an answer": (
        exc.MessageSendError("?", ambiguous=True),
        True,
        ("unknown", False, True, "suspect"),
    ),
    "an ambiguous refusal": (
        exc.RequestError("?", ambiguous=True),
        True,
        ("unknown", False, True, "suspect"),
    ),
    "throttled": (exc.LimitsError("slow"), True, ("retry", True, False, "pause")),
    "throttled, by a subclass": (PluginLimits("slow"), True, ("retry", True, False, "pause")),
    "no credit": (exc.CreditError("empty"), True, ("retry", True, False, "pause")),
    "locked out": (exc.AuthError("who?"), True, ("retry", True, False, "pause")),
    "unsupported": (exc.UnsupportedError("no"), True, ("failed", True, True, "well")),
    "refused": (exc.RequestError("no"), True, ("failed", False, True, "well")),
    "some send error": (exc.MessageSendError("?"), True, ("retry", True, True, "suspect")),
    "some provider error": (exc.ProviderError("?"), None, ("retry", True, True, "suspect")),
    "a bug before writing": (KeyError("x"), False, ("retry", False, True, "suspect")),
    "a bug after writing": (KeyError("x"), True, ("unknown", False, True, "suspect")),
    "a bug, who knows when": (KeyError("x"), None, ("unknown", False, True, "suspect")),
    "a network error of a plugin": (
        TimeoutError("x"),
        None,
        ("unknown", False, True, "suspect"),
    ),
    "the router": (AssertionError("who?"), False, ("retry", False, True, "suspect")),
}


@pytest.mark.parametrize("case", TABLE)
def test_what_an_outcome_means(case: str) -> None:
    error, wrote, expected = TABLE[case]
    decision = POLICY.decide(error, tries=0, age=0.0, wrote=wrote)
    health = "well" if decision.well else "suspect" if decision.suspect else "pause"
    assert (decision.verdict, decision.elsewhere, decision.counted, health) == expected
    assert (decision.pause is None) is decision.well


@pytest.mark.parametrize(
    ("error", "delay", "pause", "longest"),
    [
        (exc.CreditError("x"), 60.0, 60.0, 600.0),
        (exc.AuthError("x"), 60.0, 60.0, 600.0),
    ],
)
def test_pauses(error: exc.ProviderError, delay: float, pause: float, longest: float) -> None:
    decision = POLICY.decide(error, tries=3, age=0.0, wrote=True)
    assert (decision.delay, decision.pause, decision.pause_max) == (delay, pause, longest)


def test_an_unreachable_provider_is_paused_shortly() -> None:
    decision = POLICY.decide(exc.ConnectionError("x"), tries=0, age=0.0, wrote=False)
    assert (decision.pause, decision.pause_max) == (1.0, 60.0)


# --- A wait that the provider asks for -------------------------------------------------------

#: Every error of a provider, with the verdict that it has without a wait.
ERRORS: list[type[exc.ProviderError]] = [
    exc.ProviderError,
    exc.ConnectionError,
    exc.MessageSendError,
    exc.RequestError,
    exc.UnsupportedError,
    exc.ServerError,
    exc.AuthError,
    exc.LimitsError,
    exc.CreditError,
]


class _Later(RetryPolicy):
    """Its backoff is always 8 seconds."""

    def backoff(self, tries: int) -> float:
        return 8.0


@pytest.mark.parametrize("ambiguous", [False, True])
@pytest.mark.parametrize("kind", ERRORS)
def test_a_requested_wait_counts_on_every_error_and_pauses_the_provider(
    kind: type[exc.ProviderError], ambiguous: bool
) -> None:
    plain, asked = (
        _Later().decide(kind("x", ambiguous=ambiguous, **wait), tries=0, age=0.0, wrote=True)
        for wait in ({}, {"retry_after": 120.0})
    )
    assert asked.delay == 120.0
    assert (asked.wait, asked.suspect, asked.well) == (120.0, False, False)
    assert asked.pause is not None
    assert (asked.verdict, asked.elsewhere) == (plain.verdict, plain.elsewhere)


@pytest.mark.parametrize(
    "wait", [0, 0.0, -1, -86400.0, float("nan"), float("-inf"), "120", None, True, [5]]
)
def test_an_invalid_retry_after_is_ignored(wait: object) -> None:
    for kind in ERRORS:
        without, error = kind("x"), kind("x", retry_after=wait)
        decision = _Later().decide(error, tries=0, age=0.0, wrote=True)
        assert decision == _Later().decide(without, tries=0, age=0.0, wrote=True), kind


def test_a_wait_shorter_than_the_backoff_changes_nothing_but_that_it_pauses() -> None:
    decision = _Later().decide(exc.LimitsError("x", retry_after=0.25), tries=0, age=0, wrote=True)
    assert (decision.delay, decision.pause, decision.pause_max) == (8.0, 1.0, 60.0)


def test_a_wait_is_a_day_at_most() -> None:
    error = exc.ServerError("x", retry_after=float("inf"))
    assert POLICY.decide(error, tries=0, age=0.0, wrote=True).delay == 86400.0


# --- Giving up -------------------------------------------------------------------------------


@pytest.mark.parametrize("tries", [24, 25, 1000])
@pytest.mark.parametrize("error", [exc.ServerError("x"), exc.ConnectionError("x"), KeyError("x")])
def test_tries_alone_fail_no_message(error: Exception, tries: int) -> None:
    decision = POLICY.decide(error, tries=tries, age=86400.0, wrote=False)
    assert decision.verdict == "retry"


@pytest.mark.parametrize(("tries", "verdict"), [(0, "retry"), (23, "retry"), (24, "failed")])
def test_giving_up_after_the_last_try_if_tries_are_limited(tries: int, verdict: str) -> None:
    policy = RetryPolicy(attempts=25)
    assert policy.decide(exc.ServerError("x"), tries=tries, age=0.0, wrote=True).verdict == verdict


@pytest.mark.parametrize(("age", "verdict"), [(36 * 3600.0, "retry"), (36 * 3600.1, "failed")])
@pytest.mark.parametrize("kind", [exc.ServerError, exc.LimitsError, exc.CreditError])
def test_giving_up_at_the_first_error_after_36_hours(
    kind: type[exc.ProviderError], age: float, verdict: str
) -> None:
    assert POLICY.decide(kind("x"), tries=0, age=age, wrote=True).verdict == verdict


def test_what_is_not_the_messages_fault_uses_no_try() -> None:
    policy = RetryPolicy(attempts=25)
    assert policy.decide(exc.LimitsError("x"), tries=24, age=0.0, wrote=True).verdict == "retry"


def test_the_other_providers_still_get_their_turn_and_the_pause_stays() -> None:
    policy = RetryPolicy(attempts=25)
    error = exc.ConnectionError("x", retry_after=7.0)
    assert policy.decide(error, tries=24, age=0.0, wrote=False) == Decision(
        "failed", elsewhere=True, pause=1.0, pause_max=60.0, wait=7.0
    )
    bug = policy.decide(KeyError("x"), tries=24, age=0.0, wrote=False)
    assert (bug.verdict, bug.elsewhere) == ("failed", False)


def test_what_is_unknown_stays_unknown_however_old() -> None:
    error = exc.ConnectionError("x", ambiguous=True)
    assert POLICY.decide(error, tries=99, age=1e9, wrote=True).verdict == "unknown"


# --- Backoff ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tries", "bound"),
    [(0, 2.0), (1, 4.0), (2, 8.0), (8, 512.0), (9, 600.0), (1000, 600.0), (10**6, 600.0)],
)
def test_the_bounds_of_the_jitter(
    monkeypatch: pytest.MonkeyPatch, tries: int, bound: float
) -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high

    monkeypatch.setattr("random.uniform", uniform)
    assert POLICY.backoff(tries) == bound
    assert asked == [(0, bound)]
    decision = POLICY.decide(exc.ServerError("x"), tries=tries, age=0.0, wrote=True)
    assert decision.delay == bound


def test_the_jitter_is_spread() -> None:
    delays = [POLICY.backoff(5) for _ in range(200)]
    assert all(0 <= delay <= 64 for delay in delays)
    assert len(set(delays)) > 100


# --- Rules of one's own ----------------------------------------------------------------------


def test_a_policy_of_ones_own_decides_in_eager_mode_too() -> None:
    from smsqueue import OutgoingMessage
    from smsqueue.providers import IProvider, NullProvider

    class Refuses(IProvider):
        def send(self, message: OutgoingMessage) -> OutgoingMessage:
            raise exc.RequestError("we do not serve this country")

    class Elsewhere(RetryPolicy):
        def decide(
            self, error: BaseException, *, tries: int, age: float, wrote: bool | None
        ) -> Decision:
            return Decision("failed", elsewhere=True)

    def send(retry: RetryPolicy | None) -> str | None:
        gateway = Gateway(eager=True, retry=retry)
        gateway.add_provider("a", Refuses)
        gateway.add_provider("b", NullProvider)
        gateway.router = lambda message: ["a", "b"]  # type: ignore[method-assign, misc]
        return gateway.send(OutgoingMessage("1", "x").route()).provider

    assert send(Elsewhere()) == "b"
    with pytest.raises(exc.RequestError):
        send(None)


@pytest.mark.parametrize(
    ("error", "label"),
    [
        (PluginLimits("x"), "LimitsError"),
        (exc.QueueUnavailable("x"), "QueueUnavailable"),
        (KeyError("x"), "KeyError"),
    ],
)
def test_the_label_of_an_error(error: BaseException, label: str) -> None:
    assert error_label(error) == label


@pytest.mark.parametrize("value", ["5", None, True, [5], float("nan"), -1])
@pytest.mark.parametrize("name", ["base", "cap", "give_up", "resends", "pause_max"])
def test_a_rule_of_the_wrong_type_is_refused_where_it_is_given(name: str, value: Any) -> None:
    """In the worker it would fail with each message."""
    with pytest.raises((TypeError, ValueError), match=f"RetryPolicy: {name} must"):
        RetryPolicy(**{name: value})
