"""A carrier that the environment leads plugins to, and gateways for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from smsqueue import Gateway, Settings
from tests.compat.carrier import Carrier
from tests.ledger.bench import Bench
from tests.workers.conftest import start_worker as start_worker


@pytest.fixture
def carrier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Carrier]:
    carrier = Carrier(tmp_path)
    for name, value in carrier.environment().items():
        monkeypatch.setenv(name, value)
    yield carrier
    carrier.close()


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    bench = Bench(settings)
    yield bench
    bench.close()


@pytest.fixture
def eager() -> Gateway:
    return Gateway(eager=True)
