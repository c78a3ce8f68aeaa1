"""Deliveries: routes, pauses, probes, and what each error of a provider means."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from smsqueue import OutgoingMessage, RetryPolicy, exc
from smsqueue.policy.retry import Decision
from tests.ledger.bench import Bench, HttpTold, Told


def _name(value: object) -> str:
    return repr(value) + ("-ambiguous" if getattr(value, "ambiguous", False) else "")


#: error -> state, tries used, is the provider paused?
OUTCOMES = [
    (exc.ConnectionError(), "retrying", 1, False),
    (exc.ServerError(), "retrying", 1, False),
    (exc.MessageSendError(), "retrying", 1, False),
    (exc.ProviderError(), "retrying", 1, False),
    (exc.LimitsError(), "retrying", 0, True),
    (exc.CreditError(), "retrying", 0, True),
    (exc.AuthError(), "retrying", 0, True),
    (exc.UnsupportedError(), "failed", 0, False),
    (exc.RequestError(), "failed", 0, False),
    (exc.ConnectionError(ambiguous=True), "unknown", 0, False),
    (exc.ServerError(ambiguous=True), "unknown", 0, False),
    (exc.LimitsError(ambiguous=True), "unknown", 0, False),
    (RuntimeError("15550001"), "unknown", 0, False),
]


@pytest.mark.parametrize("case", OUTCOMES, ids=lambda case: _name(case[0]))
def test_each_error_and_what_it_means(bench: Bench, case: tuple[Exception, str, int, bool]) -> None:
    error, state, tries, paused = case
    provider = bench.add("a", error)
    id = bench.send()
    assert bench.deliver(id).state == state
    assert bench.state(id) == state
    assert bench.tries(id) == tries
    assert bool(bench.redis.exists(bench.key("pause", "a"))) is paused
    assert len(provider.calls) == 1
    text = str(bench.record(id).timeline)
    assert "15550001" not in text
    assert "hello" not in text


def test_an_unknown_error_before_anything_was_written_is_retried(bench: Bench) -> None:
    bench.add("a", RuntimeError(), cls=HttpTold)
    id = bench.send()
    assert bench.deliver(id).state == "retrying"


def test_an_uncertain_message_that_may_be_resent_is(bench: Bench) -> None:
    provider = bench.add("a", exc.ServerError(ambiguous=True))
    id = bench.send(on_unknown="resend")
    assert bench.deliver(id).state == "retrying"
    bench.ripe(id)
    assert bench.deliver(id).state == "sent"
    assert provider.calls == [f"{id}.1", f"{id}.2"]


@pytest.mark.parametrize("limit", [{"attempts": 3}, {"resends": 2}])
def test_resending_ends_some_time(make_bench: Callable[..., Bench], limit: dict[str, int]) -> None:
    bench = make_bench(RetryPolicy(**limit))
    provider = bench.add("a", *[exc.ServerError(ambiguous=True)] * 10)
    id = bench.send(on_unknown="resend")
    for _ in range(10):
        bench.ripe(id)
        bench.deliver(id)
    assert len(provider.calls) == 3
    assert bench.state(id) == "unknown"  # it may well have arrived


def test_retries_end_some_time(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(RetryPolicy(attempts=3))
    heard = bench.listen()
    provider = bench.add("a", *[exc.ServerError(code=30001)] * 10)
    id = bench.send()
    for _ in range(10):
        bench.ripe(id)
        bench.deliver(id)
    assert len(provider.calls) == 3
    assert bench.state(id) == "failed"
    bench.run_hooks()
    assert [status.id for status in heard] == [id]


def test_a_retry_waits_for_its_time(make_bench: Callable[..., Bench]) -> None:
    class Slow(RetryPolicy):
        def backoff(self, tries: int) -> float:
            return 100.0

    bench = make_bench(Slow())
    provider = bench.add("a", exc.ServerError())
    id = bench.send()
    outcome = bench.deliver(id)
    assert outcome.wait == pytest.approx(100, abs=2)
    assert bench.deliver(id).state == "retrying"
    assert len(provider.calls) == 1
    bench.drain()
    bench.upkeep.turn()
    assert bench.published() == 0
    bench.redis.zadd(bench.key("due", "send"), {id: 1})
    bench.upkeep.turn()
    assert bench.published() == 1


def test_a_retry_past_its_validity_expires(bench: Bench) -> None:
    bench.add("a", exc.ServerError())
    id = bench.send(expires=1)
    bench.deliver(id)
    bench.outdated(id)
    assert bench.deliver(id).state == "expired"


def test_throttling_says_when_to_come_back(bench: Bench) -> None:
    provider = bench.add("a", exc.LimitsError(retry_after=120))
    id, other = bench.send(), bench.send()
    # It comes back after those who only wait for the pause to end.
    assert bench.deliver(id).wait == pytest.approx(120 * 1.2, abs=2)
    look = bench.look("send", id)
    assert look is not None
    assert look == pytest.approx(bench.now() + 120_000 * 1.2, abs=2000)
    # nobody else calls it meanwhile, and nobody is charged for that
    assert bench.deliver(other).wait == pytest.approx(120, abs=2)
    assert provider.calls == [f"{id}.1"]
    assert (bench.tries(id), bench.tries(other)) == (0, 0)
    assert bench.state(other) == "queued"
    assert bench.record(other).attempts == 0


@pytest.mark.parametrize(
    "error",
    [exc.ConnectionError(), exc.ServerError(), exc.LimitsError(), exc.CreditError(),
     exc.AuthError(), exc.UnsupportedError()],
    ids=_name,
)  # fmt: skip
def test_a_sure_refusal_goes_elsewhere_at_once(bench: Bench, error: Exception) -> None:
    a, b = bench.add("a", error), bench.add("b")
    id = bench.send_by("a", "b")
    assert bench.deliver(id).state == "sent"
    assert (a.calls, b.calls) == ([f"{id}.1"], [f"{id}.2"])
    assert bench.record(id).provider == "b"


@pytest.mark.parametrize(
    "error", [exc.RequestError(), exc.ServerError(ambiguous=True), RuntimeError()], ids=_name
)
def test_what_is_uncertain_or_hopeless_does_not_go_elsewhere(
    bench: Bench, error: Exception
) -> None:
    bench.add("a", error)
    b = bench.add("b")
    id = bench.send_by("a", "b")
    bench.deliver(id)
    assert bench.state(id) in ("failed", "unknown")
    assert b.calls == []


def test_a_route_that_fails_everywhere_begins_anew(bench: Bench) -> None:
    a, b = bench.add("a", exc.ServerError()), bench.add("b", exc.ServerError())
    id = bench.send_by("a", "b")
    assert bench.deliver(id).state == "retrying"
    bench.ripe(id)
    assert bench.deliver(id).state == "sent"
    assert (a.calls, b.calls) == ([f"{id}.1", f"{id}.3"], [f"{id}.2"])


def _pause(bench: Bench, provider: Told, seconds: float = 100) -> None:
    provider.then(exc.LimitsError(retry_after=seconds))
    bench.deliver(bench.send_by(provider.name))
    provider.calls.clear()


def test_a_paused_provider_is_passed_over(bench: Bench) -> None:
    a, b = bench.add("a"), bench.add("b")
    _pause(bench, a)
    id = bench.send_by("a", "b")
    assert bench.deliver(id).state == "sent"
    assert (a.calls, b.calls) == ([], [f"{id}.1"])


def test_a_message_whose_next_provider_is_paused_is_not_left_behind(bench: Bench) -> None:
    a, b = bench.add("a"), bench.add("b")
    _pause(bench, b)
    a.then(exc.ServerError())
    id = bench.send_by("a", "b")
    assert bench.deliver(id).state == "retrying"
    assert bench.state(id) == "retrying"
    assert bench.tries(id) == 1
    assert bench.look("send", id) is not None
    bench.ripe(id)
    assert bench.deliver(id).state == "sent"


def test_a_paused_provider_in_the_middle_is_passed_over(bench: Bench) -> None:
    a, b, c = bench.add("a"), bench.add("b"), bench.add("c")
    _pause(bench, b)
    a.then(exc.ServerError())
    id = bench.send_by("a", "b", "c")
    assert bench.deliver(id).state == "sent"
    assert (len(a.calls), len(b.calls), len(c.calls)) == (1, 0, 1)
    assert bench.tries(id) == 1


@pytest.mark.parametrize("trouble", ["paused", "busy"])
def test_a_message_that_one_cannot_and_another_may_send_waits_for_that(
    bench: Bench, trouble: str
) -> None:
    """A provider's momentary trouble does not make the other one's refusal final."""
    a, b = bench.add("a", exc.UnsupportedError()), bench.add("b")
    if trouble == "paused":
        _pause(bench, b)
    else:
        _no_slot(bench, "b")
    id = bench.send_by("a", "b")
    assert bench.deliver(id).state == "retrying"
    assert (len(a.calls), len(b.calls)) == (1, 0)


def _no_slot(bench: Bench, name: str) -> None:
    while bench.slots.enter(name) == 0:
        pass


@pytest.mark.parametrize("trouble", ["paused", "busy"])
@pytest.mark.parametrize("error", [exc.CreditError(), exc.AuthError()], ids=["credit", "auth"])
def test_a_message_waits_for_the_provider_of_its_route_that_may_be_called_first(
    bench: Bench, error: exc.ProviderError, trouble: str
) -> None:
    a, b = bench.add("a", error), bench.add("b")
    if trouble == "paused":
        _pause(bench, b, seconds=20)
    else:
        _no_slot(bench, "b")
    id = bench.send_by("a", "b")
    assert bench.deliver(id).state == "retrying"
    assert (bench.look("send", id) or 0) <= bench.now() + 21_000  # a is paused for 60 s
    bench.give_slots(4)
    bench.unpause("b")
    bench.ripe(id)
    assert bench.deliver(id).state == "sent"
    assert (len(a.calls), len(b.calls)) == (1, 1)


def test_a_message_waits_for_an_earlier_provider_of_its_route_if_that_is_first(
    bench: Bench,
) -> None:
    a, b = bench.add("a"), bench.add("b", exc.CreditError())
    _pause(bench, a, seconds=20)
    id = bench.send_by("a", "b")
    assert bench.deliver(id).state == "retrying"
    assert (len(a.calls), len(b.calls)) == (0, 1)
    assert (bench.look("send", id) or 0) <= bench.now() + 21_000


def test_a_provider_that_failed_and_is_not_paused_is_not_called_sooner_because_the_next_is_busy(
    make_bench: Callable[..., Bench],
) -> None:
    class Slow(RetryPolicy):
        def backoff(self, tries: int) -> float:
            return 500.0

    bench = make_bench(Slow())
    bench.add("a", exc.ServerError("busy"))
    bench.add("b")
    _no_slot(bench, "b")
    id = bench.send_by("a", "b")
    bench.deliver(id)
    assert (bench.look("send", id) or 0) > bench.now() + 400_000


def test_all_paused_is_a_wait_without_a_try(bench: Bench) -> None:
    a, b = bench.add("a"), bench.add("b")
    _pause(bench, a)
    _pause(bench, b)
    id = bench.send_by("a", "b")
    for _ in range(5):
        outcome = bench.deliver(id)
        assert outcome.state in ("queued", "retrying")
        assert outcome.error == "ProviderPaused"
    assert (bench.tries(id), bench.record(id).attempts) == (0, 0)
    assert (a.calls, b.calls) == ([], [])
    look = bench.look("send", id)
    assert look is not None
    assert look == pytest.approx(bench.now() + 100_000, abs=2000)


def test_one_probe_at_a_time_and_its_success_ends_the_pause(bench: Bench) -> None:
    provider = bench.add("a")
    _pause(bench, provider)
    bench.unpause("a")
    others = [bench.send() for _ in range(3)]

    def meanwhile(message: OutgoingMessage) -> None:
        for other in others:
            assert bench.deliver(other).error == "ProviderPaused"

    provider.then(meanwhile)
    probe = bench.send()
    bench.deliver(probe)
    assert provider.calls == [f"{probe}.1"]
    assert not bench.redis.exists(bench.key("pause", "a"))
    for other in others:
        assert bench.deliver(other).state == "sent"


def test_a_probe_that_fails_lengthens_the_pause(bench: Bench) -> None:
    provider = bench.add("a", *[exc.LimitsError()] * 4)
    waits = []
    for _ in range(4):
        bench.deliver(bench.send())
        until = int(bench.redis.hget(bench.key("pause", "a"), "until") or 0)
        since = float(bench.redis.hget(bench.key("pause", "a"), "since") or 0)
        waits.append(round((until - since) / 1000))
        bench.unpause("a")
    assert waits == [1, 2, 4, 8]
    assert len(provider.calls) == 4


def test_a_refusal_of_one_message_shows_that_the_provider_works(bench: Bench) -> None:
    provider = bench.add("a")
    _pause(bench, provider)
    bench.unpause("a")
    provider.then(exc.RequestError())
    bench.deliver(bench.send())
    assert not bench.redis.exists(bench.key("pause", "a"))


def test_a_call_that_began_before_the_pause_does_not_end_or_lengthen_it(bench: Bench) -> None:
    provider = bench.add("a")
    paused = bench.key("pause", "a")

    def during(error: Exception | None) -> Callable[[OutgoingMessage], object]:
        def meanwhile(message: OutgoingMessage) -> None:
            start = bench.now()
            while bench.now() <= start:  # the next millisecond
                pass
            _pause(bench, provider)
            if error is not None:
                raise error

        return meanwhile

    for error in (None, exc.LimitsError(retry_after=5)):
        provider.then(during(error))
        bench.deliver(bench.send())
        assert bench.redis.hget(paused, "times") == "1"
        bench.redis.delete(paused)


def test_a_busy_provider_is_waited_for_without_a_try(bench: Bench) -> None:
    provider, b = bench.add("a"), bench.add("b")
    held = 0
    while bench.slots.enter("a") == 0:
        held += 1
    id = bench.send_by("a", "b")
    outcome = bench.deliver(id)
    assert outcome.error == "ProviderBusy"
    assert (bench.tries(id), provider.calls, b.calls) == (0, [], [])
    for _ in range(held):
        bench.slots.leave("a", 0.1, well=True)
    assert bench.deliver(id).state == "sent"


@pytest.mark.parametrize("route", [(), ("a",)])
def test_one_of_many_waits_where_a_single_message_need_not(
    bench: Bench, route: tuple[str, ...]
) -> None:
    provider = bench.add("a")
    while bench.slots.enter("a", bulk=True) == 0:
        pass
    messages = [OutgoingMessage("15550001", "hello") for _ in range(2)]
    if route:
        messages = [message.route(*route) for message in messages]
    single, _ = bench.gateway.send(messages[0]), bench.gateway.send_many(messages[1:])
    assert bench.deliver(str(messages[1].id)).error == "ProviderBusy"
    assert bench.deliver(str(single.id)).state == "sent"
    assert len(provider.calls) == 1


def test_every_slot_is_given_back(bench: Bench) -> None:
    a, b = bench.add("a"), bench.add("b")
    for error, *_ in OUTCOMES:
        a.then(error)
        b.then(error)
        bench.deliver(bench.send_by("a", "b"))
        for name in ("a", "b"):
            bench.redis.delete(bench.key("pause", name))
    _pause(bench, b)
    a.then(exc.ServerError())
    bench.deliver(bench.send_by("a", "b"))
    for name in ("a", "b"):
        for _ in range(4):  # until the failures no longer reduce the number of its slots
            assert bench.slots.take(name)
            bench.slots.leave(name, 0.1, well=True)
        assert [bench.slots.take(name) for _ in range(5)] == [True] * 4 + [False]


@pytest.mark.parametrize("route", [["nobody"], ["a", "nobody"]])
def test_a_provider_that_this_worker_does_not_know_is_tried_later(
    bench: Bench, route: list[str]
) -> None:
    provider = bench.add("a")
    id = bench.send_by(*route)
    assert bench.deliver(id).state == "retrying"
    assert provider.calls == []
    bench.add("nobody")
    bench.ripe(id)
    assert bench.deliver(id).state == "sent"


def test_a_router_that_raises_is_tried_later_and_fails_in_the_end(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(RetryPolicy(attempts=2))
    provider = bench.add("a")
    id = bench.send_by("a")

    def broken(message: OutgoingMessage, *values: object) -> None:
        raise LookupError(message.dst)

    bench.gateway.router = broken
    assert bench.deliver(id).state == "retrying"
    bench.ripe(id)
    assert bench.deliver(id).state == "failed"
    assert provider.calls == []
    assert "15550001" not in str(bench.record(id).timeline)


def test_on_send_is_called_once_with_the_providers_answer(bench: Bench) -> None:
    def told(message: OutgoingMessage) -> None:
        message.meta = {"price": 1}

    bench.add("a", told)
    sent: list[OutgoingMessage] = []
    bench.gateway.onSend.connect(sent.append, name="sent")
    id = bench.send(context={"order": 1})
    bench.deliver(id)
    bench.deliver(id)
    bench.run_hooks()
    bench.run_hooks()
    assert [message.id for message in sent] == [id]
    assert sent[0].msgid == bench.record(id).msgid
    assert sent[0].meta == {"price": 1}
    assert sent[0].provider == "a"
    assert sent[0].provider_options.context == {"order": 1}


def test_the_message_that_has_just_failed_is_not_the_next_probe(bench: Bench) -> None:
    """Else a message that is refused each time would keep its provider paused for all."""
    refuse = exc.CreditError("not for this number")
    bench.add("a", refuse, None, refuse)
    bad, good = bench.send("bad"), bench.send("good")
    bench.deliver(bad)
    bench.deliver(good)
    first, second = bench.look("send", good), bench.look("send", bad)
    assert first is not None
    assert second is not None
    assert first < second
    bench.unpause("a")
    bench.ripe(good)
    bench.deliver(good)
    assert bench.state(good) == "sent"


def test_a_message_is_queued_since_it_came_not_since_it_was_looked_at(bench: Bench) -> None:
    bench.add("a", exc.LimitsError(retry_after=120))
    bench.deliver(bench.send())
    id = bench.send()
    since = bench.redis.zscore(bench.key("state", "queued"), id)
    bench.deliver(id)
    assert bench.state(id) == "queued"
    assert bench.redis.zscore(bench.key("state", "queued"), id) == pytest.approx(since, abs=5)


def test_the_default_provider_may_change_during_a_claim(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = bench.add("a"), bench.add("b")
    claim = bench.ledger.claim

    def claim_and_change(*args: Any, **options: Any) -> Any:
        answer = claim(*args, **options)
        bench.gateway.default_provider = "b"
        return answer

    monkeypatch.setattr(bench.ledger, "claim", claim_and_change)
    bench.gateway.default_provider = "a"
    id = bench.send()
    assert bench.deliver(id).state == "sent"
    assert (len(a.calls), len(b.calls)) == (1, 0)
    assert bench.record(id).provider == "a"
    for name in ("a", "b"):
        assert [bench.slots.take(name) for _ in range(5)] == [True] * 4 + [False]


class Broken(RetryPolicy):
    """A policy of the application's that fails."""

    def decide(self, error: BaseException, **known: Any) -> Decision:
        raise KeyError("table")


