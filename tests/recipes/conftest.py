"""The files that docs/recipes.md shows, written down and run with the test's Redis."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from smsqueue import Settings
from smsqueue.stack import Process

ROOT = Path(__file__).parents[2]
PREFIXES = ("SMSQUEUE_", "SHOP_", "DJANGO_", "PYTEST_")
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith(PREFIXES)}
BLOCK = re.compile(r"^```python\n# ([\w/]+\.py)\n(.*?)^```$", re.M | re.S)


class Recipe:
    """One recipe in a folder of its own, and the processes that run in there."""

    def __init__(self, heading: str, folder: Path, settings: Settings, stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack
        text = (ROOT / "docs" / "recipes.md").read_text("utf-8")
        section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        for name, code in BLOCK.findall(section):
            package = (folder / name).parent
            if package != folder and not package.exists():
                package.mkdir()
                (package / "__init__.py").touch()
            (folder / name).write_text(code, "utf-8")
        self.environment = {
            "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))),
            "HOME": str(folder),
            "SMSQUEUE_REDIS_URL": settings.redis_url,
            "SMSQUEUE_NAMESPACE": settings.namespace,
            "SMSQUEUE_UPKEEP_INTERVAL": "0.1",
        }

    def run(self, *arguments: str, **environment: str) -> str:
        """What ``python ARGUMENTS`` prints; it must end well."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=CLEAN | self.environment | environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, name: str, said: str, *arguments: str) -> Process:
        """Start ``python -m ARGUMENTS``; it is ready when its log says so."""
        command, log = [sys.executable, "-m", *arguments], self.folder / f"{name}.log"
        process = Process(name, command, log, environment=self.environment, folder=self.folder)
        process.start(lambda: said in process.tail(1000))
        self._stack.callback(process.stop)
        return process


@pytest.fixture
def recipe(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Recipe]]:
    for name in os.environ.keys() - CLEAN.keys():
        monkeypatch.delenv(name)
    with ExitStack() as stack:
        yield lambda heading: Recipe(heading, tmp_path, settings, stack)


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until a condition holds; fails after a bound that no healthy run comes near."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.03)


@pytest.fixture(name="until")
def _until() -> Callable[..., None]:
    return until
