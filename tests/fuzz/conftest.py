"""How long the fuzz run takes, and the table that it prints at its end.

FUZZ_SECONDS: for how long; without it, a fixed number of mutations with a fixed seed.
FUZZ_SDKS: the Python of an environment that has the vendors' SDKs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.fuzz.budget import SECONDS, SHARE, Budget, Tally
from tests.fuzz.sdks import Sdks
from tests.fuzz.targets import TARGETS

_tallies: dict[str, Tally] = {}


@pytest.fixture(scope="session")
def budget() -> Budget:
    return Budget(SECONDS * SHARE / len(TARGETS) if SECONDS else None)


@pytest.fixture(scope="session")
def sdks() -> Iterator[Sdks | None]:
    python = os.environ.get("FUZZ_SDKS")
    found = Sdks(python) if python else None
    yield found
    if found is not None:
        found.close()


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """The tally of the running test's receiver."""
    name: str = request.getfixturevalue("name")
    return _tallies.setdefault(name, Tally())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _tallies:
        return
    terminalreporter.section("mutated webhooks")
    row = "{:<16} {:>10} {:>10} {:>10} {:>18} {:>18}".format
    heads = ("mutations", "accepted", "altered", "not by the SDK", "only by the SDK")
    terminalreporter.write_line(row("provider", *heads))
    for name, each in _tallies.items():
        altered = str(each.altered) if TARGETS[name].signed else "unsigned"
        sdk = ["-" if n is None else str(n) for n in (each.wrongly, each.stricter)]
        terminalreporter.write_line(
            row(name, str(each.mutations), str(each.accepted), altered, *sdk)
        )
