"""Which code a process runs: version, a hash of the code, and the version of Python."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

__all__ = ["build_of", "python_version", "version"]

#: Files that are code; others, such as caches, may differ between two machines.
_SUFFIXES = (".py", ".lua")
#: Hex digits of a build.
_DIGITS = 8


def version() -> str:
    """The version of this package; ``"?"``: it is run from a folder that is not installed."""
    try:
        return importlib.metadata.version("smsqueue-gateway")
    except importlib.metadata.PackageNotFoundError:
        return "?"


def python_version() -> str:
    """The version of Python."""
    return platform.python_version()


def build_of(*packages: str) -> str | None:
    """Hash of the code of some packages, as it is on disk now.

    The same code has the same hash wherever it is installed. Two builds of one version differ.
    None: the code cannot be read.
    """
    code = hashlib.sha256()
    try:
        for package in packages:
            spec = find_spec(package)
            for folder in (spec and spec.submodule_search_locations) or ():
                for path, content in _files(Path(folder)):
                    code.update(f"{package}/{path} {len(content)}\n".encode() + content)
    except OSError:
        return None
    return code.hexdigest()[:_DIGITS]


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The files of a folder that are code: their path in it and their content, in order."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    for name, path in sorted(paths.items()):
        if path.suffix in _SUFFIXES:
            yield name, path.read_bytes()
