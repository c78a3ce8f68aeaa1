"""A bench per test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from smsqueue import RetryPolicy, Settings
from tests.ledger.bench import Bench


@pytest.fixture
def make_bench(settings: Settings) -> Iterator[Callable[..., Bench]]:
    """Makes benches; keywords are settings."""
    made: list[Bench] = []

    def make(retry: RetryPolicy | None = None, **changed: Any) -> Bench:
        made.append(Bench(replace(settings, **changed), retry))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()
