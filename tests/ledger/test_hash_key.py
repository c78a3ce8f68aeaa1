"""SMSQUEUE_HASH_KEY: the key of the hashes outside of Redis, and the way there."""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from smsqueue import Gateway, IncomingMessage, MessageDelivered, OutgoingMessage, exc
from smsqueue.message.messages import Part
from smsqueue.settings import Settings, SettingsError
from tests.ledger.bench import Bench

KEY, OTHER = "0123456789abcdef" * 2, "fedcba9876543210" * 2
NUMBER = "15551234567"
Make = Callable[..., Bench]


def told(bench: Bench, msgid: str = "m1", part: Part | None = None) -> tuple[bool, str]:
    message = IncomingMessage(NUMBER, "hi", msgid)
    message.provider, message.part = "a", part
    return bench.ledger.receive(message, repeats=True)


def keyed(text: str = "hello", **options: Any) -> OutgoingMessage:
    return OutgoingMessage(NUMBER, text).options(idempotency_key="order-1", **options)


def secret_of(bench: Bench) -> str:
    there: Any = bench.ledger.redis.get(f"{bench.settings.namespace}:secret")
    return str(there)


def test_with_a_key_of_ones_own_redis_holds_none(make_bench: Make) -> None:
    bench = make_bench(hash_key=KEY)
    sent = bench.gateway.send(keyed())
    assert KEY not in secret_of(bench)
    assert secret_of(bench).startswith("outside:")
    assert list(bench.ledger.find(NUMBER)) == [sent.id]
    # What is in Redis does not make the hash of the number; the key does.
    [index] = bench.ledger.redis.scan_iter(f"{bench.settings.namespace}:number:*")
    hashes = [
        hmac.new(key.encode(), NUMBER.encode(), hashlib.sha256).hexdigest()[:20]
        for key in (secret_of(bench), KEY)
    ]
    assert [each in str(index) for each in hashes] == [False, True]


def test_what_was_recorded_before_the_key_is_found(make_bench: Make) -> None:
    before = make_bench()
    sent = before.gateway.send(keyed())
    _, event = told(before)
    bench = make_bench(hash_key=KEY)
    assert set(bench.ledger.find(NUMBER)) == {sent.id, event}
    again = bench.gateway.send(keyed())
    assert (again.id, again.duplicate) == (sent.id, True)
    with pytest.raises(exc.IdempotencyConflict):
        bench.gateway.send(keyed("other"))
    assert told(bench)[1] == event
    later = bench.gateway.send(OutgoingMessage(NUMBER, "later"))
    # Newest first, whichever key it was recorded with.
    assert list(bench.ledger.find(NUMBER)) == sorted([later.id or "", event, sent.id or ""])[::-1]


def test_processes_without_the_key_know_what_those_with_it_took(make_bench: Make) -> None:
    """A rolling upgrade: some processes have the setting, some do not yet."""
    older = make_bench()
    older.gateway.send(OutgoingMessage("1", "makes the key in Redis"))
    bench = make_bench(hash_key=KEY)
    sent = bench.gateway.send(keyed())
    again = older.gateway.send(keyed())
    assert (again.id, again.duplicate) == (sent.id, True)
    _, event = told(bench)
    assert told(older)[1] == event
    status = MessageDelivered("p1")
    status.provider, status.event_id = "a", "report-1"
    assert bench.ledger.report(status, pids=["p1"])
    counts = older.ledger.counters()
    older.ledger.report(status, pids=["p1"])
    repeated = {k: v for k, v in older.ledger.counters().items() if counts.get(k) != v}
    assert all("repeated" in str(name) for name in repeated), repeated
    # Parts that come to both kinds of process are one message.
    _, first = told(bench, "p1", Part("ref", 1, 2))
    _, second = told(older, "p2", Part("ref", 2, 2))
    assert first == second


