"""What a user gets: the wheel, in a clean environment, used from a foreign folder."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., str]

PACKAGES = ("smsqueue", "workers", "receivers")

SHOP = """
from smsqueue import Gateway
from smsqueue.providers import LoopbackProvider

gateway = Gateway()
gateway.add_provider("loopback", LoopbackProvider)
"""


@pytest.fixture
def shop(tmp_path: Path) -> dict[str, str]:
    """A user's own gateway module in the current folder, and the settings that name it."""
    (tmp_path / "shop.py").write_text(SHOP)
    return {
        "SMSQUEUE_GATEWAY": "shop:gateway",
        "SMSQUEUE_RECEIVER_PREFIX": "a-prefix-that-nobody-guesses",
    }


def test_it_holds_every_file_of_the_packages_and_nothing_else(root: Path, names: set[str]) -> None:
    ours = {
        path.relative_to(root).as_posix()
        for package in PACKAGES
        for path in (root / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {name for name in names if ".dist-info/" not in name} == ours


@pytest.mark.parametrize("package", PACKAGES)
def test_it_is_typed(package: str, names: set[str]) -> None:
    assert f"{package}/py.typed" in names


def test_it_holds_the_scripts_of_the_ledger(names: set[str]) -> None:
    assert any(name.startswith("smsqueue/ledger/") and name.endswith(".lua") for name in names)


def test_its_metadata(wheel: Path, names: set[str]) -> None:
    [metadata] = (name for name in names if name.endswith(".dist-info/METADATA"))
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read(metadata).decode().splitlines()
    assert "Name: smsqueue-gateway" in lines
    assert "License-Expression: BSD-3-Clause" in lines
    assert "Requires-Python: >=3.11" in lines
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_command_knows_its_version(wheel: Path, run: Run) -> None:
    version = wheel.name.split("-")[1]
    assert version in run("smsqueue", "--version")


def test_the_command_lists_its_commands(run: Run) -> None:
    help_text = run("smsqueue", "--help")
    for command in ("demo", "dev", "find", "list", "send", "show", "simulator"):
        assert command in help_text


def test_the_packages_come_from_the_clean_environment(clean: Path, run: Run) -> None:
    code = (
        "import smsqueue, workers, receivers\n"
        "for module in smsqueue, workers, receivers: print(module.__file__)"
    )
    places = run("python", "-c", code).split("\n")[:3]
    assert [Path(place).is_relative_to(clean) for place in places] == [True] * 3


def test_importing_smsqueue_imports_neither_celery_nor_flask(run: Run) -> None:
    code = (
        "import sys, smsqueue, smsqueue.providers\n"
        "print([name for name in ('celery', 'kombu', 'flask') if name in sys.modules])"
    )
    assert run("python", "-c", code).strip() == "[]"


def test_eager_sending_needs_neither_celery_nor_flask_nor_redis(
    run: Run, shop: dict[str, str], tmp_path: Path
) -> None:
    # None in sys.modules makes an import fail as if the package were not installed.
    (tmp_path / "eager.py").write_text(
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('celery', 'kombu', 'flask', 'redis')))\n"
        "from shop import gateway\n"
        "from smsqueue import OutgoingMessage\n"
        "gateway.send(OutgoingMessage('+10005550100', 'hello'))\n"
        "print(len(gateway.get_provider('loopback').get_traffic()))\n"
    )
    assert run("python", "eager.py", SMSQUEUE_EAGER="1", **shop).strip() == "1"


def test_celery_finds_the_workers(run: Run) -> None:
    # No gateway is named: making the app must not need one.
    assert "smsqueue" in run("celery", "-A", "workers", "report")


def test_flower_is_there(run: Run) -> None:
    assert "monitoring" in run("celery", "-A", "workers", "flower", "--help")


def test_flask_finds_the_receivers(run: Run, shop: dict[str, str]) -> None:
    assert "/healthz" in run("flask", "--app", "receivers", "routes", **shop)


def test_gunicorn_finds_the_receivers(run: Run, shop: dict[str, str]) -> None:
    run("gunicorn", "--check-config", "receivers:create_app()", **shop)
    run("gunicorn", "--check-config", "--config", "python:receivers.server", **shop)
