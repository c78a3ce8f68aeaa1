"""smsqueue audit: who did what, to how many messages."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
from typing import Any

import pytest

from smsqueue import Gateway, OutgoingMessage


@pytest.fixture
def entries(run):
    """What ``smsqueue audit --json`` prints, the last first."""

    def read(*options: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in run("audit", "--json", *options).stdout.splitlines()]

    return read


def test_each_operation_has_an_entry(run, make, entries, gateway: Gateway) -> None:
    assert run("audit").stdout == "no operator has changed anything\n"
    waiting, lost, dead = make("queued"), make("unknown"), make("dead")
    run("--as", "alice", "cancel", waiting, "nothing", code=1)
    run("--as", "bob", "settle", lost, "--as", "delivered")
    run("replay", dead)
    run("replay", dead, code=1)
    refused, replay, settle, cancel = entries()
    assert (cancel["by"], cancel["action"], cancel["result"]) == ("alice", "cancel", "done")
    assert (cancel["matched"], cancel["done"], cancel["refused"]) == (2, 1, 1)
    assert cancel["ids"] == [waiting]
    assert (settle["by"], settle["details"], settle["done"]) == ("bob", {"as": "delivered"}, 1)
    user = pwd.getpwuid(os.getuid()).pw_name
    assert (replay["by"], replay["result"]) == (user, "done")
    assert (refused["result"], refused["done"], refused["ids"]) == ("refused", 0, [])
    assert [entry["action"] for entry in entries("--by", "bob")] == ["settle"]
    assert [entry["by"] for entry in entries("--action", "cancel", "--since", "1h")] == ["alice"]
    assert "1 of 2" in run("audit").stdout
    assert "alice" in run("show", waiting).stdout
    assert gateway.lookup(lost).timeline[-1]["by"] == "bob"


@pytest.mark.parametrize("name", ["", " ", "x" * 65, "two\nlines", "\x1b[2J"])
def test_a_name_is_short_and_printable(run, gateway: Gateway, name: str) -> None:
    assert "printable characters" in run("--as", name, "audit", code=2).stderr
    with pytest.raises(ValueError, match="printable characters"):
        gateway.operator_name = name


def test_filters_are_in_the_entry_and_the_whole_command_is_one(run, make, entries) -> None:
    ids = [make("failed") for _ in range(25)]
    run("requeue", "--state", "failed", "--provider", "main", "--yes", "--expires", "30")
    (entry,) = entries()
    assert entry["details"] == {"state": "failed", "provider": "main", "expires": "30.0"}
    assert (entry["done"], entry["refused"], len(entry["ids"])) == (25, 0, 10)
    assert set(entry["ids"]) < set(ids)


def test_a_dry_run_changes_nothing_and_is_not_recorded(run, make, entries) -> None:
    make("queued"), make("dead")
    run("cancel", "--state", "queued", "--dry-run")
    run("purge", "--all", "--dry-run")
    assert entries() == []
    run("purge", "--all", "--yes")
    assert [(entry["action"], entry["done"]) for entry in entries()] == [("purge", 1)]


def test_an_application_that_cancels_one_by_one_makes_one_entry(
    make, entries, gateway: Gateway
) -> None:
    ids = [make("queued") for _ in range(30)]
    gateway.operator_name = "shop"
    for id in ids[:20]:
        assert gateway.cancel(id)
    assert not gateway.cancel(ids[0])
    for id in ids[20:]:
        assert gateway.cancel(id, by="carol")
    carol, shop = entries()
    assert (shop["by"], shop["done"], shop["refused"], shop["result"]) == ("shop", 20, 1, "done")
    assert (carol["by"], carol["done"]) == ("carol", 10)


def test_the_number_of_entries_is_limited(make, entries, gateway: Gateway) -> None:
    gateway.ledger.redis.zadd(
        f"{gateway.settings.namespace}:audit", {f"old{n}": 10**13 + n for n in range(10_000)}
    )
    gateway.cancel(make("queued"), by="dora")
    assert gateway.ledger.redis.zcard(f"{gateway.settings.namespace}:audit") == 10_000
    assert [entry["by"] for entry in entries()] == ["dora"]


def test_numbers_are_masked(make, entries, gateway: Gateway) -> None:
    with gateway.acting("cancel", {"number": "15551234567"}) as action:
        gateway.cancel(make("queued"), by=action)
    (entry,) = entries()
    assert "1234567" not in entry["details"]["number"]


def test_what_was_interrupted_says_so(make, entries, gateway: Gateway) -> None:
    def act() -> None:
        with gateway.acting("cancel", matched=2) as action:
            gateway.cancel(make("queued"), by=action)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        act()
    (entry,) = entries()
    assert (entry["matched"], entry["done"], entry["result"]) == (2, 1, "interrupted")


KILLED = """
import os, signal, sys
from smsqueue import Gateway
gateway = Gateway()
with gateway.acting("cancel", {"states": ["queued"]}, by="erin", matched=2) as action:
    gateway.cancel(sys.argv[1], by=action)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_what_it_has_done(
    make, entries, gateway: Gateway, environment
) -> None:
    id = make("queued")
    variables = os.environ | {name: value for name, value in environment.items() if value}
    killed = subprocess.run([sys.executable, "-c", KILLED, id], env=variables, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert gateway.lookup(id).state == "cancelled"
    (entry,) = entries()
    assert (entry["by"], entry["done"], entry["result"]) == ("erin", 1, "running")
    key = f"{gateway.settings.namespace}:audit:{entry['id']}"
    gateway.ledger.redis.hset(key, "last", int(gateway.ledger.now() * 1000) - 61_000)
    assert entries()[0]["result"] == "interrupted"


def test_a_damaged_entry_hides_no_other(make, entries, gateway: Gateway) -> None:
    gateway.cancel(make("queued"), by="frank")
    gateway.cancel(make("queued"), by="grace")
    grace, frank = entries()
    namespace = gateway.settings.namespace
    gateway.ledger.redis.set(f"{namespace}:audit:{frank['id']}", "text")
    assert entries() == [grace]
    gateway.ledger.redis.set(f"{namespace}:audit", "text")
    gateway.cancel(make("queued"), by="henry")
    assert [entry["by"] for entry in entries()] == ["henry"]


def test_messages_that_are_sent_leave_no_entry(entries, gateway: Gateway) -> None:
    gateway.send(OutgoingMessage("15551234567", "hi"))
    assert entries() == []
