"""Each provider has a page, and the matrix agrees with the classes."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from smsqueue.providers.base.installed_providers import load
from smsqueue.providers.capabilities import Can
from tests.docs.pages import FOLDER, accounts, page_of, words_of


def matrix() -> str:
    """The table of docs/providers/README.md."""
    heads = ["provider", *map(str, Can), "signed webhooks"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, provider in accounts().items():
        marks = ["yes" if can in provider.capabilities else "" for can in Can]
        marks.append(
            "yes" if provider.authenticates and Can.INBOUND in provider.capabilities else ""
        )
        lines.append(f"| [{name}]({page_of(name).name}) | {' | '.join(marks)} |")
    return "\n".join(re.sub(r" +\|", " |", line) for line in lines)


def test_the_matrix_agrees_with_the_classes() -> None:
    assert matrix() in (FOLDER / "README.md").read_text("utf-8"), f"\n{matrix()}"


@pytest.mark.parametrize("name", accounts())
def test_a_provider_has_a_page_that_names_its_class(name: str) -> None:
    assert load(name).__name__ in words_of(name)


@pytest.mark.parametrize(
    "name", [n for n, c in accounts().items() if Can.CALLBACK in c.capabilities]
)
def test_a_page_says_what_workers_need_to_request_reports(name: str) -> None:
    assert "workers need `SMSQUEUE_PUBLIC_URL` and `SMSQUEUE_RECEIVER_PREFIX`" in words_of(name)


def test_pages_of_providers_that_sign_the_url_explain_the_proxy() -> None:
    signers = [n for n, each in accounts().items() if "seen_url()" in inspect.getsource(each)]
    assert signers
    for name in signers:
        text = words_of(name)
        assert "set `SMSQUEUE_PUBLIC_URL` at the receivers" in text, name
        assert "refused with 403 behind a proxy" in text, name


def test_every_link_of_the_pages_leads_somewhere() -> None:
    for page in FOLDER.glob("*.md"):
        for target in re.findall(r"\]\((?!http)([^)#\s]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", sorted(FOLDER.glob("*.md")), ids=lambda page: page.name)
def test_every_example_compiles(page: Path) -> None:
    for code in re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S):
        compile(code, page.name, "exec")
