"""Where the providers' pages are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smsqueue.providers.account import AccountProvider
from smsqueue.providers.base.installed_providers import BUNDLED, load

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = DOCS / "providers"
#: Several classes may share a page.
_SHARED = {"aws-sns": "aws", "aws-messaging": "aws", "vonage-messages": "vonage_messages"}


def accounts() -> dict[str, type[AccountProvider]]:
    """The bundled providers that people have accounts with."""
    classes: dict[str, type[Any]] = {name: load(name) for name in BUNDLED}
    return {name: each for name, each in classes.items() if issubclass(each, AccountProvider)}


def page_of(name: str) -> Path:
    """The page that tells of a bundled provider."""
    if name.startswith("forward-"):
        return DOCS / "forward.md"
    return FOLDER / f"{_SHARED.get(name, name)}.md"


def words_of(name: str) -> str:
    """A provider's page in one line."""
    return " ".join(page_of(name).read_text("utf-8").split())
