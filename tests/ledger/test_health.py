"""A provider is paused by what several messages met there, not by one message's own trouble."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from smsqueue import OutgoingMessage, RetryPolicy, exc
from tests.ledger.bench import Bench, Told
from tests.ledger.test_uncertain import Asked, ask_now, upkeep

#: Every error that may say that a provider is unhealthy.
SICK: list[Exception] = [
    exc.ServerError("500", code="500"),
    exc.ServerError("502", ambiguous=True),
    exc.ConnectionError("refused"),
    exc.ConnectionError("timeout", ambiguous=True),
    exc.MessageSendError("?"),
    exc.ProviderError("?"),
    exc.LimitsError("?", ambiguous=True),
    RuntimeError("a plugin's own"),
]


def _name(error: Exception) -> str:
    return f"{type(error).__name__}{'-ambiguous' if getattr(error, 'ambiguous', False) else ''}"


def _paused(bench: Bench, name: str = "a") -> bool:
    return name in [pause.provider for pause in bench.ledger.pauses()]


def _send(bench: Bench, provider: Told, *errors: Exception | None) -> None:
    """A message for each error (None: it is sent)."""
    for error in errors:
        provider.then(error)
        bench.deliver(bench.send_by(provider.name))


@pytest.mark.parametrize("error", SICK, ids=_name)
def test_five_messages_that_fail_in_a_row_pause_the_provider(
    bench: Bench, error: Exception
) -> None:
    a = bench.add("a")
    _send(bench, a, *[error] * 4)
    assert not _paused(bench)
    _send(bench, a, error)
    assert _paused(bench)
    calls = len(a.calls)
    id = bench.send_by("a")
    assert bench.deliver(id).error == "ProviderPaused"
    assert (bench.state(id), bench.tries(id), len(a.calls)) == ("queued", 0, calls)


@pytest.mark.parametrize("error", SICK, ids=_name)
def test_one_message_that_always_fails_pauses_no_provider(bench: Bench, error: Exception) -> None:
    a = bench.add("a")
    id = bench.send_by("a", on_unknown="resend")
    for _ in range(20):
        a.then(error)
        bench.ripe(id)
        bench.deliver(id)
    assert len(a.calls) == 20
    assert not _paused(bench)


def test_one_message_that_always_fails_among_others_pauses_no_provider(bench: Bench) -> None:
    a = bench.add("a")
    id = bench.send_by("a")
    for _ in range(30):
        _send(bench, a, None)
        a.then(exc.ServerError())
        bench.ripe(id)
        bench.deliver(id)
    assert not _paused(bench)


def test_a_call_that_works_ends_the_row(bench: Bench) -> None:
    a = bench.add("a")
    for _ in range(3):
        _send(bench, a, *[exc.ServerError()] * 4, *[None] * 6)
    assert not _paused(bench)


def test_a_message_that_is_refused_shows_that_its_provider_works(bench: Bench) -> None:
    a = bench.add("a")
    _send(bench, a, *[exc.ServerError()] * 4, exc.RequestError(), exc.ServerError())
    assert not _paused(bench)


def test_half_of_the_last_twenty_messages_pause_the_provider(bench: Bench) -> None:
    a = bench.add("a")
    _send(bench, a, *[exc.ServerError(ambiguous=True), None] * 9)
    assert not _paused(bench)
    _send(bench, a, exc.ServerError(ambiguous=True), None)
    _send(bench, a, exc.ServerError(ambiguous=True))
    assert _paused(bench)


def test_the_trouble_of_one_provider_pauses_no_other(bench: Bench) -> None:
    a, b = bench.add("a"), bench.add("b")
    for _ in range(6):
        _send(bench, a, exc.ServerError())
        _send(bench, b, None)
        a.plan.clear()
    assert (_paused(bench, "a"), _paused(bench, "b")) == (True, False)


def test_messages_of_a_paused_provider_go_to_the_next(bench: Bench) -> None:
    a, b = bench.add("a"), bench.add("b")
    bench.fail_in_a_row(a, exc.ServerError(ambiguous=True))
    id = bench.send_by("a", "b")
    assert bench.deliver(id).state == "sent"
    assert b.calls == [f"{id}.1"]


@pytest.mark.parametrize("error", SICK, ids=_name)
def test_a_probe_that_fails_doubles_the_pause_up_to_a_minute(
    bench: Bench, error: Exception
) -> None:
    a = bench.add("a")
    bench.fail_in_a_row(a, error)
    lengths = []
    for _ in range(8):
        [pause] = bench.ledger.pauses()
        lengths.append(round(pause.left))
        bench.unpause("a")
        _send(bench, a, error)
    assert lengths == [1, 2, 4, 8, 16, 32, 60, 60]
    assert len(a.calls) == 5 + 8


def test_a_probe_that_works_ends_the_pause_for_all(bench: Bench) -> None:
    a = bench.add("a")
    bench.fail_in_a_row(a, exc.ServerError(ambiguous=True))
    bench.unpause("a")
    _send(bench, a, None)
    assert not _paused(bench)


def test_a_provider_that_fails_again_soon_is_paused_for_longer(bench: Bench) -> None:
    """Else one that answers every tenth call would burn five messages a second."""
    a = bench.add("a")
    for expected in (1, 2, 4):
        bench.fail_in_a_row(a, exc.ServerError(ambiguous=True))
        [pause] = bench.ledger.pauses()
        assert round(pause.left) == expected
        bench.unpause("a")
        _send(bench, a, None)
    # It has worked for a while: the next pause is a short one.
    health = bench.key("health", "a")
    since = float(bench.redis.hget(health, "since") or 0)
    bench.redis.hset(health, "since", since - 61_000)
    bench.fail_in_a_row(a, exc.ServerError(ambiguous=True))
    assert round(bench.ledger.pauses()[0].left) == 1


def test_calls_that_began_before_a_pause_ended_say_nothing_of_now(bench: Bench) -> None:
    """Answers that come late, of calls that hung during the outage, do not pause it anew."""
    a = bench.add("a")
    late: list[OutgoingMessage] = []

    def hang(depth: int) -> Callable[[OutgoingMessage], None]:
        def step(message: OutgoingMessage) -> None:
            late.append(message)
            if depth:
                a.plan.insert(0, hang(depth - 1))
                bench.deliver(bench.send_by("a"))
            else:  # meanwhile it was paused, and a probe has ended the pause
                bench.give_slots(4)
                bench.fail_in_a_row(a, exc.ServerError())
                bench.unpause("a")
                a.plan.clear()
                bench.deliver(bench.send_by("a"))
                assert not _paused(bench)
            raise exc.ConnectionError("timeout", ambiguous=True)

        return step

    bench.give_slots(100)
    a.then(hang(5))
    bench.deliver(bench.send_by("a"))
    assert len(late) == 6
    assert not _paused(bench)


# --- A wait that the provider asks for -------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        exc.ServerError,
        exc.LimitsError,
        exc.CreditError,
        exc.AuthError,
        exc.ConnectionError,
        exc.RequestError,
        exc.UnsupportedError,
        exc.ProviderError,
    ],
)
@pytest.mark.parametrize("ambiguous", [False, True])
def test_a_requested_wait_pauses_the_provider_at_once(
    bench: Bench, kind: type[exc.ProviderError], ambiguous: bool
) -> None:
    a = bench.add("a")
    _send(bench, a, kind("x", retry_after=120.0, ambiguous=ambiguous))
    [pause] = bench.ledger.pauses()
    assert pause.left == pytest.approx(120, abs=2)
    for _ in range(3):
        assert bench.deliver(bench.send_by("a")).error == "ProviderPaused"
    assert len(a.calls) == 1


@pytest.mark.parametrize("wait", [0, -5, 0.001])
def test_a_requested_wait_of_nothing_does_not_shorten_the_pause(bench: Bench, wait: float) -> None:
    a = bench.add("a")
    lengths = []
    for _ in range(4):
        _send(bench, a, exc.LimitsError("slow", retry_after=wait))
        lengths.append(round(bench.ledger.pauses()[0].left))
        bench.unpause("a")
    assert lengths == [1, 2, 4, 8]


# --- Long outages ----------------------------------------------------------------------------


def _hours_pass(bench: Bench, id: str, hours: float) -> None:
    """Redis's clock goes on by so much, as this message sees it."""
    since = float(bench.field(id, "since") or bench.record(id).accepted_at.timestamp() * 1000)
    bench.redis.hset(bench.key("msg", id), "since", int(since - hours * 3_600_000))
    bench.ripe(id)
    bench.redis.delete(bench.key("pause", "a"), bench.key("health", "a"))


