"""Arguments that nobody should give, and people do."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-c", "from smsqueue.cli import main; main()"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--state", "failed", "--since", "999999d"],
        ["list", "--state", "failed", "--limit", "9" * 23],
        ["show", b"\xff"],
        ["cancel", b"\xff"],
        ["find", b"\xff"],
        ["show", "a\nb\x1b[2J"],
        ["replay", b"\xff"],
    ],
)
def test_a_mistake_is_no_traceback(environment, arguments) -> None:
    given = {name: value for name, value in environment.items() if value is not None}
    done = subprocess.run(
        [*COMMAND, *arguments], env=os.environ | given | {"LC_ALL": "C.UTF-8"}, capture_output=True
    )
    assert b"Traceback" not in done.stderr
    assert b"\x1b[2J" not in done.stdout + done.stderr


@pytest.mark.parametrize("ids", [b"\xff\xfe\n", b"a\0b\n", b"\x1b[2J\n"])
def test_ids_from_standard_input_that_are_none(environment, ids) -> None:
    given = {name: value for name, value in environment.items() if value is not None}
    done = subprocess.run(
        [*COMMAND, "cancel", "-"],
        env=os.environ | given | {"PYTHONIOENCODING": "utf-8"},
        input=ids,
        capture_output=True,
    )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert b"\x1b[2J" not in done.stdout + done.stderr