def test_the_key_in_redis_can_be_deleted_after_the_retention(make_bench: Make) -> None:
    older = make_bench()
    older.gateway.send(OutgoingMessage("1", "makes the key in Redis"))
    between = make_bench(hash_key=KEY)
    sent = between.gateway.send(keyed())
    _, event = told(between)
    between.ledger.redis.delete(f"{between.settings.namespace}:secret")
    bench = make_bench(hash_key=KEY)
    again = bench.gateway.send(keyed())
    assert (again.id, again.duplicate) == (sent.id, True)
    assert told(bench)[1] == event
    assert set(bench.ledger.find(NUMBER)) == {sent.id, event}
    assert secret_of(bench).startswith("outside:")


@pytest.mark.parametrize(("key", "why"), [("", "is not set"), (OTHER, "is not the one of")])
def test_a_process_with_another_key_is_refused(make_bench: Make, key: str, why: str) -> None:
    make_bench(hash_key=KEY).gateway.send(OutgoingMessage(NUMBER, "hi"))
    stranger = make_bench(hash_key=key)
    with pytest.raises(SettingsError, match=f"SMSQUEUE_HASH_KEY {why}") as caught:
        stranger.gateway.send(OutgoingMessage(NUMBER, "hi"))
    assert KEY not in str(caught.value)


def refused(make_bench: Make, key: str) -> str:
    """The error of a process that begins with this key."""
    with pytest.raises(SettingsError, match="SMSQUEUE_HASH_KEY is not ") as caught:
        make_bench(hash_key=key).gateway.send(OutgoingMessage(NUMBER, "hi"))
    return str(caught.value)


def test_a_process_with_another_key_is_refused_while_the_former_one_is_in_redis(
    make_bench: Make,
) -> None:
    older = make_bench()
    older.gateway.send(OutgoingMessage(NUMBER, "makes the key in Redis"))
    former = secret_of(older)
    bench = make_bench(hash_key=KEY)
    sent = bench.gateway.send(keyed())
    assert "stop them, and then: redis-cli DEL" in refused(make_bench, OTHER)
    # Those without the setting, of older versions too, go on by the key that is where it was.
    assert secret_of(older) == former
    assert make_bench().gateway.send(keyed()).id == sent.id
    # Nor does anybody else come first when the operator has deleted that key.
    bench.ledger.redis.delete(f"{bench.settings.namespace}:secret")
    refused(make_bench, OTHER)
    refused(make_bench, "")
    assert make_bench(hash_key=KEY).gateway.send(keyed()).id == sent.id


@pytest.mark.parametrize("migrating", [True, False])
def test_a_wrong_key_that_came_first_is_forgotten_by_the_command_in_the_error(
    make_bench: Make, migrating: bool
) -> None:
    if migrating:
        make_bench().gateway.send(OutgoingMessage(NUMBER, "makes the key in Redis"))
    wrong = make_bench(hash_key=OTHER)
    sent = wrong.gateway.send(keyed())
    before = secret_of(wrong)
    names = refused(make_bench, KEY).partition("redis-cli DEL ")[2].split()
    assert wrong.ledger.redis.delete(*names) == 1
    right = make_bench(hash_key=KEY)
    assert (right.gateway.send(keyed()).id == sent.id) is migrating
    assert (secret_of(right) == before) is migrating
    refused(make_bench, OTHER)


def test_of_processes_that_begin_at_once_with_two_keys_one_key_wins(make_bench: Make) -> None:
    make_bench().gateway.send(OutgoingMessage(NUMBER, "makes the key in Redis"))
    benches = [make_bench(hash_key=(KEY, OTHER)[n % 2]) for n in range(8)]
    together = threading.Barrier(len(benches))

    def begin(bench: Bench) -> str:
        together.wait(10)
        with suppress(SettingsError):
            return bench.settings.hash_key if bench.ledger.hash_of(NUMBER) else ""
        return ""

    with ThreadPoolExecutor(len(benches)) as threads:
        went_on = [key for key in threads.map(begin, benches) if key]
    assert len(went_on) == 4
    assert len(set(went_on)) == 1


@pytest.mark.parametrize("key", ["short", "a" * 64, "0123456789abcdef"])
def test_a_key_that_can_be_guessed_is_refused(key: str) -> None:
    with pytest.raises(SettingsError, match="SMSQUEUE_HASH_KEY can be guessed"):
        Settings(hash_key=key)
    with Gateway(Settings(hash_key=KEY)) as gateway:
        assert KEY not in repr(gateway.settings)
