"""A rig for each family of faults; one that a test left broken is not used again."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.rig import Rig

#: ``make chaos ROUNDS=20``; without it the small size of every run of the tests.
ROUNDS = int(os.environ.get("CHAOS_ROUNDS") or 0)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``seed``: one for each round. ``size``: messages in a round."""
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(1, (ROUNDS or 1) + 1))
    if "size" in metafunc.fixturenames:
        metafunc.parametrize("size", [2000 if ROUNDS else 120])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Whatever it was that failed, the seed and what is under way are told."""
    report = yield
    if report.when == "call" and report.failed:
        report.sections += [("left behind", rig.under_way()) for rig in Rig.running]
    return report


@pytest.fixture(scope="module")
def _kept() -> Iterator[list[Rig]]:
    kept: list[Rig] = []
    yield kept
    for rig in kept:
        rig.close()


@pytest.fixture
def rig(_kept: list[Rig], tmp_path: Path, request: pytest.FixtureRequest) -> Rig:
    """Redis, a provider and two workers, shared by the tests of a file, but not by its rounds.

    Each check reads everything that the rig has seen: shared, a round would take longer than
    the one before it.
    """
    callspec = getattr(request.node, "callspec", None)
    seed = callspec.params.get("seed", 1) if callspec else 1
    if _kept and not (_kept[0].clean and _kept[0].seed == seed):
        _kept.pop().close()
    if not _kept:
        _kept.append(Rig(tmp_path).__enter__())
    used = _kept[0]
    used.clean = False
    used.reseed(seed)
    used.heal()
    return used


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """Makes rigs of their own, for tests that need other settings."""
    made: list[Rig] = []

    def make(**options: Any) -> Rig:
        folder = tmp_path / f"rig{len(made) + 1}"
        folder.mkdir()
        made.append(Rig(folder, **options).__enter__())
        return made[-1]

    yield make
    for rig in made:
        rig.close()
