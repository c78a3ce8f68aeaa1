"""The site: docs/index.md has every page, and prose is not wider than a screen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
INDEX = (DOCS / "index.md").read_text("utf-8")
PAGES = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("examples/*/*.md")]
PAGES = sorted(page for page in PAGES if page != DOCS / "index.md")


def pages_of(entry: str) -> list[Path]:
    """The pages that a line of a table of contents stands for."""
    return list(DOCS.glob(f"{entry}.md")) if "*" in entry else [(DOCS / f"{entry}.md").resolve()]


def test_the_site_has_every_page_once() -> None:
    blocks = re.findall(r"^```\{toctree\}\n(.*?)^```$", INDEX, re.M | re.S)
    entries = [line for block in blocks for line in block.splitlines() if line.strip()]
    listed = [page for entry in entries if entry[0] != ":" for page in pages_of(entry)]
    assert sorted(listed) == PAGES


def test_the_index_links_to_every_page_that_its_readme_does_not_link_to() -> None:
    linked = {(DOCS / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)\)", INDEX)}
    folders = [DOCS / "deploy", DOCS / "providers"]
    for folder in folders:
        assert folder / "README.md" in linked
    assert [page for page in PAGES if page not in linked and page.parent not in folders] == []


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name != "CHANGELOG.md"],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_prose_has_at_most_100_columns(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    prose = [line for line in text.splitlines() if not line.startswith(("|", "    "))]
    long = [line for line in prose if len(line) > 100 and "::test_" not in line]
    # A long name or address cannot be broken.
    assert [line for line in long if " " in line.strip("- ")] == []
