"""One child process: its log, its readiness, its end."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

__all__ = ["Process", "StackError", "free_port", "free_ports"]

#: Seconds after which a child that was asked to end is killed.
_PATIENCE = 15.0
_PR_SET_PDEATHSIG = 1


class StackError(RuntimeError):
    """A process could not be started; the text says which, why, and what to do."""


def free_ports(count: int) -> list[int]:
    """Different ports of the loopback interface that nobody listens on."""
    with ExitStack() as probes:
        # Held together: a port that was given back at once may be given out again.
        found = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in found:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in found]


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    return free_ports(1)[0]


def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None


class Process:
    """A child in a session of its own, so that Ctrl-C reaches the parent alone, which ends its
    children in order. On Linux a child also ends when its parent is killed.

    Args:
        log: File that its output is appended to.
        environment: Beside the parent's.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        log: Path,
        *,
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.name, self.command, self.log = name, command, log
        self.environment, self.folder = environment or {}, folder
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id; 0 before it was started."""
        return self._child.pid if self._child else 0

    @property
    def alive(self) -> bool:
        """Is it running?"""
        return self._child is not None and self._child.poll() is None

    def start(self, ready: Callable[[], bool], seconds: float = 60.0) -> None:
        """Start it and wait until ``ready()`` is true.

        Raises:
            StackError: it ended, or was not ready in time.
        """
        libc = _libc()

        def die_with_parent() -> None:
            if libc is not None:
                libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

        with self.log.open("ab") as out:
            self._child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ | self.environment,
                cwd=self.folder,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        deadline = time.monotonic() + seconds
        while True:
            if not self.alive:
                raise StackError(f"{self.name} ended at once:\n{self.tail()}")
            if ready():
                break
            if time.monotonic() > deadline:
                self.stop()
                raise StackError(f"{self.name} was not ready in {seconds:.0f} s:\n{self.tail()}")
            time.sleep(0.05)

    def tail(self, lines: int = 15) -> str:
        """The last lines of its log, and where the rest is."""
        text = self.log.read_text("utf-8", "replace") if self.log.exists() else ""
        return "\n".join([*text.splitlines()[-lines:], f"(all of it: {self.log})"])

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """End it: first asked, then killed, with whatever it has started."""
        if self._child is None:
            return
        if self.alive:
            self._child.send_signal(signum)
            try:
                self._child.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._child.kill()
        self._child.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)  # what is left of its session
        self._child = None
