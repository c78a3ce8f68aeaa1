"""What the packages import is what the distribution declares."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("smsqueue", "workers", "receivers")
#: Extras for people who use the packages; the others are for those who work on them.
EXTRAS = ("receivers", "flower", "uvloop", "signatures", "aws")


def _canonical(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def _imported() -> Iterator[tuple[str, Path]]:
    """Names of top-level modules that the packages import, anywhere in their files."""
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((alias.name.partition(".")[0], path) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0], path


def test_every_imported_distribution_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = {_canonical(each) for each in project["dependencies"]}
    declared |= {_canonical(each) for name in EXTRAS for each in extras[name]}
    distributions = packages_distributions()
    foreign = [
        (module, path)
        for module, path in _imported()
        if module not in sys.stdlib_module_names and module not in PACKAGES
    ]
    assert {"celery", "click", "redis", "urllib3"} <= {module for module, _ in foreign}
    undeclared = {
        f"{path.relative_to(ROOT)} imports {module}"
        for module, path in foreign
        if not declared & {_canonical(each) for each in distributions.get(module, [module])}
    }
    assert undeclared == set()
