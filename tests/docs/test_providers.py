"""The providers' pages: one for each, and a matrix that says what their classes say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from smsqueue.providers.account import AccountProvider
from smsqueue.providers.capabilities import Can
from smsqueue.providers.known import BUNDLED, load

FOLDER = Path(__file__).parents[2] / "docs" / "providers"
#: Several classes may share a page.
PAGES = {"aws-sns": "aws", "aws-messaging": "aws", "vonage-messages": "vonage_messages"}


def accounts() -> dict[str, type[AccountProvider]]:
    """The bundled providers that people have accounts with."""
    classes: dict[str, type[Any]] = {name: load(name) for name in BUNDLED}
    return {name: each for name, each in classes.items() if issubclass(each, AccountProvider)}


def matrix() -> str:
    """The table of docs/providers/README.md."""
    heads = ["provider", *map(str, Can), "signed webhooks"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, provider in accounts().items():
        page = PAGES.get(name, name)
        marks = ["yes" if can in provider.capabilities else "" for can in Can]
        marks.append(
            "yes" if provider.authenticates and Can.INBOUND in provider.capabilities else ""
        )
        lines.append(f"| [{name}]({page}.md) | {' | '.join(marks)} |")
    return "\n".join(re.sub(r" +\|", " |", line) for line in lines)


def test_the_matrix_is_what_the_classes_say() -> None:
    assert matrix() in (FOLDER / "README.md").read_text("utf-8"), f"\n{matrix()}"


@pytest.mark.parametrize("name", accounts())
def test_a_provider_has_a_page_that_names_its_class(name: str) -> None:
    page = (FOLDER / f"{PAGES.get(name, name)}.md").read_text("utf-8")
    assert load(name).__name__ in page


def test_every_link_of_the_pages_leads_somewhere() -> None:
    for page in FOLDER.glob("*.md"):
        for target in re.findall(r"\]\((?!http)([^)#\s]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", sorted(FOLDER.glob("*.md")), ids=lambda page: page.name)
def test_every_example_compiles(page: Path) -> None:
    for code in re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S):
        compile(code, page.name, "exec")