def test_a_message_survives_an_outage_of_a_day(bench: Bench) -> None:
    a = bench.add("a")
    id = bench.send_by("a")
    for _ in range(24 * 6):
        a.then(exc.ConnectionError("refused"))
        _hours_pass(bench, id, 1 / 6)
        assert bench.deliver(id).state == "retrying"
    assert bench.tries(id) == 24 * 6
    bench.ripe(id)
    assert bench.deliver(id).state == "sent"


def test_a_message_is_given_up_36_hours_after_it_should_have_gone_out(bench: Bench) -> None:
    a = bench.add("a")
    id = bench.send_by("a")
    for hours, state in [(35, "retrying"), (2, "failed")]:
        a.then(exc.ServerError())
        _hours_pass(bench, id, hours)
        assert bench.deliver(id).state == state


def test_a_lost_worker_after_a_long_outage_fails_no_message(bench: Bench) -> None:
    a = bench.add("a")
    id = bench.send_by("a")
    for _ in range(30):
        a.then(exc.ServerError())
        _hours_pass(bench, id, 0.1)
        bench.deliver(id)
    bench.ripe(id)
    bench.ledger.claim(id, "token", lease=60.0, worker="dies")
    bench.lapse(id)
    assert bench.state(id) == "retrying"


def test_a_router_that_is_down_for_a_day_fails_no_message(bench: Bench) -> None:
    bench.add("a")
    id = bench.send_by("a")

    def broken(message: OutgoingMessage, *values: object) -> None:
        raise LookupError("its database is away")

    bench.gateway.router, working = broken, bench.gateway.router
    for _ in range(24 * 6):
        _hours_pass(bench, id, 1 / 6)
        assert bench.deliver(id).state == "retrying"
    bench.gateway.router = working
    bench.ripe(id)
    assert bench.deliver(id).state == "sent"


