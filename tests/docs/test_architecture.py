"""docs/architecture.md: the places that its table names are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
ROWS = re.findall(r"^\| (.*?) \| (.*?) \|$", PAGE, re.M)[1:]


def test_every_place_in_the_table_exists() -> None:
    assert len(ROWS) > 20
    for change, places in ROWS:
        named = re.findall(r"`([\w./<>]+/[\w./<>]*)`", places)
        assert named, change
        for name in named:
            assert list(ROOT.glob(name.replace("<service>", "twilio").rstrip("/"))), (change, name)


def test_every_script_that_the_page_names_exists() -> None:
    scripts = {path.name for path in (ROOT / "smsqueue" / "ledger").rglob("*.lua")}
    named = {name.rpartition("/")[2] for name in re.findall(r"[\w/]+\.lua", PAGE)}
    assert named - scripts == set()
