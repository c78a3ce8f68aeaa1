"""One process sweeps; what was claimed without an answer is returned by one thread."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from smsqueue import exc
from smsqueue.delivery.claims import Claims
from smsqueue.ledger import Ledger
from smsqueue.operation.upkeep import Upkeep
from tests.ledger.bench import Bench


def _lapsed(bench: Bench, count: int) -> list[str]:
    ids = [bench.send() for _ in range(count)]
    for id in ids:
        bench.ledger.claim(id, "t", lease=60, worker="w")
    bench.redis.zadd(bench.key("due", "watch"), dict.fromkeys(ids, 1))
    return ids


def test_a_sweep_goes_on_while_its_quota_is_full(bench: Bench) -> None:
    _lapsed(bench, 120)
    assert bench.ledger.sweep(50, 25).more is True
    assert bench.upkeep.turn() is not None
    assert bench.ledger.counts()["sending"] == 0
    assert bench.ledger.sweep(50, 25).more is False


def test_one_process_at_a_time_sweeps_and_another_follows_when_it_is_gone(bench: Bench) -> None:
    other = Upkeep(bench.settings, bench.ledger, bench.queue, max_lapses=3)
    other.turn()
    [id] = _lapsed(bench, 1)
    bench.upkeep.turn()
    assert bench.state(id) == "sending"
    assert bench.upkeep.failing == {}
    # The other one's turn is over: it died.
    assert 0 < bench.redis.pttl(bench.key("sweeper")) <= 3000
    bench.redis.delete(bench.key("sweeper"))
    bench.upkeep.turn()
    assert bench.state(id) == "retrying"
    [id] = _lapsed(bench, 1)
    other.turn()
    assert bench.state(id) == "sending"
    # What is due is taken by all the same.
    bench.drain()
    waiting = bench.send()
    bench.redis.zadd(bench.key("due", "send"), {waiting: 1})
    bench.drain()
    other.turn()
    assert bench.published() == 1


@pytest.mark.parametrize(
    "name",
    [
        *(("due", lane) for lane in ("send", "send_bulk", "hook", "hook_bulk", "watch", "ask")),
        *(("ends",), ("event_ends",)),
    ],
)
def test_upkeep_sees_what_is_due_wherever_it_is(bench: Bench, name: tuple[str, ...]) -> None:
    key, id = bench.key(*name), "1m8n000000000000000a"
    bench.redis.zadd(key, {id: bench.now() + 60_000})
    assert not bench.ledger.has_due()
    bench.redis.zadd(key, {id: bench.now()})
    assert bench.ledger.has_due()
    bench.redis.delete(key)
    bench.redis.set(key, "of another program")
    assert bench.ledger.has_due()


def test_claims_without_an_answer_are_returned_by_one_thread(bench: Bench) -> None:
    entered, go_on = threading.Event(), threading.Event()
    calls: list[str] = []

    class Slow(Ledger):
        def unclaim(self, id: str, token: str) -> Any:
            calls.append(token)
            entered.set()
            go_on.wait(30)
            return super().unclaim(id, token)

    ledger = Slow(bench.settings)
    claims = Claims(ledger, bench.slots, "w")
    lost = {f"token{n}": bench.send() for n in range(3)}
    claims.lost.ids.update(lost)
    first = threading.Thread(target=claims.lost.release)
    first.start()
    assert entered.wait(30)
    # The others go on at once.
    others = [threading.Thread(target=claims.lost.release) for _ in range(8)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join(30)
        assert not thread.is_alive()
    assert first.is_alive()
    go_on.set()
    first.join(30)
    assert calls == list(lost)
    claims.lost.release()
    assert calls == list(lost)
    ledger.close()


def test_a_claim_that_cannot_be_returned_keeps_no_other_from_it(bench: Bench) -> None:
    class Refusing(Ledger):
        def unclaim(self, id: str, token: str) -> Any:
            if id == first:
                raise exc.LedgerError("Redis answered with an error")
            return super().unclaim(id, token)

    ledger = Refusing(bench.settings)
    claims = Claims(ledger, bench.slots, "w")
    first, second = bench.send(), bench.send()
    for id in (first, second):
        bench.ledger.claim(id, f"token-{id}", lease=60, worker="w")
    claims.lost.ids.update({f"token-{id}": id for id in (first, second)})
    claims.lost.release()
    assert (bench.state(first), bench.state(second)) == ("sending", "retrying")
    assert claims.lost.ids == {}
    ledger.close()
