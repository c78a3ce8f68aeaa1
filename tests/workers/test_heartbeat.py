"""What a worker tells of its life: to the ledger, and by its heartbeat file."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smsqueue import Gateway
from smsqueue.ledger import Ledger
from smsqueue.operation import heartbeat
from smsqueue.operation.heartbeat import Heartbeat

GATEWAY = """
from smsqueue import Gateway
from smsqueue.providers import NullProvider

gateway = Gateway()
gateway.add_provider("main", NullProvider)
"""


def test_a_worker_is_on_the_list_until_it_ends(
    gateway: Gateway, start_worker: Callable[..., Any], until: Callable[..., None], tmp_path: Path
) -> None:
    file = tmp_path / "beat"
    worker = start_worker(GATEWAY, SMSQUEUE_HEARTBEAT_FILE=str(file))
    until(lambda: gateway.ledger.workers())
    [told] = gateway.ledger.workers()
    assert told.alive
    assert told.name.endswith(f"/{worker.process.pid}")
    assert told.queues == (gateway.settings.hook_queue, gateway.settings.send_queue)
    assert told.concurrency == 8
    until(file.exists)
    # It goes on beating: the file is touched anew.
    os.utime(file, (0, 0))
    until(lambda: file.stat().st_mtime > 1)
    worker.stop()
    assert gateway.ledger.workers() == []
    assert not file.exists()


def test_a_worker_that_was_killed_stays_on_the_list_but_not_alive(
    gateway: Gateway,
    start_worker: Callable[..., Any],
    until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = start_worker(GATEWAY)
    until(lambda: gateway.ledger.workers())
    worker.stop(signal.SIGKILL)
    monkeypatch.setattr("smsqueue.ledger.queries._GONE", 0.0)
    [told] = gateway.ledger.workers()
    assert not told.alive


def test_a_worker_whose_redis_is_away_still_beats(
    redis_server: Callable[..., Any],
    start_worker: Callable[..., Any],
    until: Callable[..., None],
    tmp_path: Path,
) -> None:
    file, server = tmp_path / "beat", redis_server()
    start_worker(GATEWAY, SMSQUEUE_HEARTBEAT_FILE=str(file), SMSQUEUE_REDIS_URL=server.url)
    until(file.exists)
    server.stop()
    for _ in range(2):
        os.utime(file, (0, 0))
        until(lambda: file.stat().st_mtime > 1)


def test_a_consumer_that_hangs_while_redis_answers_ends_the_heartbeat(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file, now = tmp_path / "beat", 1000.0
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now)
    ledger = Ledger(settings)
    beating = Heartbeat(ledger, "w@h", queues=["sms.send"], concurrency=1, file=str(file))
    beating.beat(redis=True)
    assert file.exists()
    file.unlink()
    now += 61
    with caplog.at_level(logging.ERROR):
        beating.beat(redis=True)
    assert not file.exists()
    assert "restart it" in caplog.text
    beating.note_consumer_alive()
    now += 6
    beating.beat(redis=True)
    assert file.exists()
    ledger.close()


def test_a_heartbeat_file_that_cannot_be_written_is_only_said(
    settings: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(settings)
    missing = tmp_path / "nowhere" / "beat"
    beating = Heartbeat(ledger, "w@h", queues=["sms.send"], concurrency=1, file=str(missing))
    beating.beat(redis=True)
    assert "SMSQUEUE_HEARTBEAT_FILE cannot be written" in caplog.text
    assert [worker.name for worker in ledger.workers()] == [f"w@h/{os.getpid()}"]
    beating.end()
    assert ledger.workers() == []
    ledger.close()
