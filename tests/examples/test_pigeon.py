"""The example of a provider in a package of its own: its tests, and how it becomes known."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from smsqueue import Gateway, OutgoingMessage, Settings
from smsqueue.cli import main
from smsqueue.configuration.environment_providers import add_providers
from smsqueue.testing.stub import Answer, Stub

ROOT = Path(__file__).parents[2]
PIGEON = ROOT / "examples" / "pigeon"


def test_its_own_tests_pass(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path}"],
        cwd=PIGEON,
        env={k: v for k, v in os.environ.items() if not k.startswith(("SMSQUEUE_", "PYTEST_"))}
        | {"PYTHONPATH": str(ROOT), "SMSQUEUE_REDIS_URL": "redis://127.0.0.1:1/0"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout


@pytest.fixture
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an installer makes of its pyproject.toml, without an installer."""
    project = tomllib.loads((PIGEON / "pyproject.toml").read_text("utf-8"))["project"]
    folder = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {where}" for name, where in points.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(PIGEON)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("_installed")
def test_it_is_listed() -> None:
    told = CliRunner().invoke(main, ["providers", "--installed"])
    assert {"pigeon", "twilio"} <= set(told.output.split())


@pytest.mark.usefixtures("_installed")
def test_it_is_configured_by_the_environment() -> None:
    gateway = Gateway(Settings(eager=True))
    address = "pigeon://key:secret@default?flock=3&from=+15550009999"
    with Stub(Answer(200, {"pigeon": "p1"})) as stub:
        add_providers(gateway, {"SMSQUEUE_PROVIDER_MAIN": f"{address}&url={stub.url}"})
        gateway.send(OutgoingMessage("+15551234567", "coo"))
    [seen] = stub.seen
    assert seen.headers["X-Pigeon-Key"] == "key"
    assert (seen.json["flock"], seen.json["from"]) == (3, "+15550009999")
