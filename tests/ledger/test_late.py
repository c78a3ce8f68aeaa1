"""What comes late, or was never heard of: it frees no bound message and holds no slot."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from smsqueue import OutgoingMessage, RetryPolicy, exc
from smsqueue.message import statuses
from tests.ledger.bench import Bench, Told
from tests.ledger.test_uncertain import LOST, Asked, ask_now, once, upkeep


def pinned_then_unknown_in_the_call(bench: Bench, late: BaseException) -> tuple[str, Told]:
    """Attempt 1's answer is lost; attempt 2 outlives its lease when the key is no longer known."""
    other = bench.add("other")

    def slow(message: OutgoingMessage) -> None:
        bench.redis.hset(bench.key("msg", id), "pin_until", 1)  # the window ends meanwhile
        bench.lapse(id)
        assert bench.state(id) == "unknown"
        raise late

    once(bench, LOST, slow)
    id = bench.send_by("once", "other")
    bench.deliver(id)
    bench.ripe(id)
    bench.deliver(id)
    return id, other


@pytest.mark.parametrize(
    "late", [exc.ServerError("busy"), exc.LimitsError("slow"), LOST, exc.ConnectionError("refused")]
)
def test_a_late_outcome_of_a_repetition_says_nothing_of_the_first(bench: Bench, late: Any) -> None:
    id, other = pinned_then_unknown_in_the_call(bench, late)
    state = bench.state(id)
    bench.ripe(id)
    bench.unpause("once")
    bench.deliver(id)
    provider: Any = bench.gateway.get_provider("once")
    print(state, bench.state(id), provider.keys, other.calls)
    assert other.calls == []
    assert len(provider.keys) == 2
    assert bench.state(id) == "unknown"


def test_a_bound_message_whose_provider_is_gone_has_not_failed(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(RetryPolicy(attempts=3))
    bench.add("other")
    once(bench, LOST)
    id = bench.send_by("once")
    bench.deliver(id)
    del bench.gateway._providers["once"]
    for _ in range(3):
        bench.ripe(id)
        bench.deliver(id)
    assert bench.state(id) == "unknown"


def test_a_bound_message_whose_workers_die_before_the_call_has_not_failed(bench: Bench) -> None:
    once(bench, LOST)
    id = bench.send()
    bench.deliver(id)
    for n in range(3):
        bench.ripe(id)
        if bench.state(id) != "retrying":
            break
        bench.ledger.claim(id, f"token {n}", lease=30.0, worker="gone")
        bench.lapse(id)
    assert bench.state(id) == "unknown"


def test_a_lost_claim_answer_sends_nothing_and_loses_nothing(
    bench: Bench, monkeypatch: Any
) -> None:
    a = bench.add("a")
    id = bench.send()
    claim = bench.ledger.claim
    lost: list[int] = []

    def once_lost(*args: Any, **options: Any) -> Any:
        answer = claim(*args, **options)
        if not lost:
            lost.append(1)
            raise exc.QueueUnavailable("no answer")
        return answer

    monkeypatch.setattr(bench.ledger, "claim", once_lost)
    try:
        bench.deliver(id)
    except exc.QueueUnavailable:
        if bench.state(id) == "sending":
            bench.lapse(id)
    assert bench.state(id) != "unknown"
    if not a.calls:
        bench.ripe(id)
        bench.deliver(id)
    assert len(a.calls) == 1


def test_a_claim_that_redis_reads_when_its_worker_has_given_it_up_has_no_effect(
    bench: Bench, monkeypatch: Any
) -> None:
    a = bench.add("a")
    id = bench.send()
    claim = bench.ledger.claim
    held: list[tuple[Any, Any]] = []

    def frozen(*args: Any, **options: Any) -> Any:
        if held:
            return claim(*args, **options)
        held.append((args, options))
        raise exc.QueueUnavailable("no answer")

    monkeypatch.setattr(bench.ledger, "claim", frozen)
    with pytest.raises(exc.QueueUnavailable):
        bench.deliver(id)
    [(args, options)] = held
    claim(*args, **options)  # from a buffer, after the worker has looked
    assert bench.state(id) == "queued"
    bench.ripe(id)
    bench.deliver(id)
    assert (bench.state(id), a.calls) == ("sent", [f"{id}.1"])


def test_a_late_refusal_goes_elsewhere_even_if_that_is_paused(bench: Bench) -> None:
    def slow(message: OutgoingMessage) -> None:
        bench.lapse(id)
        assert bench.state(id) == "unknown"
        raise exc.ServerError("busy")

    bench.add("a", slow)
    bench.add("b", exc.LimitsError("slow", retry_after=600))
    other = bench.send_by("b")
    bench.deliver(other)  # b is paused
    id = bench.send_by("a", "b")
    bench.deliver(id)
    assert bench.state(id) == "retrying"


def test_a_report_counts_when_the_key_is_no_longer_known(bench: Bench) -> None:
    once(bench, LOST)
    id = bench.send(status_report=True)
    bench.deliver(id)
    bench.report("undelivered", reference=f"{id}.1", provider="once")
    bench.redis.hset(bench.key("msg", id), "pin_until", 1)
    bench.ripe(id)
    bench.deliver(id)
    assert bench.state(id) == "undelivered"


def test_a_provider_whose_answer_changes_nothing_is_asked_ever_less_often(bench: Bench) -> None:
    raw = statuses.MessageStatus("asked-7")
    raw.status = "something new"
    provider = bench.add("asked", LOST, cls=Asked)
    provider.knows.extend([raw] * 6)
    upkeep(bench)
    id = bench.send()
    bench.deliver(id)
    waits = []
    for _ in range(5):
        ask_now(bench, id)
        waits.append((bench.look("ask", id) or 0) - bench.now())
    print(waits)
    assert waits[-1] > 600_000


def test_begin_that_redis_refuses_holds_no_slot(bench: Bench, monkeypatch: Any) -> None:
    a = bench.add("a")
    begin = bench.ledger.begin

    def broken(*args: Any, **options: Any) -> Any:
        raise exc.LedgerError("WRONGTYPE")

    ids = [bench.send_by("a") for _ in range(9)]
    monkeypatch.setattr(bench.ledger, "begin", broken)
    for id in ids[:8]:
        with pytest.raises(exc.LedgerError):
            bench.deliver(id)
    monkeypatch.setattr(bench.ledger, "begin", begin)
    print(bench.deliver(ids[8]))
    assert len(a.calls) == 1


def test_a_record_that_cannot_be_read_holds_no_slot(bench: Bench) -> None:
    a = bench.add("a")
    for _ in range(8):
        id = bench.send()
        bench.redis.hset(bench.key("msg", id), "data", '{"v": 99}')
        assert bench.deliver(id).state == "damaged"

    bench.deliver(bench.send())
    assert len(a.calls) == 1


def test_a_requeue_of_what_has_failed_does_not_touch_what_is_unknown(bench: Bench) -> None:
    """Two operators, or one twice: between picking and acting it was sent again and lost."""
    a = bench.add("a", exc.RequestError("no"), LOST)
    id = bench.send()
    bench.deliver(id)
    assert bench.state(id) == "failed"  # picked by `requeue --state failed`
    assert bench.gateway.requeue(id)  # by somebody else
    bench.deliver(id)
    assert bench.state(id) == "unknown"
    assert bench.gateway.requeue(id, states=["failed"]) is False
    bench.deliver(id)
    assert len(a.calls) == 2


def test_a_provider_that_does_not_answer_questions_holds_its_share_only(bench: Bench) -> None:
    from concurrent.futures import ThreadPoolExecutor
    from threading import Event, Lock

    go, lock, now, most = Event(), Lock(), [0], [0]

    class Hangs(Asked):
        def send(self, message: OutgoingMessage) -> OutgoingMessage:
            raise LOST

        def look_up(self, message: OutgoingMessage, since: Any) -> None:
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            go.wait(2)
            with lock:
                now[0] -= 1

    bench.add("asked", cls=Hangs)
    upkeep(bench)
    ids = [bench.send() for _ in range(8)]
    for id in ids:
        bench.give_slots(4)
        bench.deliver(id)
        bench.redis.delete(bench.key("health", "asked"))  # else it would be paused
    bench.give_slots(4)
    bench.redis.zadd(bench.key("due", "ask"), dict.fromkeys(ids, 1), xx=True)
    bench.upkeep.turn()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(bench.deliver, ids))
    assert most[0] <= 4
    assert all(bench.look("ask", id) for id in ids)


