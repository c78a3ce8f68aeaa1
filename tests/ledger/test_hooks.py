"""A handler that succeeded is not called again, one that failed is, and no event is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from smsqueue import IncomingMessage, OutgoingMessage, RetryPolicy, exc
from smsqueue.delivery.event_runner import EventRunner
from smsqueue.ledger import ClaimedEvent, Early, HeldElsewhere, Ledger
from smsqueue.message.statuses import MessageStatus
from tests.ledger.bench import Bench, Told


@pytest.fixture
def provider(bench: Bench) -> Told:
    return bench.add("a")


def _receive(bench: Bench, body: str = "YES", msgid: object = None) -> str:
    message = IncomingMessage("15550001", body, msgid)
    message.provider = "a"
    bench.gateway.receive_message(message)
    assert message.id is not None
    return message.id


class Failing:
    """A handler that fails as often as it was told."""

    def __init__(self, times: int) -> None:
        self.times, self.calls = times, 0

    def __call__(self, subject: object) -> None:
        self.calls += 1
        if self.calls <= self.times:
            raise ValueError("15550001 said something private")


def test_a_retry_runs_only_what_has_not_succeeded(bench: Bench, provider: Told) -> None:
    good, bad, last = Failing(0), Failing(2), Failing(0)
    for name, handler in (("good", good), ("bad", bad), ("last", last)):
        bench.gateway.onReceive.connect(handler, name=name)
    event = _receive(bench)
    for state in ("waiting", "waiting", "done", "done"):
        assert bench.hooks.run(event).state == state
        bench.ripe_event(event)
    assert (good.calls, bad.calls, last.calls) == (1, 3, 1)
    assert event not in bench.due()


def test_a_retry_waits_for_its_time(bench: Bench, provider: Told) -> None:
    class Slow(RetryPolicy):
        def backoff(self, tries: int) -> float:
            return 100.0

    bench.hooks.retry = Slow()
    bad = Failing(1)
    bench.gateway.onReceive.connect(bad, name="bad")
    event = _receive(bench)
    assert bench.hooks.run(event).wait == 100.0
    assert bench.hooks.run(event).state == "waiting"
    assert bad.calls == 1
    assert bench.look("hook", event) == pytest.approx(bench.now() + 100_000, abs=2000)


def test_an_event_whose_handler_always_fails_is_dead_and_can_be_replayed(
    bench: Bench, provider: Told
) -> None:
    bench.hooks.retry = RetryPolicy(attempts=3)
    good, bad = Failing(0), Failing(3)
    bench.gateway.onReceive.connect(good, name="good")
    bench.gateway.onReceive.connect(bad, name="bad")
    event = _receive(bench)
    for _ in range(6):
        bench.hooks.run(event)
        bench.ripe_event(event)
    assert (good.calls, bad.calls) == (1, 3)
    assert bench.ledger.counts()["dead"] == 1
    assert event not in bench.due()
    assert bench.ledger.replay(event)[0] == "dead"
    assert bench.hooks.run(event).state == "done"
    assert (good.calls, bad.calls) == (1, 4)
    assert bench.gateway.replay(event) is True
    assert bench.gateway.replay(event) is False
    assert bench.hooks.run(event).state == "done"
    assert (good.calls, bad.calls) == (2, 5)


def test_a_failing_hook_never_sends_twice(bench: Bench, provider: Told) -> None:
    bad, status = Failing(1), Failing(1)
    bench.gateway.onSend.connect(bad, name="bad")
    bench.gateway.onStatus.connect(status, name="status")
    id = bench.send(status_report=True)
    bench.deliver(id)
    bench.report("delivered", reference=f"{id}.1")
    bench.run_hooks()
    for event in bench.events():
        bench.ripe_event(event)
    bench.run_hooks()
    assert (bad.calls, status.calls) == (2, 2)
    assert provider.calls == [f"{id}.1"]
    assert bench.events() == []


def test_an_auto_reply_goes_out_once(bench: Bench, provider: Told) -> None:
    sent: list[str] = []

    def answer(message: IncomingMessage) -> None:
        for _ in range(2):  # two equal replies are two
            reply = OutgoingMessage(message.src, "thank you")
            sent.append(bench.gateway.send(reply).id or "")
        if len(sent) < 6:
            raise ValueError

    bench.gateway.onReceive.connect(answer, name="answer")
    event = _receive(bench)
    for _ in range(3):
        bench.hooks.run(event)
        bench.ripe_event(event)
    assert len(sent) == 6
    assert len(set(sent)) == 2
    assert bench.ledger.counts()["queued"] == 2
    # another event is another reply
    bench.hooks.run(_receive(bench))
    assert len(set(sent)) == 4


def test_one_object_sent_from_two_events_is_two_messages(bench: Bench, provider: Told) -> None:
    alert = OutgoingMessage("15559999", "somebody wrote")
    ids: list[str] = []

    def warn(message: IncomingMessage) -> None:
        for _ in range(2):
            ids.append(bench.gateway.send(alert).id or "")

    bench.gateway.onReceive.connect(warn, name="warn")
    for n in range(2):
        bench.hooks.run(_receive(bench, str(n)))
    assert len(set(ids)) == 4
    bench.gateway.send(alert)
    assert alert.duplicate is False


def test_an_unheard_message_is_kept_and_replayed(bench: Bench, provider: Told) -> None:
    event = _receive(bench)
    assert bench.hooks.run(event).state == "unheard"
    fields = bench.ledger.read_event(event) or {}
    assert "SMSQUEUE_GATEWAY" in fields["why"]
    assert event not in bench.due()
    texts: list[str] = []
    bench.gateway.onReceive.connect(lambda message: texts.append(message.body), name="texts")
    assert bench.gateway.replay(event) is True
    assert bench.hooks.run(event).state == "done"
    assert texts == ["YES"]


def test_a_status_or_send_without_handlers_leaves_nothing(bench: Bench, provider: Told) -> None:
    id = bench.send()
    bench.deliver(id)
    bench.report("delivered", reference=f"{id}.1")
    bench.run_hooks()
    assert bench.events() == []


def test_two_workers_do_not_run_one_event_at_once(bench: Bench, provider: Told) -> None:
    calls: list[str] = []

    def slow(message: IncomingMessage) -> None:
        calls.append(message.body)
        assert bench.hooks.run(message.id or "").state == "waiting"

    bench.gateway.onReceive.connect(slow, name="slow")
    event = _receive(bench)
    assert bench.hooks.run(event).state == "done"
    assert calls == ["YES"]


def test_an_event_whose_worker_died_is_run_by_another(bench: Bench, provider: Told) -> None:
    good = Failing(0)
    bench.gateway.onReceive.connect(good, name="good")
    event = _receive(bench)
    assert isinstance(bench.ledger.claim_event(event, "dead", "w"), ClaimedEvent)
    assert isinstance(bench.ledger.claim_event(event, "dead", "w"), ClaimedEvent)
    assert bench.hooks.run(event).state == "waiting"
    bench.redis.hset(bench.key("event", event), "lease", 1)
    bench.redis.zadd(bench.key("due", "hook"), {event: 1})
    bench.drain("hook")
    bench.upkeep.turn()
    assert bench.published(bench.settings.hook_key) == 1
    assert bench.hooks.run(event).state == "done"
    assert bench.ledger.settle_event(event, "dead", "retry", delay=0, why="")[0] == "done"
    assert good.calls == 1


def test_an_event_that_kills_every_worker_is_dead_in_the_end(bench: Bench, provider: Told) -> None:
    bench.hooks.retry = RetryPolicy(attempts=3)
    good = Failing(0)
    bench.gateway.onReceive.connect(good, name="good")
    event = _receive(bench)
    for n in range(3):
        bench.ripe_event(event)
        answer = bench.ledger.claim_event(event, f"dead{n}", "w")
        if n == 2:
            # Events that died together do not begin together again, from the second time on.
            assert isinstance(answer, Early)
            bench.ripe_event(event)
            answer = bench.ledger.claim_event(event, f"dead{n}", "w")
        assert isinstance(answer, ClaimedEvent)
        bench.redis.hset(bench.key("event", event), "lease", 1)
    assert bench.hooks.run(event).state == "waiting"
    bench.ripe_event(event)
    assert bench.hooks.run(event).state == "dead"
    assert good.calls == 0


def test_an_event_whose_kind_is_not_known_yet_is_left_for_a_newer_worker(
    bench: Bench, provider: Told
) -> None:
    event = _receive(bench)
    heard: list[IncomingMessage] = []
    bench.gateway.onReceive.connect(heard.append, name="heard")
    bench.redis.hset(bench.key("event", event), "kind", "of tomorrow")
    assert bench.hooks.run(event).state == "waiting"
    assert "of tomorrow" in (bench.ledger.read_event(event) or {})["why"]
    bench.redis.hset(bench.key("event", event), "kind", "received")
    bench.ripe_event(event)
    assert bench.hooks.run(event).state == "done"
    assert [message.id for message in heard] == [event]


def test_a_handler_that_ends_after_its_lease_leaves_nothing_behind(
    bench: Bench, provider: Told
) -> None:
    def slow(status: MessageStatus) -> None:
        (event,) = bench.events("status")
        bench.redis.hset(bench.key("event", event), "lease", 1)
        bench.gateway.onStatus.disconnect(slow)
        assert bench.hooks.run(event).state == "done"  # by another worker meanwhile

    bench.gateway.onStatus.connect(slow, name="slow")
    id = bench.send()
    bench.deliver(id)
    bench.report("delivered", reference=f"{id}.1")
    bench.run_hooks()
    assert not [key for key in sorted(bench.keys()) if key.startswith(("event", "done"))]


def test_a_lost_trigger_of_an_event_is_published_again(bench: Bench, provider: Told) -> None:
    event = _receive(bench)
    bench.drain("hook")
    bench.upkeep.turn()
    assert bench.published(bench.settings.hook_key) == 0
    bench.redis.zadd(bench.key("due", "hook"), {event: 1})
    bench.upkeep.turn()
    bench.upkeep.turn()
    assert bench.published(bench.settings.hook_key) == 1


def test_handlers_get_the_message_as_it_came(bench: Bench, provider: Told) -> None:
    got: list[IncomingMessage] = []
    bench.gateway.onReceive.connect(got.append, name="got")
    message = IncomingMessage("+1 555", "ünï 😀", 17, "+1 777", meta={"a": [1]})
    provider._receive_message(message)
    bench.run_hooks()
    (same,) = got
    assert vars(same) == vars(message)


def test_the_events_of_a_bad_send_in_a_hook_do_not_repeat_the_good_one(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    provider = bench.add("a")

    def answer(message: IncomingMessage) -> None:
        bench.gateway.send(OutgoingMessage(message.src, "one"))
        bench.gateway.send(OutgoingMessage("no digits", "two"))

    bench.gateway.onReceive.connect(answer, name="answer")
    event = _receive(bench)
    for _ in range(3):
        assert bench.hooks.run(event).error == exc.RequestError.__name__
        bench.ripe_event(event)
    assert bench.ledger.counts()["queued"] == 1
    assert provider.calls == []


def test_an_exception_whose_text_is_not_text_is_retried_like_any(
    bench: Bench, provider: Told
) -> None:
    def bad(message: IncomingMessage) -> None:
        raise OSError("no file \udcff")

    bench.gateway.onReceive.connect(bad, name="bad")
    event = _receive(bench)
    assert bench.hooks.run(event).error == "OSError"
    assert (bench.ledger.read_event(event) or {})["state"] == "waiting"


def test_an_exception_that_has_no_text_is_retried_like_any(bench: Bench, provider: Told) -> None:
    called: list[str] = []

    class Untold(Exception):
        def __str__(self) -> str:
            raise KeyError("the record behind it is gone")

    def bad(message: IncomingMessage) -> None:
        called.append("bad")
        raise Untold

    bench.gateway.onReceive.connect(bad, name="bad")
    bench.gateway.onReceive.connect(lambda message: called.append("good"), name="good")
    event = _receive(bench)
    assert bench.hooks.run(event).error == "Untold"
    fields = bench.ledger.read_event(event) or {}
    assert (fields["state"], fields["why"]) == ("waiting", "bad: Untold: <Untold>")
    bench.ripe_event(event)
    bench.hooks.run(event)
    assert called == ["bad", "good", "bad"]


def test_a_lease_lasts_for_all_handlers_of_an_event(bench: Bench, provider: Told) -> None:
    settings = replace(bench.settings, hook_lease=0.5, handler_timeout=0.4)
    bench.hooks.ledger = bench.gateway.ledger = Ledger(settings)
    taken: list[object] = []
    event = ""

    def slow(message: object) -> None:
        threading.Event().wait(0.3)
        taken.append(bench.hooks.ledger.claim_event(event, "other", "another worker"))

    for n in range(4):
        bench.gateway.onReceive.connect(slow, name=f"slow{n}")
    event = _receive(bench)
    assert bench.hooks.run(event).state == "done"
    assert [type(answer) for answer in taken] == [HeldElsewhere] * 4


def test_a_handler_that_lost_its_event_is_the_last_one(bench: Bench, provider: Told) -> None:
    settings = replace(bench.settings, hook_lease=0.5, handler_timeout=0.4)
    bench.hooks.ledger = Ledger(settings)
    called: list[str] = []
    event = ""

    def robbed(message: object) -> None:
        called.append("robbed")
        threading.Event().wait(0.2)
        hash = f"{bench.settings.namespace}:event:{event}"
        bench.hooks.ledger.redis.hset(hash, "token", "of another worker")

    bench.gateway.onReceive.connect(robbed, name="robbed")
    bench.gateway.onReceive.connect(lambda message: called.append("second"), name="second")
    event = _receive(bench)
    bench.hooks.run(event)
    assert called == ["robbed"]


def test_a_stopping_worker_gives_its_event_back_without_a_try(bench: Bench, provider: Told) -> None:
    called: list[str] = []

    def first(message: object) -> None:
        called.append("first")
        bench.hooks.stop()

    bench.gateway.onReceive.connect(first, name="first")
    bench.gateway.onReceive.connect(lambda message: called.append("second"), name="second")
    event = _receive(bench)
    assert bench.hooks.run(event).state == "waiting"
    fields = bench.ledger.read_event(event) or {}
    assert (fields["state"], fields.get("tries")) == ("waiting", None)
    other = EventRunner(bench.gateway, bench.ledger)
    assert other.run(event).state == "done"
    assert called == ["first", "second"]


def test_a_handler_is_not_called_again_before_its_late_success_is_recorded(
    bench: Bench, provider: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(bench.settings, hook_lease=1.0, handler_timeout=0.2)
    ledger = Ledger(settings, timeout=5.0)
    hooks = EventRunner(bench.gateway, ledger, "w")
    calls, go, recording, record = [], threading.Event(), threading.Event(), threading.Event()

    def slow(message: IncomingMessage) -> None:
        calls.append(message)
        go.wait(30)

    def hold(event: str, handler: str) -> None:  # Redis is slow, or away for a while
        recording.set()
        record.wait(30)
        Ledger.handler_done(ledger, event, handler)

    monkeypatch.setattr(ledger, "handler_done", hold)
    bench.gateway.onReceive.connect(slow, name="slow")
    event = _receive(bench)
    assert hooks.run(event).error == "HandlerTimeout"
    go.set()
    assert recording.wait(30)
    bench.ripe_event(event)
    assert hooks.run(event).error == "HandlerTimeout"
    record.set()
    while hooks.threads.hung():
        threading.Event().wait(0.01)
    bench.ripe_event(event)
    assert hooks.run(event).state == "done"
    assert len(calls) == 1
    ledger.close()
