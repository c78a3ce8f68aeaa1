"""The tests in docs/testing.md pass."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tests_that_the_page_shows_pass(tmp_path: Path) -> None:
    for page in ("README.md", "docs/testing.md"):
        text = (ROOT / page).read_text("utf-8")
        for name, code in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", text, re.M | re.S):
            (tmp_path / name).write_text(code, "utf-8")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SMSQUEUE_", "PYTEST_"))}
    clean |= {"PYTHONPATH": str(ROOT), "SMSQUEUE_REDIS_URL": "redis://127.0.0.1:1/0"}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "3 passed" in run.stdout