def test_questions_leave_room_for_what_is_to_be_sent(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(watermark=8, bulk_watermark=4)
    bench.add("asked", *[LOST] * 6, cls=Asked)
    upkeep(bench)
    asks = [bench.send() for _ in range(6)]
    for id in asks:
        bench.give_slots(4)
        bench.deliver(id)
    bench.drain()
    bench.redis.zadd(bench.key("due", "ask"), dict.fromkeys(asks, 1), xx=True)
    later = bench.send()
    bench.drain()
    bench.redis.zadd(bench.key("due", "send"), {later: 1}, xx=True)
    before = bench.field(later, "out")
    bench.redis.hdel(bench.key("msg", later), "out")
    bench.upkeep.turn()
    assert bench.field(later, "out"), (before, bench.published())


def test_an_error_of_the_heartbeat_does_not_end_upkeep(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(upkeep_interval=0.05)
    second_round = threading.Event()

    class Broken:
        beats = 0

        def beat(self, *, redis: bool, failing: object) -> None:
            self.beats += 1
            if self.beats == 2:
                second_round.set()
            raise ValueError("embedded null byte")

        def end(self) -> None: ...

    bench.upkeep.heartbeat = Broken()  # type: ignore[assignment]
    bench.upkeep.start()
    went_on = second_round.wait(60)
    bench.upkeep.stop()
    assert went_on


def test_a_sender_whose_clock_is_two_days_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The age of a message is counted by Redis's clock."""
    bench.add("a", exc.ServerError("busy"))
    now = time.time_ns()
    with monkeypatch.context() as patched:
        patched.setattr("smsqueue.message.ids.time.time_ns", lambda: now - 2 * 86400 * 10**9)
        id = bench.send()
    bench.deliver(id)
    assert bench.state(id) == "retrying"
