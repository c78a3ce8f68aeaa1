"""What each error means for a message, and when to give up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smsqueue import Gateway, RetryPolicy, exc
from smsqueue.retry import Decision, error_label

POLICY = RetryPolicy()


class PluginLimits(exc.LimitsError):
    """A plugin's own subclass."""


# error, wrote -> verdict, elsewhere, counted, pauses the provider, shows that it is well
TABLE: dict[str, tuple[BaseException, bool | None, tuple[str, bool, bool, bool, bool]]] = {
    "nothing was written": (
        exc.ConnectionError("refused"),
        False,
        ("retry", True, True, True, False),
    ),
    "a plugin's connection error": (
        exc.ConnectionError("refused"),
        None,
        ("retry", True, True, True, False),
    ),
    "the provider's 5xx": (
        exc.ServerError("503", http_status=503),
        True,
        ("retry", True, True, False, False),
    ),
    "read timeout": (
        exc.ConnectionError("timeout", ambiguous=True),
        True,
        ("unknown", False, True, False, False),
    ),
    "a gateway's 502": (
        exc.ServerError("502", ambiguous=True),
        True,
        ("unknown", False, True, False, False),
    ),
    "2xx without an answer": (
        exc.MessageSendError("?", ambiguous=True),
        True,
        ("unknown", False, True, False, False),
    ),
    "an ambiguous refusal": (
        exc.RequestError("?", ambiguous=True),
        True,
        ("unknown", False, True, False, False),
    ),
    "throttled": (exc.LimitsError("slow"), True, ("retry", True, False, True, False)),
    "throttled, by a subclass": (PluginLimits("slow"), True, ("retry", True, False, True, False)),
    "no credit": (exc.CreditError("empty"), True, ("retry", True, False, True, False)),
    "locked out": (exc.AuthError("who?"), True, ("retry", True, False, True, False)),
    "unsupported": (exc.UnsupportedError("no"), True, ("failed", True, True, False, True)),
    "refused": (exc.RequestError("no"), True, ("failed", False, True, False, True)),
    "some send error": (exc.MessageSendError("?"), True, ("retry", True, True, False, False)),
    "some provider error": (exc.ProviderError("?"), None, ("retry", True, True, False, False)),
    "a bug before writing": (KeyError("x"), False, ("retry", False, True, False, False)),
    "a bug after writing": (KeyError("x"), True, ("unknown", False, True, False, False)),
    "a bug, who knows when": (KeyError("x"), None, ("unknown", False, True, False, False)),
    "a network error of a plugin": (
        TimeoutError("x"),
        None,
        ("unknown", False, True, False, False),
    ),
    "the router": (AssertionError("who?"), False, ("retry", False, True, False, False)),
}


@pytest.mark.parametrize("case", TABLE)
def test_what_an_outcome_means(case: str) -> None:
    error, wrote, expected = TABLE[case]
    decision = POLICY.decide(error, tries=0, age=0.0, wrote=wrote)
    told = (decision.verdict, decision.elsewhere, decision.counted)
    assert (*told, decision.pause is not None, decision.well) == expected


@pytest.mark.parametrize(
    ("error", "delay", "pause", "longest"),
    [
        (exc.LimitsError("x"), 1.0, 1.0, 60.0),
        (exc.LimitsError("x", retry_after=17.0), 17.0, 17.0, 17.0),
        (exc.LimitsError("x", retry_after=0.0), 0.0, 0.0, 0.0),
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


# --- Giving up -------------------------------------------------------------------------------


@pytest.mark.parametrize(("tries", "verdict"), [(0, "retry"), (23, "retry"), (24, "failed")])
def test_giving_up_after_the_last_try(tries: int, verdict: str) -> None:
    error = exc.ServerError("x")
    assert POLICY.decide(error, tries=tries, age=0.0, wrote=True).verdict == verdict


@pytest.mark.parametrize(("age", "verdict"), [(86400.0, "retry"), (86400.1, "failed")])
@pytest.mark.parametrize("kind", [exc.ServerError, exc.LimitsError, exc.CreditError])
def test_giving_up_at_the_first_error_after_a_day(
    kind: type[exc.ProviderError], age: float, verdict: str
) -> None:
    assert POLICY.decide(kind("x"), tries=0, age=age, wrote=True).verdict == verdict


def test_what_is_not_the_messages_fault_uses_no_try() -> None:
    decision = POLICY.decide(exc.LimitsError("x"), tries=24, age=0.0, wrote=True)
    assert decision.verdict == "retry"


def test_the_other_providers_still_get_their_turn_and_the_pause_stays() -> None:
    error = exc.ConnectionError("x")
    assert POLICY.decide(error, tries=24, age=0.0, wrote=False) == Decision(
        "failed", elsewhere=True, pause=1.0, pause_max=60.0
    )
    bug = POLICY.decide(KeyError("x"), tries=24, age=0.0, wrote=False)
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
    decision = replace(POLICY, attempts=10**7).decide(
        exc.ServerError("x"), tries=tries, age=0.0, wrote=True
    )
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
