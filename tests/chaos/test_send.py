"""``send()`` while Redis refuses, freezes or vanishes: an error in time, and never two messages."""

from __future__ import annotations

import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from smsqueue import OutgoingMessage, exc
from tests.chaos.invariants import check
from tests.chaos.load import send
from tests.chaos.rig import Rig, until

THREADS = 20
#: About a second is promised: so many seconds more than a thread takes that only waits a second.
MORE = 0.5


@contextmanager
def _refused(rig: Rig) -> Iterator[None]:
    rig.redis.stop()
    try:
        yield
    finally:
        rig.redis.start()


@contextmanager
def _frozen(rig: Rig) -> Iterator[None]:
    with rig.frozen(rig.redis.process):
        yield


@contextmanager
def _blackholed(rig: Rig) -> Iterator[None]:
    with rig.blackhole():
        yield


def _together(work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


@pytest.mark.parametrize("away", [_refused, _frozen, _blackholed])
def test_send_is_bounded_and_recovers(rig: Rig, away: Callable[[Rig], Any]) -> None:
    for worker in rig.workers:  # what is in the ledger goes out when the callers are done
        worker.stop(signal.SIGKILL)
    messages = [OutgoingMessage(_number(), "accept") for _ in range(THREADS)]
    for message in messages[::2]:
        message.options(idempotency_key=message.dst)
    took: list[float] = []
    waited: list[float] = []
    errors: list[BaseException] = []

    def attempt(n: int) -> None:
        beside = threading.Thread(target=wait)
        beside.start()
        began = time.monotonic()
        try:
            rig.gateway.send(messages[n])
        except BaseException as error:
            errors.append(error)
        took.append(time.monotonic() - began)
        beside.join()

    def wait() -> None:
        began = time.monotonic()
        threading.Event().wait(1.0)
        waited.append(time.monotonic() - began)

    # Connected before the trouble: then what is sent may land all the same.
    _together(lambda n: send(rig, OutgoingMessage(_number(), "accept")))
    with away(rig):
        for _ in range(3):
            _together(attempt)
    assert len(took) == len(errors) == 3 * THREADS
    assert {type(error) for error in errors} == {exc.QueueUnavailable}
    assert max(took) < max(waited) + MORE
    # Whatever landed: the same object, or another one with the same key, is the same message.
    for n, first in enumerate(messages):
        again = first
        if n % 4 == 0:
            again = OutgoingMessage(first.dst, first.body).options(idempotency_key=first.dst)
        until(lambda m=again: send(rig, m, patience=0.0), 30, "recovery")
    rig.heal()
    rig.settle()
    check(rig)
    for message in messages:
        assert len(rig.gateway.find(message.dst)) == 1


def _number() -> str:
    """One that no other test of this rig sends to."""
    return f"1555{secrets.randbelow(10**9):09d}"
