"""docs/logs.md lists every line that is logged, and no other."""

from __future__ import annotations

import re

from tests.docs.log_lines import ROOT, log_lines


def test_the_page_has_every_line() -> None:
    page = (ROOT / "docs" / "logs.md").read_text("utf-8").partition("## All other lines")[2]
    rows = re.findall(r"^\| `(\S+)` \| ([A-Z, ]+) \| `(.+)` \| ", page, re.M)
    levels = {"WARNING, ERROR": "log"}
    listed = {(logger, levels.get(level, level.lower()), text) for logger, level, text in rows}
    written = {tuple(line) for line in log_lines() if line.logger != "smsqueue.access"}
    assert listed == written
