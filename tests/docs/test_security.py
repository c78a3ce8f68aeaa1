"""SECURITY.md names existing tests for each attacker."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
ATTACKERS = PAGE.partition("\n## Who attacks\n")[2].split("\n### ")[1:]


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_test_that_the_page_names_is_there_and_runs(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    [function] = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    marks = " ".join(ast.unparse(mark) for mark in function.decorator_list)
    assert "skip" not in marks
    assert "xfail" not in marks


def test_every_name_of_a_test_is_written_as_one() -> None:
    assert len(NAMED) > 30
    assert len(re.findall("::test_", PAGE)) == len(
        re.findall(r"`tests/[\w/]+\.py::test_\w+`", PAGE)
    )


@pytest.mark.parametrize("text", ATTACKERS, ids=lambda text: text.partition("\n")[0])
def test_for_each_attacker_there_is_a_test(text: str) -> None:
    assert "::test_" in text


def test_every_attacker_is_there() -> None:
    assert [text.partition("\n")[0] for text in ATTACKERS] == [
        "A stranger on the internet",
        "Somebody who knows the prefix",
        "A provider, or somebody who broke into one",
        "Somebody on the way",
        "A stolen credential",
        "Another application in the same Redis",
        "Who sends and who receives messages",
        "A malicious dependency, or a wrong package",
        "A reader of logs, Flower, error trackers, or a memory dump",
    ]


def test_the_readme_links_to_it_and_it_has_no_address_of_anybody() -> None:
    assert "(SECURITY.md)" in (ROOT / "README.md").read_text("utf-8")
    assert "@" not in PAGE  # no address of anybody
    text = [line for line in PAGE.splitlines() if not line.startswith("|") and "::" not in line]
    assert max(map(len, text)) <= 100
