"""Calls with a time limit, in threads that are used again."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import ModuleType

import pytest

from smsqueue.concurrency.call_threads import CallThreads, CallTimeout
from smsqueue.concurrency.greenlet_loop import Loop


def test_a_handler_that_imports_half_of_django_is_not_called_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While another thread imports django.conf, the module is there and its settings are not."""
    threads, ran = CallThreads(), list[int]()

    def handler() -> None:
        ran.append(1)
        for name in ("django.db", "django.conf"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))

    for _ in range(2):
        threads.call(handler, limit=10, kind="handler", key="event")
    assert len(ran) == 2
    assert threads.hung() == {}


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop("test")
    yield loop
    loop.close()


def test_calls_that_wait_for_each_other_are_all_called(loop: Loop) -> None:
    threads, everybody = CallThreads(), threading.Barrier(30)
    ended = [
        loop.run(lambda: threads.call(lambda: everybody.wait(60), limit=60, kind="handler"))
        for _ in range(30)
    ]
    assert sorted(each.result(60) for each in ended) == list(range(30))


def test_calls_that_hang_keep_no_other_waiting(loop: Loop) -> None:
    threads, go_on = CallThreads(), threading.Event()
    hanging = [
        loop.run(lambda: threads.call(lambda: go_on.wait(60), limit=0.05, kind="handler"))
        for _ in range(20)
    ]
    others = [
        loop.run(lambda n=n: threads.call(lambda: n, limit=60, kind="handler"))  # type: ignore[misc]
        for n in range(100)
    ]
    assert [each.result(60) for each in others] == list(range(100))
    for each in hanging:
        with pytest.raises(CallTimeout):
            each.result(60)
    go_on.set()
