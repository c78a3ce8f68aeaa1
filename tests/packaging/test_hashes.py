"""Nothing is installed whose hash is not in requirements/."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "requirements").glob("*.txt"))
_PIN = re.compile(
    r"^([A-Za-z0-9._-]+)==([^ ]+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M
)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> dict[str, str]:
    return {canonical(name): version for name, version, _ in _PIN.findall(path.read_text("utf-8"))}


def test_every_pinned_version_has_its_hashes() -> None:
    text = (ROOT / "constraints.txt").read_text("utf-8")
    wanted = {canonical(n): v for n, v in re.findall(r"^([\w.-]+)==(\S+)$", text, re.M)}
    assert len(wanted) > 50
    locked: dict[str, str] = {}
    for path in FILES:
        locked |= pins(path)
    assert locked == wanted, "constraints.txt and requirements/ differ: make lock"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_of_hashes_name_versions_and_hashes_only(path: Path) -> None:
    rest = _PIN.sub("", path.read_text("utf-8"))
    assert re.fullmatch(r"# [^/]*\.\n(-r [a-z]+\.txt\n)*", rest), rest
    assert pins(path)


def test_a_file_with_another_hash_is_not_installed(tmp_path: Path) -> None:
    name, version = next(iter(pins(ROOT / "requirements" / "build.txt").items()))
    with zipfile.ZipFile(tmp_path / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", "print('somebody else')\n")
        info = f"{name}-{version}.dist-info"
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    here = (
        "--no-index",
        "--no-deps",
        "--find-links",
        str(tmp_path),
        "--target",
        str(tmp_path / "in"),
    )

    def install(*what: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pip", "install", "--quiet", *here, *what]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    refused = install("--require-hashes", "-r", str(ROOT / "requirements" / "build.txt"))
    assert refused.returncode != 0
    assert "DO NOT MATCH THE HASHES" in refused.stderr
    assert not (tmp_path / "in").exists()
    # It is the hash that makes the difference.
    taken = install(f"{name}=={version}")
    assert taken.returncode == 0, taken.stderr
    assert (tmp_path / "in" / name).exists()


@pytest.mark.parametrize("name", ["scripts/setup.sh", "Dockerfile"])
def test_nothing_is_installed_without_hashes(name: str) -> None:
    text = (ROOT / name).read_text("utf-8").replace("\\\n", " ")
    calls = re.findall(r"^.*\bpip\b[^#\n]*\b(?:install|wheel|download)\b.*$", text, re.M)
    calls = [
        call for each in calls for call in each.split("&&") if re.search(r"\bpip\b.* install", call)
    ]
    assert len(calls) >= 2
    for call in calls:
        assert "--require-hashes" in call or "--no-index" in call or _makes_pip(call), call


def _makes_pip(call: str) -> bool:
    """Where Python comes without pip for environments, the system's pip installs the newest one."""
    return call.split("||")[0].rstrip().endswith(" pip")
