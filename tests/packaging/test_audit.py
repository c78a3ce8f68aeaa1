"""make audit: a package that could not be looked up is a failure.

What pip-audit itself does is not tried here, as it needs the network: a program in its place keeps
to its documentation. It reports no vulnerability and cannot look one package up; that is a failure
with ``--strict`` only.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PIP_AUDIT = """#!/bin/sh
strict= file=
while [ $# -gt 0 ]; do
    case $1 in
        --strict) strict=1 ;;
        -r | --requirement) shift; file=$1 ;;
        --no-deps | --disable-pip) ;;
        *) echo "unknown: $1" >&2; exit 2 ;;
    esac
    shift
done
grep -c == "$file" >looked-up || exit 2
[ -z "$UNKNOWN" ] || { echo "$UNKNOWN: not found, skipped"; [ -z "$strict" ] || exit 1; }
[ -z "$VULNERABLE" ] || { echo "Found 1 known vulnerability"; exit 1; }
"""


def audit(tmp_path: Path, **environment: str) -> tuple[int, str]:
    tools = tmp_path / "tools"
    (tools / "bin").mkdir(parents=True, exist_ok=True)
    program = tools / "bin" / "pip-audit"
    program.write_text(PIP_AUDIT.replace("looked-up", str(tmp_path / "looked-up")))
    program.chmod(0o755)
    (tools / ".made").touch()  # newer than the Makefile: the tools are there
    done = subprocess.run(
        ["make", "-o", "setup", "audit", f"AUDIT={tools}"],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_audit_asks_for_every_pinned_version(tmp_path: Path) -> None:
    code, output = audit(tmp_path)
    assert code == 0, output
    pinned = re.findall(r"^[\w.-]+==", (ROOT / "constraints.txt").read_text("utf-8"), re.M)
    assert int((tmp_path / "looked-up").read_text()) == len(pinned) > 50


@pytest.mark.parametrize("cause", ["UNKNOWN", "VULNERABLE"])
def test_the_audit_fails_if_a_package_could_not_be_looked_up(tmp_path: Path, cause: str) -> None:
    code, output = audit(tmp_path, **{cause: "vine"})
    assert code != 0
    assert "Not audited" in output
