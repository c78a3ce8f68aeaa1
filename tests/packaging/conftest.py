"""The wheel, built once, and a clean environment that has nothing but it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

Run = Callable[..., str]


def call(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Run a command that must succeed; return all that it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    line = " ".join(str(part) for part in command)
    assert done.returncode == 0, f"{line}\nended with {done.returncode}:\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist, so that the sdist is known to be complete."""
    dist = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, ROOT, cwd=dist)
    assert len(list(dist.glob("*.tar.gz"))) == 1
    [path] = dist.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def names(wheel: Path) -> set[str]:
    """What is in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="session")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment into which the wheel was installed with what a server needs."""
    venv = tmp_path_factory.mktemp("clean") / "venv"
    # Our own pip installs into it: the new one need not have any.
    call(sys.executable, "-m", "venv", "--without-pip", venv, cwd=venv.parent)
    pip = (sys.executable, "-m", "pip", "--python", venv / "bin" / "python")
    quietly = ("--quiet", "--no-input", "--disable-pip-version-check")
    locked = ("--require-hashes", "--requirement", ROOT / "requirements" / "server.txt")
    call(*pip, "install", *quietly, *locked, cwd=venv.parent)
    # All that it needs is there now.
    call(*pip, "install", *quietly, "--no-index", f"{wheel}[receivers,flower]", cwd=venv.parent)
    return venv


@pytest.fixture
def run(clean: Path, tmp_path: Path) -> Run:
    """Run a command of the clean environment, from a folder that knows nothing of us."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SMSQUEUE_", "PYTHON", "PYTEST_", "VIRTUAL_ENV"))
    }
    env["PATH"] = f"{clean / 'bin'}{os.pathsep}{env['PATH']}"

    def run_it(command: str, *args: str, **extra: str) -> str:
        return call(clean / "bin" / command, *args, cwd=tmp_path, env=env | extra)

    return run_it
