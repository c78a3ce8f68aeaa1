"""Starts and stops a child process, and keeps its log."""

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

_PR_SET_PDEATHSIG = 1


class StackError(RuntimeError):
    """A process could not be started; the text says which one, why, and what to do."""


def free_ports(count: int) -> list[int]:
    """Return different ports of the loopback interface that are not in use."""
    with ExitStack() as probes:
        # All are bound at the same time: the system might return a released port again.
        sockets = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in sockets]


def free_port() -> int:
    """Return a port of the loopback interface that is not in use."""
    return free_ports(1)[0]


def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None


class Process:
    """A child process in its own session.

    Ctrl-C reaches only the parent, which stops its children in order. On Linux a child is also
    killed when its parent dies.

    Args:
        log: File to which its output is appended.
        environment: Variables added to those of the parent.
        stop_timeout: Seconds after which :meth:`stop` kills a child that has not ended.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        log: Path,
        *,
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
        stop_timeout: float = 15.0,
    ) -> None:
        self.name, self.command, self.log = name, command, log
        self.environment, self.folder = environment or {}, folder
        self.stop_timeout = stop_timeout
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; 0 if it is not running."""
        return self._child.pid if self._child else 0

    @property
    def alive(self) -> bool:
        """Whether it is running."""
        return self._child is not None and self._child.poll() is None

    def start(self, ready: Callable[[], bool], seconds: float = 60.0) -> None:
        """Start it and wait until ``ready()`` returns true.

        Raises:
            StackError: it ended, or was not ready within ``seconds``.
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
        """Return the last lines of its log, and the path of the log."""
        text = self.log.read_text("utf-8", "replace") if self.log.exists() else ""
        return "\n".join([*text.splitlines()[-lines:], f"(full log: {self.log})"])

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """Send a signal and wait; kill it if it does not end, and then all processes it started."""
        if self._child is None:
            return
        if self.alive:
            self._child.send_signal(signum)
            try:
                self._child.wait(self.stop_timeout)
            except subprocess.TimeoutExpired:
                self._child.kill()
        self._child.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)  # the rest of its session
        self._child = None
