"""What waits in a worker, and what begins next; on a real loop, with slots."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from smsqueue.concurrency.greenlet_loop import Loop, blocking, wait
from smsqueue.delivery import Slots, TriggerResult
from smsqueue.delivery.waiting_ids import Intake, Kind
from smsqueue.message.states import State


class Bench:
    """An intake with the slots of one provider; a call goes on until it is let go."""

    def __init__(self, loop: Loop, slots: int) -> None:
        self.slots = Slots(slots)
        self.begun: list[str] = []
        self.changed = threading.Condition()
        self._gates: dict[str, threading.Event] = {}
        self._open = False
        self.intake = Intake(
            loop,
            self._run,
            may_begin=lambda kind: self.slots.free("a", bulk=kind.bulk),
            most_waiting=1000,
            longest_wait=60.0,
            ended=lambda id, outcome: None,
            give_back=lambda ids: None,
        )

    def _run(self, id: str, kind: Kind | None) -> TriggerResult:
        assert self.slots.take("a", bulk=kind is not None and kind.bulk)
        with self.changed:
            gate = self._gates[id] = threading.Event()
            if self._open:
                gate.set()
            self.begun.append(id)
            self.changed.notify_all()
        blocking(gate.wait)
        self.slots.leave("a", 0.1, well=True)
        return TriggerResult(State.SENT)

    def until(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.begun) >= count, 30), self.begun

    def let_go(self, id: str) -> None:
        self._gates[id].set()

    def close(self) -> None:
        with self.changed:
            self._open = True
            for gate in self._gates.values():
                gate.set()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop("test")
    yield made
    made.close()


@pytest.fixture
def make(loop: Loop) -> Iterator[Callable[[int], Bench]]:
    made: list[Bench] = []

    def make(slots: int) -> Bench:
        made.append(Bench(loop, slots))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def test_bulk_begins_behind_an_endless_stream_of_single_ones(make: Callable[[int], Bench]) -> None:
    bench = make(4)
    bench.intake.add([f"single {n}" for n in range(64)], Kind(False))
    bench.until(4)
    bench.intake.add([f"bulk {n}" for n in range(64)], Kind(True))
    for n in range(40):
        bench.let_go(bench.begun[n])
        bench.until(5 + n)
    bulk = [id for id in bench.begun if id.startswith("bulk")]
    assert 4 <= len(bulk) <= 6  # an eighth


def test_single_ones_begin_before_bulk_whatever_they_name(make: Callable[[int], Bench]) -> None:
    bench = make(8)
    bench.intake.add([f"bulk {n}" for n in range(7)], Kind(True))
    bench.until(7)  # the eighth slot is not for bulk
    bench.intake.add([f"bulk {n}" for n in range(7, 30)], Kind(True))
    bench.intake.add(["named 1", "named 2"], Kind(False, routed=True))
    bench.until(8)
    bench.let_go("bulk 0")
    bench.until(9)
    assert bench.begun[7:9] == ["named 1", "named 2"]


def test_an_error_in_what_goes_on_for_bulk_stops_no_other_of_it(loop: Loop) -> None:
    ended = threading.Event()

    def fails() -> None:
        blocking(str)
        raise ArithmeticError

    def ends() -> None:
        blocking(str)
        ended.set()

    def begin() -> None:
        loop.spawn(fails, bulk=True)
        loop.spawn(ends, bulk=True)

    loop.post(begin)
    assert ended.wait(30)


def test_what_a_thread_raises_reaches_its_caller_even_if_it_is_stop_iteration(loop: Loop) -> None:
    running = loop.run(lambda: blocking(next, iter(())))
    with pytest.raises(RuntimeError, match="StopIteration"):
        running.result(30)


def test_a_call_that_got_no_thread_is_not_made_by_another_later(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that may start no more threads: what is queued is run by one that is there."""
    entered, gate, made = threading.Event(), threading.Event(), list[str]()
    pool = ThreadPoolExecutor(2)
    pool.submit(lambda: (entered.set(), gate.wait()))
    assert entered.wait(30)

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        call = loop.run(lambda: wait(loop.in_thread(lambda: made.append("called"), pool)))
        with pytest.raises(RuntimeError, match="new thread"):
            call.result(30)
    gate.set()
    pool.shutdown()
    assert made == []
