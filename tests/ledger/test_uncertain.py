"""Answers that were lost: repeated only where that cannot send twice, else asked about."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar

import pytest

from smsqueue import OutgoingMessage, RetryPolicy, exc
from smsqueue.delivery import status_lookup
from smsqueue.delivery.outcomes import remedies
from smsqueue.ledger import AttemptBegun, Claimed
from smsqueue.message import statuses
from smsqueue.message.statuses import MessageStatus
from tests.ledger.bench import Bench, Told

LOST = exc.ConnectionError("no answer", ambiguous=True)


class Once(Told):
    """De-duplicates by key for an hour."""

    dedup_window: ClassVar[float] = 3600.0
    #: Class and key of each call.
    keys: list[tuple[str | None, bool]]

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        self.keys = [*getattr(self, "keys", []), (message.dedup_key, message.repeated)]
        return super().send(message)


class Asked(Told):
    """Can be asked about a message."""

    def __init__(self, gateway: Any, name: str) -> None:
        super().__init__(gateway, name)
        self.knows: list[MessageStatus | BaseException | None] = []
        self.questions: list[tuple[str | None, datetime]] = []

    def look_up(self, message: OutgoingMessage, since: datetime) -> MessageStatus | None:
        self.questions.append((message.reference, since))
        answer = self.knows.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def upkeep(bench: Bench) -> None:
    """As a worker's: it knows what the providers can do."""
    providers = bench.gateway.providers.items()
    bench.upkeep.remedies = {name: remedies(provider) for name, provider in providers}


def once(bench: Bench, *plan: Any) -> Once:
    provider = bench.add("once", *plan, cls=Once)
    assert isinstance(provider, Once)
    upkeep(bench)
    return provider


def asked(bench: Bench, *knows: MessageStatus | BaseException | None) -> Asked:
    provider = bench.add("asked", LOST, cls=Asked)
    assert isinstance(provider, Asked)
    provider.knows.extend(knows)
    upkeep(bench)
    return provider


def ask_now(bench: Bench, id: str) -> None:
    """Its time to be asked about has come, and a worker got the trigger."""
    assert bench.redis.zadd(bench.key("due", "ask"), {id: 1}, xx=True, ch=True) == 1
    bench.upkeep.turn()
    bench.deliver(id)


# --- The same again --------------------------------------------------------------------------


def test_a_lost_answer_is_repeated_with_the_same_key(bench: Bench) -> None:
    provider = once(bench, LOST, LOST)
    id = bench.send()
    bench.deliver(id)
    assert bench.state(id) == "retrying"
    for _ in range(2):
        bench.ripe(id)
        bench.deliver(id)
    assert bench.state(id) == "sent"
    assert provider.keys == [(f"{id}.1", False), (f"{id}.1", True), (f"{id}.1", True)]
    assert bench.field(id, "pin") is None


def test_it_goes_nowhere_else_meanwhile(bench: Bench) -> None:
    provider = once(bench, LOST, exc.ServerError("busy"), exc.CreditError("empty"))
    other = bench.add("other")
    id = bench.send_by("once", "other")
    for _ in range(4):
        bench.deliver(id)
        bench.ripe(id)
        bench.unpause("once")
    assert bench.state(id) == "sent"
    assert other.calls == []
    assert len(provider.keys) == 4


def test_a_definite_refusal_before_begins_with_another_key(bench: Bench) -> None:
    provider = once(bench, exc.ServerError("busy"), LOST)
    id = bench.send()
    for _ in range(3):
        bench.deliver(id)
        bench.ripe(id)
    assert provider.keys == [(f"{id}.1", False), (f"{id}.2", False), (f"{id}.2", True)]


def test_a_refusal_of_the_repetition_says_nothing_of_the_first_attempt(bench: Bench) -> None:
    once(bench, LOST, exc.RequestError("no"))
    id = bench.send()
    bench.deliver(id)
    bench.ripe(id)
    bench.deliver(id)
    assert bench.state(id) == "unknown"