class Nonsense(RetryPolicy):
    def decide(self, error: BaseException, **known: Any) -> Decision:
        return Decision("retry", delay=math.nan)


@pytest.mark.parametrize("policy", [Broken, Nonsense])
def test_a_retry_policy_that_fails_keeps_no_outcome_from_being_recorded(
    make_bench: Callable[..., Bench], policy: type[RetryPolicy], caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench(policy(attempts=2))
    a = bench.add("a", exc.ServerError("busy"), exc.ServerError("busy"))
    id = bench.send()
    assert bench.deliver(id).state == "retrying"
    assert f"the retry policy failed: decide of {policy.__name__}" in caplog.text
    bench.ripe(id)
    assert bench.deliver(id).state == "failed"  # with the values of that policy
    assert len(a.calls) == 2
    id = bench.send_by("a")
    bench.gateway.router = lambda message, *values: 1 // 0
    assert bench.deliver(id).state == "retrying"


def test_an_error_whose_parts_raise_is_recorded(bench: Bench) -> None:
    class Odd(exc.ServerError):
        @property
        def retry_after(self) -> float:  # type: ignore[override]
            raise KeyError("retry_after")

    class Code:
        def __str__(self) -> str:
            raise KeyError("code")

    bench.add("a", Odd(code=Code()))
    assert bench.deliver(bench.send()).state == "retrying"


def test_the_next_provider_gets_the_message_as_it_was_accepted(bench: Bench) -> None:
    def change(message: OutgoingMessage) -> None:
        message.body, message.src = "[a] " + message.body, "A"
        message.provider_params["of"] = "a"
        message.provider_options.senderId = "A"
        raise exc.ServerError("busy")

    got: list[OutgoingMessage] = []
    bench.add("a", change)
    bench.add("b", got.append)
    id = bench.send_by("a", "b")
    assert bench.deliver(id).state == "sent"
    (message,) = got
    assert (message.body, message.src, message.provider_options.senderId) == ("hi", None, None)
    assert message.provider_params == {}
    assert bench.record(id).msgid == message.msgid


def test_a_next_provider_that_cannot_be_asked_for_its_deadline_costs_no_slot(
    bench: Bench,
) -> None:
    class Gone(Told):
        gone = False

        @property
        def deadline(self) -> float:  # type: ignore[override]
            if self.gone:
                raise LookupError("deadline")
            return 30.0

    def refuse(message: OutgoingMessage) -> None:
        Gone.gone = True
        raise exc.ServerError("busy")

    bench.add("a", refuse)
    bench.add("b", cls=Gone)
    id = bench.send_by("a", "b")
    assert bench.deliver(id).state == "retrying"
    assert [bench.slots.take("b") for _ in range(5)] == [True] * 4 + [False]


class Odd(Told):
    """A plugin whose facts cannot be asked for."""

    @property
    def unique_msgids(self) -> bool:  # type: ignore[override]
        raise LookupError("unique_msgids")


@pytest.mark.parametrize(
    ("error", "state"), [(None, "sent"), (exc.ServerError(ambiguous=True), "unknown")]
)
def test_a_plugin_whose_facts_raise_keeps_no_outcome_from_being_recorded(
    bench: Bench, error: Exception | None, state: str
) -> None:
    heard: list[OutgoingMessage] = []
    bench.gateway.onSend += heard.append
    bench.add("odd", error, cls=Odd)
    id = bench.send()
    assert bench.deliver(id).state == state
    bench.run_hooks()
    assert [message.id for message in heard] == ([id] if state == "sent" else [])


def test_the_timeline_has_the_sender_of_the_pool(bench: Bench) -> None:
    seen: list[str | None] = []
    bench.gateway.add_provider("a", Told, sender_pool=["Shop"]).then(  # type: ignore[attr-defined]
        lambda message: seen.append(message.src)
    )
    id = bench.send()
    bench.deliver(id)
    assert seen == ["Shop"]
    assert bench.record(id).timeline[-1]["why"] == "from Shop"
