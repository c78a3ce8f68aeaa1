"""Server processes for tests."""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

PYTHON = (sys.executable, "-u", "-m")
GUNICORN = (*PYTHON, "gunicorn", "--bind", "127.0.0.1:0", "--timeout", "2")
#: What the documentation says.
RECEIVERS = (*PYTHON, "gunicorn", "--config", "python:receivers.server", "-b", "127.0.0.1:0")
SERVERS = {
    "receivers": RECEIVERS,
    "gunicorn sync": (*GUNICORN, "receivers:create_app()"),
    "gunicorn threads": (*GUNICORN, "--threads", "4", "receivers:create_app()"),
    "gunicorn debug log": (*GUNICORN, "--log-level", "debug", "receivers:create_app()"),
    "receivers debug log": (*RECEIVERS, "--log-level", "debug"),
    "gunicorn access log": (*GUNICORN, "--access-logfile", "-", "receivers:create_app()"),
    "flask run": (*PYTHON, "flask", "--app", "receivers", "run", "--port", "0"),
}


class Server:
    """A process, and the lines that it has written."""

    def __init__(self, command: tuple[str, ...], folder: Path, env: dict[str, str]) -> None:
        self.lines: list[str] = []
        self._new: queue.Queue[str | None] = queue.Queue()
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._new.put(line)
        self._new.put(None)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The next line that matches; fails if the process ends first."""
        while (line := self._new.get(timeout=60)) is not None:
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found
        pytest.fail(f"no {pattern!r} in:\n{''.join(self.lines)}")

    def end(self, signum: int = signal.SIGTERM) -> str:
        """All that it wrote until its end."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        self.process.wait(timeout=60)
        self._reader.join()
        assert self.process.stdout
        self.process.stdout.close()
        while (line := self._new.get_nowait()) is not None:
            self.lines.append(line)
        self._new.put(None)
        return "".join(self.lines)


Start = Callable[..., Server]


def address_of(server: Server) -> str:
    found = server.wait_for(r"(?:Listening at|Running on):? (http://[\d.:]+)")
    return found[1]


def redis_command(port: int, *options: str) -> tuple[str, ...]:
    folders = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    program = shutil.which("redis-server", path=folders) or shutil.which("valkey-server")
    assert program, "there is no redis-server"
    return (program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", *options)