def test_when_its_tries_are_over_it_is_unknown_not_failed(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(RetryPolicy(attempts=3))
    provider = once(bench, LOST, exc.ServerError("busy"), exc.ServerError("busy"))
    id = bench.send()
    for _ in range(3):
        bench.deliver(id)
        bench.ripe(id)
    assert bench.state(id) == "unknown"
    assert len(provider.keys) == 3


def test_when_the_window_is_over_it_is_unknown(bench: Bench) -> None:
    provider = once(bench, LOST)
    id = bench.send()
    bench.deliver(id)
    bench.redis.hset(bench.key("msg", id), "pin_until", 1)
    bench.ripe(id)
    bench.deliver(id)
    assert bench.state(id) == "unknown"
    assert len(provider.keys) == 1
    assert bench.gateway.requeue(id) is True
    bench.deliver(id)
    assert provider.keys[1] == (f"{id}.2", False)


def test_when_its_validity_is_over_it_is_unknown_not_expired(bench: Bench) -> None:
    once(bench, LOST)
    id = bench.send(expires=5)
    bench.deliver(id)
    bench.outdated(id)
    bench.ripe(id)
    bench.deliver(id)
    assert bench.state(id) == "unknown"


def test_it_cannot_be_cancelled_meanwhile(bench: Bench) -> None:
    once(bench, LOST)
    id = bench.send()
    bench.deliver(id)
    assert bench.gateway.cancel(id) is False
    assert bench.state(id) == "retrying"


def test_a_report_ends_it(bench: Bench) -> None:
    provider = once(bench, LOST)
    id = bench.send(status_report=True)
    bench.deliver(id)
    bench.report("delivered", reference=f"{id}.1", provider="once")
    bench.ripe(id)
    bench.deliver(id)
    assert bench.state(id) == "delivered"
    assert len(provider.keys) == 1


def test_a_worker_that_died_in_the_call_is_followed_a_few_times(bench: Bench) -> None:
    once(bench)
    id = bench.send()
    states = []
    for n in range(4):
        answer = bench.ledger.claim(
            id, f"token {n}", lease=30.0, worker="gone", default=("once", 30.0)
        )
        if not (isinstance(answer, Claimed) and isinstance(answer.begun, AttemptBegun)):
            bench.ledger.begin(id, f"token {n}", "once", lease=30.0, attempt=n + 1)
        bench.lapse(id)
        bench.ripe(id)
        states.append(bench.state(id))
    assert states == ["retrying", "retrying", "retrying", "unknown"]


# --- Asking ----------------------------------------------------------------------------------


def delivered() -> MessageStatus:
    return statuses.MessageDelivered("asked-7")


def test_a_provider_that_knows_the_message_settles_it(bench: Bench) -> None:
    provider, heard = asked(bench, delivered()), bench.listen()
    id = bench.send(context={"order": 7})
    bench.deliver(id)
    assert bench.state(id) == "unknown"
    ask_now(bench, id)
    assert bench.state(id) == "delivered"
    [(reference, since)] = provider.questions
    assert reference == f"{id}.1"
    assert abs(since.timestamp() * 1000 - bench.now()) < 60_000
    assert provider.calls == [f"{id}.1"]
    bench.run_hooks()
    assert [(s.id, s.state, s.msgid, s.context) for s in heard] == [
        (id, "delivered", "asked-7", {"order": 7})
    ]
    assert bench.look("ask", id) is None


def test_a_provider_that_does_not_know_it_is_asked_again_later_and_later(bench: Bench) -> None:
    provider = asked(bench, None, exc.ServerError("busy"), KeyError("15551234567"), None)
    id = bench.send()
    bench.deliver(id)
    waits = [(bench.look("ask", id) or 0) - bench.now()]
    for _ in range(4):
        ask_now(bench, id)
        waits.append((bench.look("ask", id) or 0) - bench.now())
    assert len(provider.questions) == 4
    assert bench.state(id) == "unknown"
    assert 0 < waits[0] <= 20_000
    assert waits[1:] == sorted(waits[1:])
    assert waits[4] > 600_000
    assert provider.calls == [f"{id}.1"]


def test_a_second_trigger_does_not_ask_the_provider(bench: Bench) -> None:
    provider = asked(bench, None)
    id = bench.send()
    bench.deliver(id)
    ask_now(bench, id)
    bench.deliver(id)
    assert len(provider.questions) == 1


def test_the_provider_is_not_asked_once_the_state_is_known(bench: Bench) -> None:
    provider = asked(bench)
    id = bench.send(status_report=True)
    bench.deliver(id)
    bench.report("undelivered", reference=f"{id}.1", provider="asked")
    assert bench.look("ask", id) is None
    bench.upkeep.turn()
    bench.deliver(id)
    assert provider.questions == []


def test_a_lost_worker_is_asked_about_too(bench: Bench) -> None:
    asked(bench, delivered())
    id = bench.send()
    bench.ledger.claim(id, "token", lease=30.0, worker="gone", default=("asked", 30.0))
    bench.lapse(id)
    assert bench.state(id) == "unknown"
    ask_now(bench, id)
    assert bench.state(id) == "delivered"


def test_a_message_unknown_to_its_provider_is_final_after_the_wait(bench: Bench) -> None:
    asked(bench)
    id = bench.send()
    bench.deliver(id)
    bench.lapse(id)
    assert bench.state(id) == "unknown"
    assert bench.look("ask", id) is None


# --- What providers are told -----------------------------------------------------------------


def test_the_provider_gets_the_remaining_validity(bench: Bench) -> None:
    told: list[float | None] = []
    bench.add("a", lambda message: told.append(message.provider_options.expires))
    bench.deliver(bench.send(expires=5))
    assert told[0] is not None
    assert 0 < told[0] <= 5


def test_a_repetition_says_the_same_of_the_validity(bench: Bench) -> None:
    told: list[float | None] = []

    class Telling(Once):
        def send(self, message: OutgoingMessage) -> OutgoingMessage:
            told.append(message.provider_options.expires)
            return super().send(message)

    bench.add("once", LOST, cls=Telling)
    upkeep(bench)
    id = bench.send(expires=5)
    bench.deliver(id)
    bench.ripe(id)
    bench.deliver(id)
    assert told[0] == pytest.approx(5, abs=1)
    assert told[0] == told[1]


def test_the_last_repetition_comes_while_the_key_is_known(bench: Bench) -> None:
    provider = bench.gateway.get_provider(once(bench, LOST).name)
    id = bench.send()
    bench.deliver(id)
    left = (float(bench.field(id, "pin_until") or 0) - bench.now()) / 1000
    assert left == pytest.approx(provider.dedup_window - provider.deadline - 15, abs=5)


def test_an_answer_that_is_no_report_is_asked_for_ever_less_often(bench: Bench) -> None:
    provider = bench.add("asked", LOST, cls=Asked)
    provider.knows.extend(["sent"] * 3)
    upkeep(bench)
    id = bench.send()
    bench.deliver(id)
    waits = []
    for _ in range(3):
        ask_now(bench, id)
        waits.append((bench.look("ask", id) or 0) - bench.now())
    assert bench.state(id) == "unknown"
    assert waits[0] < waits[1] < waits[2]


def test_a_look_up_that_hangs_is_asked_again_and_frees_its_slot(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_lookup, "_MARGIN", 0.2)  # seconds after its deadline
    released = threading.Event()

    class Hung(Asked):
        deadline = 0.0

        def look_up(self, message: OutgoingMessage, since: datetime) -> MessageStatus | None:
            self.questions.append((message.reference, since))
            released.wait()
            return None

    provider = bench.add("hung", LOST, cls=Hung)
    assert isinstance(provider, Hung)
    upkeep(bench)
    id = bench.send()
    bench.deliver(id)
    for _ in range(3):
        ask_now(bench, id)
    assert bench.state(id) == "unknown"
    assert bench.look("ask", id) is not None
    # Of one message one thread is lost, however often it is its turn.
    assert len(provider.questions) == 1
    assert bench.delivery.threads.hung() == {"look-up": 1}
    assert bench.delivery.slots.take("hung")
    released.set()


def test_a_look_up_leaves_the_slots_that_are_kept_for_single_messages(bench: Bench) -> None:
    bench.give_slots(8)
    provider = asked(bench, None)
    id = bench.send()
    bench.deliver(id)
    while bench.slots.take("asked", bulk=True):
        pass
    ask_now(bench, id)
    assert provider.questions == []
    assert bench.slots.take("asked")


def test_a_status_of_a_look_up_that_cannot_be_recorded_is_asked_for_again(bench: Bench) -> None:
    odd, good = statuses.MessageDelivered("x" * 2000), statuses.MessageDelivered("m")
    provider = asked(bench, odd, good)
    id = bench.send()
    bench.deliver(id)
    ask_now(bench, id)
    assert bench.state(id) == "unknown"
    ask_now(bench, id)
    assert bench.state(id) == "delivered"
    assert len(provider.questions) == 2