def test_a_policy_of_ones_own_may_limit_the_tries(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(RetryPolicy(attempts=2))
    a = bench.add("a", exc.ServerError(), exc.ServerError())
    id = bench.send_by("a")
    assert bench.deliver(id).state == "retrying"
    bench.ripe(id)
    assert bench.deliver(id).state == "failed"
    assert len(a.calls) == 2


# --- Look-ups --------------------------------------------------------------------------------


def test_a_paused_provider_is_not_asked_about_messages_either(bench: Bench) -> None:
    a = bench.add("asked", cls=Asked)
    assert isinstance(a, Asked)
    upkeep(bench)
    [id, *_] = bench.fail_in_a_row(a, exc.ConnectionError("timeout", ambiguous=True))
    assert bench.state(id) == "unknown"
    ask_now(bench, id)
    assert a.questions == []
    look = bench.look("ask", id)
    assert look is not None
    assert look > bench.now()
    bench.unpause("asked")
    a.knows.append(None)
    ask_now(bench, id)
    assert [reference for reference, _ in a.questions] == [f"{id}.1"]


def test_the_wait_that_a_provider_requests_in_a_look_up_counts(bench: Bench) -> None:
    a = bench.add("asked", exc.ConnectionError("timeout", ambiguous=True), cls=Asked)
    assert isinstance(a, Asked)
    upkeep(bench)
    a.knows.append(exc.LimitsError("slow", retry_after=3600.0))
    id = bench.send()
    bench.deliver(id)
    ask_now(bench, id)
    look = bench.look("ask", id)
    assert look is not None
    assert look - bench.now() == pytest.approx(3_600_000, abs=5000)


@pytest.mark.parametrize("error", [exc.UnsupportedError("no letters"), None], ids=_name)
@pytest.mark.parametrize("paused", [True, False])
def test_what_another_provider_cannot_do_waits_for_the_one_that_is_paused_or_failed(
    bench: Bench, error: Exception | None, paused: bool
) -> None:
    """The other one's "I cannot" is final only if those before it said so, too."""
    a, b = bench.add("a"), bench.add("b", error)
    if paused:
        bench.fail_in_a_row(a, exc.ServerError("502", ambiguous=True))
    else:
        a.then(exc.ConnectionError("refused"))
    id = bench.send_by("a", "b")
    bench.deliver(id)
    if error is None:
        assert bench.state(id) == "sent"
        return
    assert bench.state(id) == "retrying"
    assert len(b.calls) == 1
    bench.unpause("a")
    bench.ripe(id)
    bench.deliver(id)
    assert bench.state(id) == "sent"
    assert bench.record(id).provider == "a"


def test_what_no_provider_can_do_fails_at_once(bench: Bench) -> None:
    a, b = bench.add("a", exc.UnsupportedError("?")), bench.add("b", exc.UnsupportedError("?"))
    id = bench.send_by("a", "b")
    bench.deliver(id)
    assert (bench.state(id), len(a.calls), len(b.calls)) == ("failed", 1, 1)


def test_a_message_that_waits_for_an_earlier_provider_is_given_up_by_the_same_rules(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(RetryPolicy(attempts=4))
    a, b = bench.add("a"), bench.add("b")
    id = bench.send_by("a", "b")
    for _ in range(2):
        a.then(exc.ConnectionError("refused"))
        b.then(exc.UnsupportedError("?"))
        bench.ripe(id)
        bench.deliver(id)
    assert bench.state(id) == "failed"
