"""Applications to connect: queued ones, each in its own namespace, or eager ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from smsqueue import Settings
from tests.forward.side import Side
from tests.ledger.bench import Bench


@pytest.fixture
def make_side(settings: Settings) -> Iterator[Callable[..., Side]]:
    sides: list[Side] = []

    def make(*, eager: bool = False) -> Side:
        space = f"{settings.namespace}.{len(sides)}"
        sides.append(Side(None if eager else Bench(replace(settings, namespace=space))))
        return sides[-1]

    yield make
    for side in sides:
        side.close()
        if side.bench:
            side.bench.close()


@pytest.fixture
def client(make_side: Callable[..., Side]) -> Side:
    return make_side()


@pytest.fixture
def server(make_side: Callable[..., Side]) -> Side:
    return make_side()


@pytest.fixture
def eager_client(make_side: Callable[..., Side]) -> Side:
    return make_side(eager=True)


@pytest.fixture
def eager_server(make_side: Callable[..., Side]) -> Side:
    return make_side(eager=True)
