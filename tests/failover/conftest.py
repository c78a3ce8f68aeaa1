"""``make failover`` runs all of it and prints figures; otherwise one small failover is tested."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.failover.rig import FailoverRig

#: Rounds of ``make failover``; 0: the small size of every run of the tests.
ROUNDS = int(os.environ.get("FAILOVER_ROUNDS") or 0)

collect_ignore = [] if ROUNDS else ["test_rounds.py"]

figures: list[str] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in figures:
        terminalreporter.write_line(line)


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[Callable[..., FailoverRig]]:
    made: list[FailoverRig] = []

    def make(*options: str, **keywords: Any) -> FailoverRig:
        folder = tmp_path / f"rig{len(made)}"
        folder.mkdir()
        made.append(FailoverRig(folder, *options, **keywords))
        made[-1].__enter__()
        return made[-1]

    yield make
    for rig in made:
        rig.close()


@pytest.fixture
def publish(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Add a line to the figures."""

    def add(*texts: Any) -> None:
        figures.append(" ".join(map(str, (request.node.name, *texts))))

    return add
