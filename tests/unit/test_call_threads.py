"""Calls with a time limit, in threads that are used again."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from smsqueue.call_threads import CallThreads


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
