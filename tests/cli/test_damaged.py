"""Commands with damaged records, failing upkeep and failing routers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from smsqueue import Gateway, OutgoingMessage, exc
from smsqueue.delivery import Delivery, Slots
from smsqueue.operation.metrics import scrape
from smsqueue.providers import NullProvider

Run = Callable[..., Any]

BAD = [
    ("timeline", "zzz"),
    ("timeline", "5"),
    ("data", "zzz"),
    ("attempt", "zzz"),
    ("state", "zzz"),
]


def damage(gateway: Gateway, id: str, field: str, value: str) -> None:
    gateway.ledger.redis.hset(f"{gateway.settings.namespace}:msg:{id}", field, value)


@pytest.mark.parametrize(("field", "value"), [*BAD, ("", "")])
def test_damaged_messages_are_one_line(
    run: Run, run_json: Run, make: Callable[..., str], gateway: Gateway, field: str, value: str
) -> None:
    good, bad = make("queued"), make("queued")
    if field:
        damage(gateway, bad, field, value)
    else:
        key = f"{gateway.settings.namespace}:msg:{bad}"
        gateway.ledger.redis.delete(key)
        gateway.ledger.redis.rpush(key, "mine")
    shown = run("show", bad).stdout
    assert shown.startswith(f"damaged message {bad}: ")
    assert f"smsqueue repair {bad}" in shown
    assert len(shown.splitlines()) == 1
    for arguments in (("find", "15551234567"), ("list", "--state", "queued")):
        lines = run(*arguments).stdout.splitlines()
        assert any(good in line and "damaged" not in line for line in lines)
        assert any(bad in line and "damaged" in line for line in lines)
    assert run_json("show", bad)["state"] == "damaged"


def test_a_damaged_event_is_one_line(run: Run, make: Callable[..., str], gateway: Gateway) -> None:
    event = make("dead")
    gateway.ledger.redis.hset(f"{gateway.settings.namespace}:event:{event}", "data", "zzz")
    for arguments in (("show", event), ("list", "--state", "dead")):
        assert "damaged" in run(*arguments).stdout


def test_cancel_names_a_damaged_message_and_goes_on(
    run: Run, make: Callable[..., str], gateway: Gateway
) -> None:
    bad, good = make("queued"), make("queued")
    damage(gateway, bad, "timeline", "zzz")
    result = run("cancel", bad, good, code=1)
    assert f"{good}: cancelled" in result.stdout
    assert f"{bad}: it is damaged" in result.stderr
    assert gateway.ledger.redis.hget(f"{gateway.settings.namespace}:msg:{bad}", "state") == "queued"


def test_status_names_damaged_messages_and_repair_repairs_them(
    run: Run, run_json: Run, make: Callable[..., str], gateway: Gateway, live: Callable[..., None]
) -> None:
    live()
    bad = make("queued")
    damage(gateway, bad, "timeline", "zzz")
    run("cancel", bad, code=1)
    text = run("status", code=1).stdout
    assert f"message {bad} is damaged: timeline" in text
    assert f"smsqueue repair {bad}" in text
    assert bad in run("list", "--damaged").stdout
    assert "is queued now" in run("repair", bad).stdout
    assert run("repair", bad, code=1).stderr.strip().endswith("its record is not damaged")
    assert run("status").stdout.startswith("OK")
    assert run_json("list", "--damaged")["items"] == []
    assert gateway.lookup(bad).state == "queued"


def test_a_record_that_cannot_be_repaired_can_be_removed(
    run: Run, make: Callable[..., str], gateway: Gateway
) -> None:
    bad = make("queued")
    key = f"{gateway.settings.namespace}:msg:{bad}"
    gateway.ledger.redis.delete(key)
    gateway.ledger.redis.rpush(key, "mine")
    assert run("repair", bad, code=1).stderr == (
        f"{bad}: it cannot be repaired (it is a list in Redis, not a hash), "
        f"remove it with: smsqueue repair {bad} --remove\n"
    )
    with pytest.raises(exc.DamagedRecord, match=f"remove it with: smsqueue repair {bad} --remove"):
        gateway.repair(bad)
    run("repair", bad, "--remove", "--yes")
    run("show", bad, code=1)
    run("repair", make("queued"), "--remove", code=1)  # it is not damaged


@pytest.mark.parametrize(
    ("field", "value", "cause"),
    [
        ("timeline", "zzz", "timeline is not a JSON list of lines"),
        ("timeline", "5", "timeline is not a JSON list of lines"),
        ("timeline", "[]", "timeline is empty"),
        ("timeline", None, "timeline is missing"),
        ("state", "zzz", "state is not a known one"),
        ("state", None, "state is missing"),
        ("attempt", "zzz", "attempt is not a whole number"),
        ("", None, "it is a list in Redis, not a hash"),
    ],
)
def test_a_cause_has_the_same_text_in_all_commands(
    run: Run,
    run_json: Run,
    make: Callable[..., str],
    gateway: Gateway,
    field: str,
    value: str | None,
    cause: str,
) -> None:
    bad = make("queued")
    key = f"{gateway.settings.namespace}:msg:{bad}"
    if value is not None:
        damage(gateway, bad, field, value)
    elif field:
        gateway.ledger.redis.hdel(key, field)
    else:
        gateway.ledger.redis.delete(key)
        gateway.ledger.redis.rpush(key, "mine")
    assert "no damaged record was put aside" in run("list", "--damaged").stdout
    read = [
        run_json("show", bad)["why"],
        *(item["why"] for item in run_json("find", "15551234567")["items"]),
        *(item["why"] for item in run_json("list", "--state", "queued")["items"]),
    ]
    assert read == [cause] * 3
    assert cause in run("repair", bad, code=0 if field else 1).output


def test_the_repair_command_for_an_index_ends_its_warning(
    run: Run, run_json: Run, gateway: Gateway, live: Callable[..., None], make: Callable[..., str]
) -> None:
    live()
    key = f"{gateway.settings.namespace}:state:queued"
    gateway.ledger.redis.set(key, "mine")
    gateway.send(OutgoingMessage("15551234567", "x"))
    [problem] = run_json("status", code=1)["problems"]
    assert problem["do"] == "smsqueue repair state:queued --remove"
    [item] = run_json("list", "--damaged")["items"]
    assert item["do"] == problem["do"]
    run(*item["do"].split()[1:], "--yes")
    assert run("status").stdout.startswith("OK")


def test_cancel_of_a_damaged_message_names_it(make: Callable[..., str], gateway: Gateway) -> None:
    bad = make("queued")
    damage(gateway, bad, "timeline", "zzz")
    with pytest.raises(exc.DamagedRecord) as caught:
        gateway.cancel(bad)
    assert str(caught.value) == (
        f"{bad} is damaged (timeline is not a JSON list of lines): run smsqueue repair {bad}"
    )


def test_of_several_unrouted_messages_the_last_error_is_shown(
    run: Run, gateway: Gateway, live: Callable[..., None]
) -> None:
    live()
    gateway.add_provider("main", NullProvider)
    gateway.router = lambda message, name: name
    for name in ("gone", "lost"):
        _deliver(gateway, gateway.send(OutgoingMessage("15551234567", "hi").route(name)).id or "")
    text = run("status", code=1).stdout
    assert "2 messages could not be routed (the last: " in text
    assert "'lost'" in text


def test_failing_upkeep_is_reported(
    run: Run, gateway: Gateway, live: Callable[..., None], make: Callable[..., str]
) -> None:
    make("queued")
    queues = [gateway.settings.send_queue, gateway.settings.hook_queue]
    report = {"queues": queues, "concurrency": 8, "version": "0.1.0"}
    gateway.ledger.record_heartbeat(
        "celery@host/1", report | {"failing": {"sweep": "ERR of Redis"}}
    )
    text = run("status", code=2).stdout
    assert "upkeep fails on worker celery@host/1: sweep: ERR of Redis" in text
    assert "no worker is consuming" not in text
    assert "smsqueue_upkeep_failing 1.0" in scrape(gateway.ledger).decode()
    live()
    assert run("status").stdout.startswith("OK")


def _deliver(gateway: Gateway, id: str) -> None:
    Delivery(gateway, gateway.ledger, gateway.queue, Slots(8)).deliver(id)


def _raise(message: Any, *values: Any) -> None:
    raise KeyError(f"no route for {message.dst}")


@pytest.mark.parametrize(
    ("route", "error"),
    [
        (lambda message, *values: "gone", "unknown provider: 'gone' (known: main)"),
        (_raise, "raised by the router at"),
    ],
)
def test_a_router_that_fails_is_a_warning_until_the_message_goes_out(
    run: Run, gateway: Gateway, live: Callable[..., None], route: Any, error: str
) -> None:
    live()
    gateway.add_provider("main", NullProvider)
    gateway.router = route
    id = gateway.send(OutgoingMessage("15551234567", "hi").route("x")).id or ""
    _deliver(gateway, id)
    text = run("status", code=1).stdout
    assert "1 message could not be routed" in text
    assert error in text
    assert f"smsqueue show {id}" in text
    shown = run("show", id).stdout
    assert error in shown
    assert "5551234567" not in text + shown
    assert "smsqueue_unrouted 1.0" in scrape(gateway.ledger).decode()
    gateway.router = lambda message, *values: "main"
    gateway.ledger.redis.hset(f"{gateway.settings.namespace}:msg:{id}", "not_before", 1)
    _deliver(gateway, id)
    assert gateway.lookup(id).state == "sent"
    assert run("status").stdout.startswith("OK")
    assert "smsqueue_unrouted 0.0" in scrape(gateway.ledger).decode()
