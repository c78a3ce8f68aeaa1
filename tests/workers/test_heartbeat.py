"""What a worker tells of its life: to the ledger, and by its heartbeat file."""

from __future__ import annotations

import json
import logging
import os
import platform
import signal
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from smsqueue import Gateway
from smsqueue.ledger import Ledger
from smsqueue.operation import heartbeat
from smsqueue.operation.build import build_of
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
    assert told.memory > 10_000_000
    assert told.uptime < 60
    assert (told.version, told.python) == (version("smsqueue-gateway"), platform.python_version())
    assert told.build == build_of("smsqueue", "workers")
    assert told.slots["main"].most >= told.slots["main"].limit > told.slots["main"].in_use == 0
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
    monkeypatch.setattr("smsqueue.ledger.workers._GONE", 0.0)
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


def test_two_builds_of_one_version_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "some_package_of_ours"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner" / "script.lua").write_text("return 1")
    first = build_of("some_package_of_ours")
    assert first
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "cache.pyc").write_text("differs between machines")
    assert build_of("some_package_of_ours") == first
    (package / "inner" / "script.lua").write_text("return 2")
    assert build_of("some_package_of_ours") not in (None, first)


def test_samples_are_taken_by_whichever_worker_lives(settings: Any) -> None:
    """One sample each 15 s, however many workers send heartbeats; old ones are removed."""
    ledger = Ledger(settings)
    samples = f"{settings.namespace}:samples"

    def beat() -> None:
        for name in ("w/1", "w/2", "w/3"):
            ledger.record_heartbeat(name, {"queues": []})

    beat()
    assert ledger.redis.zcard(samples) == 1
    for age, number in ((14_000, 1), (16_000, 2), (16_000, 3), (960_000, 1)):
        for sample, at in ledger.redis.zrange(samples, 0, -1, withscores=True):
            ledger.redis.zadd(samples, {sample: at - age})
        beat()
        assert ledger.redis.zcard(samples) == number
        if age == 14_000:  # as if no time had passed
            for sample, at in ledger.redis.zrange(samples, 0, -1, withscores=True):
                ledger.redis.zadd(samples, {sample: at + age})
    # Redis's clock is set back by an hour: samples of a time to come are dropped.
    for sample, at in ledger.redis.zrange(samples, 0, -1, withscores=True):
        ledger.redis.zadd(samples, {sample: at + 3_600_000})
    beat()
    assert ledger.redis.zcard(samples) == 1
    ledger.close()


def test_a_damaged_counter_stops_no_heartbeat(settings: Any) -> None:
    ledger = Ledger(settings)
    counters = {"accepted": "inf", "attempts|a": "nan", "errors|a|b|c": "x", "sent": b"\xff"}
    ledger.redis.hset(f"{settings.namespace}:counts", mapping={**counters, "ended|sent|a|": 3})
    ledger.record_heartbeat("w/1", {"queues": []})
    assert [worker.name for worker in ledger.workers()] == ["w/1"]
    [sample] = ledger.redis.zrange(f"{settings.namespace}:samples", 0, -1)
    assert json.loads(sample.partition(" ")[2]) == {"counts": {"ended|sent|a|": 3}, "waiting": 0}
    ledger.close()
