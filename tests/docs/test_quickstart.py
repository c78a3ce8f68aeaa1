"""docs/quickstart.md: its gateway and its commands, run as they are printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from smsqueue.stack import Process

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "quickstart.md").read_text("utf-8")
ID = re.compile(r"\b\d[0-9a-z]{19}\b")
PROVIDER_ID = re.compile(r"\b[0-9a-f]{16}\b")
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d")
BIN = Path(sys.executable).parent


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """That of the second terminal, while the first one runs ``smsqueue dev``."""
    [module] = re.findall(r"^```python\n# my_sms\.py\n(.*?)^```$", PAGE, re.M | re.S)
    (tmp_path / "my_sms.py").write_text(module, "utf-8")
    [gateway] = re.findall(r"^\$ SMSQUEUE_GATEWAY=(\S+) smsqueue dev$", PAGE, re.M)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SMSQUEUE_")}
    clean |= {"PATH": f"{BIN}:{clean['PATH']}", "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
    printed = tmp_path / "dev.log"
    dev = Process(
        "dev",
        [str(BIN / "smsqueue"), "dev"],
        printed,
        environment=clean | {"SMSQUEUE_GATEWAY": gateway},
        folder=tmp_path,
    )
    dev.start(lambda: "Ctrl-C stops it." in dev.tail(1000))
    try:
        lines = re.findall(r"^ *export (SMSQUEUE_\w+)=(.*)$", printed.read_text("utf-8"), re.M)
        assert len(lines) == 2
        yield clean | dict(lines)
    finally:
        dev.stop()


def commands() -> Iterator[tuple[str, str]]:
    """The commands of the second terminal, each with what the page says that it prints."""
    second_terminal = PAGE.partition("In the second terminal:")[2]
    for block in re.findall(r"^```console\n(.*?)^```$", second_terminal, re.M | re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            yield command, output


def comparable(text: str) -> list[list[str]]:
    """Without what differs from run to run: ids, times, numbers, the width of columns, and the
    timeline, where a report may overtake the provider's answer."""
    text = PROVIDER_ID.sub("ID", ID.sub("ID", text.partition("\n\n")[0]))
    text = TIME.sub("TIME", text)
    return [re.sub(r"\d+(\.\d+)?", "N", line).split() for line in text.splitlines()]


def test_the_commands_print_what_the_page_shows(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    newest = ""
    for command, expected in commands():
        arguments = ID.sub(newest, command).split()
        deadline = time.monotonic() + 60
        while True:
            done = subprocess.run(
                arguments, cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr
            # A reply comes a moment after the report that the command before waits for.
            if comparable(done.stdout) == comparable(expected) or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        assert comparable(done.stdout) == comparable(expected), command
        assert done.stdout.count("ServerError") == expected.count("ServerError"), command
        newest = (ID.search(done.stdout) or [newest])[0]
