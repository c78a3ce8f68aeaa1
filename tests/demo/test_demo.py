"""The demo as a process: it ends by itself or by a signal, and leaves no process behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "from smsqueue.cli import main; main()", "demo"]


def running(folder: Path) -> dict[int, str]:
    """Return the processes of the demo in this folder: pid and command line."""
    mark, found = f"TMPDIR={folder}".encode(), {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
            inside = os.readlink(process / "cwd").startswith(str(folder))
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if command and (mark in environment or inside):  # a zombie has no command
            found[int(process.name)] = command
    return found


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


@pytest.fixture
def demo(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """The demo; indirect parameters are its options."""
    environment = os.environ | {"TMPDIR": str(tmp_path), "NO_COLOR": "1", "COLUMNS": "140"}
    # Settings of another gateway in the user's shell, which the demo must ignore.
    account = "twilio://AC0:token@127.0.0.1:9?from=+15550009999"
    environment |= {"SMSQUEUE_PROVIDER_MAIN": account, "SMSQUEUE_PROVIDER_OTHER": account}
    environment |= {"SMSQUEUE_DEFAULT_PROVIDER": "other", "SMSQUEUE_NAMESPACE": "theirs"}
    process = subprocess.Popen(
        [*COMMAND, *getattr(request, "param", ())],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


@pytest.mark.parametrize(
    ("demo", "dialects"),
    [((), []), (("--provider", "twilio"), ["twilio"])],
    indirect=["demo"],
)
def test_all_messages_end_as_expected(
    demo: subprocess.Popen[str], tmp_path: Path, dialects: list[str]
) -> None:
    printed, _ = demo.communicate(timeout=150)
    assert demo.returncode == 0, printed
    assert "all as expected" in printed
    assert "accepted by the simulator more than once: 0" in printed
    assert re.findall(r"dialect of the simulator: (\w+)", printed) == dialects
    replies = re.search(r"replies received: (\d+), auto-replies sent: (\d+)", printed)
    assert replies is not None
    assert replies[1] == replies[2] != "0"
    wait_for(lambda: not running(tmp_path))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("component", ["simulator", "worker"])
def test_no_process_is_left_after_a_signal(
    demo: subprocess.Popen[str], tmp_path: Path, signum: signal.Signals, component: str
) -> None:
    wait_for(lambda: list(tmp_path.glob(f"smsqueue-*/{component}.log")) or demo.poll() is not None)
    assert demo.poll() is None
    demo.send_signal(signum)
    printed, _ = demo.communicate(timeout=60)
    assert demo.returncode == (-9 if signum == signal.SIGKILL else 130), printed
    wait_for(lambda: not running(tmp_path))
