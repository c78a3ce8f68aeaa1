"""smsqueue send"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from smsqueue import Gateway, Settings, State
from smsqueue.ledger import AttemptOutcome


def test_send_prints_the_id_and_the_command_to_show_it(run, gateway: Gateway) -> None:
    out = run("send", "+1 (555) 123-4567", "hello", "--src", "Shop").stdout
    id = out.split()[2]
    assert f"smsqueue show {id}" in out
    record = gateway.lookup(id)
    assert (record.message.dst, record.message.body) == ("15551234567", "hello")
    assert (record.message.src, record.state) == ("Shop", "queued")


def test_all_options_are_recorded(run_json, gateway: Gateway) -> None:
    sent = run_json(
        *("send", "15551234567", "hello", "--provider", "main", "--route", "a", "--route", "b"),
        *("--at", "2100-01-31T09:00+01:00", "--expires", "1.5", "--report", "--key", "k"),
    )
    record = gateway.lookup(sent["id"])
    assert record.state == "scheduled"
    assert record.message.provider == "main"
    assert record.message.routing_values == ("a", "b")
    assert record.message.provider_options.status_report


def test_same_key_is_one_message(run, run_json) -> None:
    first = run_json("send", "15551234567", "hello", "--key", "k")
    again = run_json("send", "15551234567", "hello", "--key", "k")
    assert not first["duplicate"]
    assert again == {"id": first["id"], "duplicate": True}
    result = run("send", "15551234567", "other", "--key", "k", code=1)
    assert "same idempotency key" in result.stderr


def test_text_from_standard_input(run_json, gateway: Gateway) -> None:
    sent = run_json("send", "15551234567", "-", input="two\nlines\n")
    assert gateway.lookup(sent["id"]).message.body == "two\nlines"


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["no digits", "x"], 1, "neither a phone number nor a short code"),
        (["0044", "x"], 1, "it begins with 00, as no short code does"),
        (["15551234567", "x" * 2000], 1, "SMSQUEUE_MAX_BODY"),
        (["15551234567", "x", "--at", "2100-01-31T09:00"], 2, "time zone"),
        (["15551234567", "x", "--at", "tomorrow"], 2, "invalid time"),
        (["15551234567", "x", "--expires", "0"], 2, "expires"),
        (["15551234567", "x", "--expires", "nan"], 2, "expires"),
        (["15551234567", "x", "--key", ""], 2, "idempotency_key"),
        (["15551234567", "half \udcff"], 1, "unpaired surrogate"),
        (["15551234567", "x", "--src", "\udcff"], 1, ""),
        (["15551234567"], 2, "TEXT"),
    ],
)
def test_invalid_arguments(run, gateway: Gateway, arguments, code, error) -> None:
    result = run("send", *arguments, code=code)
    assert error in result.stderr
    assert "Error: " in result.stderr
    assert gateway.ledger.counts()["queued"] == 0


def test_wait_without_a_worker_says_so(run, settings) -> None:
    result = run("send", "15551234567", "x", "--wait", "--timeout", "0.1", code=1)
    assert "queued as" in result.stdout
    assert f"no worker is consuming {settings.send_queue}: start one with: " in result.stderr
    assert f"celery -A workers worker -Q {settings.send_queue}" in result.stderr


def test_wait_for_busy_workers(run, live) -> None:
    live()
    result = run("send", "15551234567", "x", "--wait", "--timeout", "0.1", code=1)
    assert "1 triggers wait in the broker: the workers are busy" in result.stderr


def test_a_warning_if_no_worker_consumes_the_queue(run, live, settings) -> None:
    live(settings.hook_queue)
    result = run("send", "15551234567", "x")
    assert result.stderr == (
        f"warning: no worker is consuming {settings.send_queue}: "
        f"start one with: celery -A workers worker -Q {settings.send_queue}\n"
    )
    live()
    assert run("send", "15551234567", "x").stderr == ""


def test_wait_for_what_is_scheduled(run) -> None:
    arguments = ("send", "15551234567", "x", "--at", "2100-01-31T09:00Z")
    result = run(*arguments, "--wait", "--timeout", "0.1", code=1)
    assert "the message is scheduled" in result.stderr


def _make_sent(gateway: Gateway, id: str) -> None:
    gateway.ledger.claim(id, "token", lease=60, worker="w")
    gateway.ledger.begin(id, "token", "main", lease=60, attempt=1)
    done = AttemptOutcome("sent", "main", msgid='"m1"', msgids=("m1",))
    gateway.ledger.settle(id, "token", 1, done)


@pytest.mark.parametrize(("outcome", "code"), [("sent", 0), ("cancelled", 1)])
def test_wait_ends_with_the_message(run_json, gateway: Gateway, outcome, code) -> None:
    def work() -> None:
        deadline = time.monotonic() + 60
        while not (ids := gateway.ledger.ids_in(State.QUEUED)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if outcome == "cancelled":
            gateway.ledger.cancel(ids[0])
        else:
            _make_sent(gateway, ids[0])

    worker = threading.Thread(target=work)
    worker.start()
    arguments = ("send", "15551234567", "secret", "--wait", "--timeout", "100")
    shown = run_json(*arguments, code=code)
    worker.join()
    assert shown["state"] == outcome
    assert "secret" not in str(shown)


def test_wait_for_a_report_that_does_not_come(run, run_json, gateway: Gateway) -> None:
    arguments = ("send", "15551234567", "x", "--key", "k", "--report")
    id = run_json(*arguments)["id"]
    _make_sent(gateway, id)
    result = run(*arguments, "--wait", "--timeout", "0.1", code=1)
    assert f"sent before with this key as {id}" in result.stdout
    assert "no delivery report within 0.1 s, the message is sent" in result.stderr


@pytest.mark.parametrize("key", [(), ("--key", "k")])
@pytest.mark.parametrize("trouble", ["away", "password", "no password", "full"])
def test_a_message_that_redis_refused_was_not_queued(
    run: Callable[..., Any],
    redis_server: Callable[..., Any],
    settings: Settings,
    trouble: str,
    key: tuple[str, ...],
) -> None:
    if trouble == "away":
        url = "redis://127.0.0.1:1/0"
    elif trouble == "full":
        url = redis_server().url
        with Gateway(replace(settings, redis_url=url)) as gateway:
            gateway.ledger.hash_of("creates the secret, as any earlier message did")
            gateway.ledger.redis.config_set("maxmemory", 1_000_000)
    else:
        url = redis_server("--requirepass", "right").url
        url = url.replace("//", "//:wrong@") if trouble == "password" else url
    arguments = ("send", "15551234567", "x", *key)
    result = run(*arguments, code=1, SMSQUEUE_REDIS_URL=url)
    assert result.stderr.rstrip().endswith(". The message was not queued")
    assert "again" not in result.stderr


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ((), "each run creates a new message, so running it again may send the text twice"),
        (("--key", "k"), "running it again with the same --key is safe"),
    ],
)
def test_a_message_may_be_queued_if_the_answer_of_redis_is_lost(
    run: Callable[..., Any], redis_server: Callable[..., Any], key: tuple[str, ...], says: str
) -> None:
    server = redis_server()
    url = server.url
    server.process.send_signal(signal.SIGSTOP)
    result = run("send", "15551234567", "x", *key, code=1, SMSQUEUE_REDIS_URL=url)
    assert f"The message may be queued: {says}" in result.stderr
