"""Applications that are bound together: queued ones on namespaces of their own, or eager."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from smsqueue import Settings
from tests.forward.side import Side
from tests.ledger.bench import Bench


@pytest.fixture
def make_side(settings: Settings) -> Iterator[Callable[..., Side]]:
    made: list[Side] = []

    def make(*, eager: bool = False) -> Side:
        space = f"{settings.namespace}.{len(made)}"
        made.append(Side(None if eager else Bench(replace(settings, namespace=space))))
        return made[-1]

    yield make
    for side in made:
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
