"""Slots limit the calls of each provider; the clock is the test's own."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from smsqueue.delivery import Slots, slots
from tests.conftest import switching_threads_in


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(slots, "time", clock)
    return clock


def room(pool: Slots, group: str) -> int:
    """How many slots a group gets now; they are taken."""
    taken = 0
    while not pool.enter(group):
        taken += 1
    return taken


def empty(pool: Slots, group: str, held: int, *, well: bool) -> None:
    for _ in range(held):
        pool.leave(group, 0.1, well=well)


def test_a_group_gets_what_it_was_given_or_what_is_usual(clock: Clock) -> None:
    pool = Slots(10, {"b": 3})
    assert (room(pool, "a"), room(pool, "b")) == (10, 3)


def test_a_group_begins_with_few_and_doubles_while_all_goes_well(clock: Clock) -> None:
    pool, rounds = Slots(200), list[int]()
    for _ in range(4):
        held = room(pool, "a")
        rounds.append(held)
        empty(pool, "a", held, well=True)
    assert rounds == [32, 64, 128, 200]


def test_groups_do_not_take_each_others_slots(clock: Clock) -> None:
    pool = Slots(5)
    assert (room(pool, "a"), room(pool, "b")) == (5, 5)


@pytest.mark.parametrize(("total", "share"), [(32, 28), (25, 21), (4, 3), (2, 1), (1, 1)])
def test_a_campaign_leaves_slots_to_single_messages(clock: Clock, total: int, share: int) -> None:
    pool, held = Slots(total), 0
    while not pool.enter("a", bulk=True):
        held += 1
    assert held == share
    assert held + room(pool, "a") == total


def test_a_slot_that_was_given_back_can_be_taken(clock: Clock) -> None:
    pool = Slots(2)
    assert room(pool, "a") == 2
    pool.leave("a", 0.1, well=True)
    assert room(pool, "a") == 1


def test_each_failure_halves_and_each_success_gives_one_back(clock: Clock) -> None:
    pool = Slots(8)
    shares = []
    for well in (False, False, False, False, True, True):
        assert pool.enter("a") == 0
        pool.leave("a", 0.1, well=well)
        held = room(pool, "a")
        shares.append(held)
        for _ in range(held):
            pool.give_back("a")
    assert shares == [4, 2, 1, 1, 2, 3]


def test_an_ill_group_keeps_one_slot_and_recovers_to_its_share(clock: Clock) -> None:
    pool = Slots(4)
    empty(pool, "a", room(pool, "a"), well=False)
    assert room(pool, "a") == 1
    pool.leave("a", 0.1, well=True)
    for _ in range(20):
        assert pool.enter("a") == 0
        pool.leave("a", 0.1, well=True)
    assert room(pool, "a") == 4


def test_one_groups_illness_is_its_own(clock: Clock) -> None:
    pool = Slots(4)
    empty(pool, "a", room(pool, "a"), well=False)
    assert room(pool, "b") == 4


def test_who_finds_no_slot_comes_back_one_after_the_other(clock: Clock) -> None:
    pool = Slots(2)
    assert pool.enter("a") == pool.enter("a") == 0
    waits = [pool.enter("a") for _ in range(4)]
    # A call takes 0.1 s, two run at once: one slot becomes free every 0.05 s.
    assert waits == pytest.approx([0.05, 0.1, 0.15, 0.2])
    clock.now += 10
    pool.leave("a", 0.1, well=True)
    assert pool.enter("a") == 0
    assert pool.enter("a") == pytest.approx(0.05)


def test_calls_that_hang_set_the_pace_before_they_end(clock: Clock) -> None:
    pool = Slots(2)
    assert room(pool, "a") == 2
    clock.now += 10
    assert [pool.enter("a") for _ in range(3)] == pytest.approx([5, 10, 15])
    assert pool.enter("b") == 0


def test_after_half_a_minute_they_come_one_by_one(clock: Clock) -> None:
    pool = Slots(1)
    assert pool.enter("a") == 0
    pool.leave("a", 8000.0, well=True)
    assert pool.enter("a") == 0
    waits = [pool.enter("a") for _ in range(100)]
    assert waits[0] == pytest.approx(30.0, abs=0.1)
    assert waits[-1] == pytest.approx(35.0, abs=0.1)
    assert waits == sorted(set(waits))


def test_a_call_that_never_ends_sends_nobody_away_for_ever(clock: Clock) -> None:
    pool = Slots(1)
    assert pool.enter("a") == 0
    clock.now += 8000
    assert pool.enter("a") == pytest.approx(30.0, abs=0.1)


def test_the_pace_follows_how_long_calls_take(clock: Clock) -> None:
    pool = Slots(1)
    for _ in range(100):
        assert pool.enter("a") == 0
        pool.leave("a", 2.0, well=True)
    assert pool.enter("a") == 0
    assert pool.enter("a") == pytest.approx(2.0, rel=0.01)


def test_a_block_holds_a_slot_and_gives_it_back(clock: Clock) -> None:
    pool = Slots(1)
    with pool.held("hooks") as wait:
        assert wait == 0
        with pool.held("hooks") as other:
            assert other > 0
        # The one that got no slot gave none back.
        assert pool.enter("hooks") > 0
    assert pool.enter("hooks") == 0


def test_a_block_that_fails_gives_its_slot_back(clock: Clock) -> None:
    pool = Slots(1)
    with pytest.raises(LookupError), pool.held("hooks"):
        raise LookupError
    assert pool.enter("hooks") == 0


def test_of_threads_that_enter_at_once_as_many_get_a_slot_as_there_are() -> None:
    pool, number, rounds = Slots(3), 8, 20
    together, granted = threading.Barrier(number), list[int]()

    def work() -> None:
        for turn in range(rounds):
            together.wait(30)
            entered = pool.enter("a") == 0
            together.wait(30)  # those that got a slot hold it until all have tried
            if entered:
                granted.append(turn)
                pool.leave("a", 0.0, well=True)

    with switching_threads_in(slots):
        threads = [threading.Thread(target=work) for _ in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert Counter(granted) == dict.fromkeys(range(rounds), 3)
