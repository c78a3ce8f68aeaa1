"""What Redis shows of texts and numbers, and that docs/deploy/redis.md prevents it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from smsqueue import Gateway, OutgoingMessage, Settings
from smsqueue.ledger.acl import ROLES, user_line
from tests.conftest import RedisServer
from tests.deploy.compose import ROOT

PAGE = (ROOT / "docs" / "deploy" / "redis.md").read_text("utf-8")
SECTION = PAGE.partition("## What Redis shows of texts and numbers\n")[2].partition("\n## ")[0]
#: Every command counts as slow.
ALL = ("--slowlog-log-slower-than", "0", "--slowlog-max-len", "1000")
Make = Callable[..., RedisServer]


def configuration(text: str) -> list[list[str]]:
    """The lines of the page's examples of redis.conf, by their words."""
    found = re.findall(r"^```text\n(.*?)^```$", text, re.M | re.S)
    return [line.replace('""', "").split() for block in found for line in block.splitlines()]


def send(settings: Settings) -> None:
    with Gateway(settings) as gateway:
        assert gateway.send(OutgoingMessage("+15551234567", "the code is 998877")).id


def slowlog(server: RedisServer) -> str:
    with redis.Redis.from_url(server.url) as client:
        return str([entry["command"] for entry in client.slowlog_get(1000)])


def test_the_slow_log_shows_texts_unless_it_keeps_nothing(
    redis_server: Make, settings: Settings
) -> None:
    server = redis_server(*ALL)
    here = replace(settings, redis_url=server.url)
    send(here)
    assert "998877" in slowlog(server)
    assert "15551234567" in slowlog(server)
    [line] = [line for line in configuration(SECTION) if line[0].startswith("slowlog")]
    with redis.Redis.from_url(server.url) as client:
        client.config_set(*line)
        send(here)
        assert client.slowlog_get(1000) == []


def test_monitor_shows_texts(redis_server: Make, settings: Settings) -> None:
    server = redis_server()
    with redis.Redis.from_url(server.url) as client, client.monitor() as monitor:
        send(replace(settings, redis_url=server.url))
        shown = ""
        while "998877" not in shown:  # its connection has a time-out
            shown = str(monitor.next_command()["command"])


def test_accounts_send_and_may_run_neither(
    redis_server: Make, settings: Settings, tmp_path: Path
) -> None:
    hash = hashlib.sha256(b"a-long-password").hexdigest()
    lines = [user_line(role, settings.namespace, 0, hash) for role in ROLES]
    (tmp_path / "users.acl").write_text("\n".join([*lines, "user default off", ""]))
    server = redis_server("--aclfile", str(tmp_path / "users.acl"))
    for role in ROLES:
        account = f"//{settings.namespace}-{role.name}:a-long-password@"
        url = server.url.replace("//", account)
        if role.name == "sender":
            send(replace(settings, redis_url=url))
        with redis.Redis.from_url(url) as client:
            for command in ("MONITOR", "SLOWLOG GET"):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client.execute_command(*command.split())


def test_without_accounts_the_commands_can_be_taken_away(
    redis_server: Make, settings: Settings
) -> None:
    renamed = [line for line in configuration(SECTION) if line[0] == "rename-command"]
    assert [line[1] for line in renamed] == ["MONITOR", "SLOWLOG"]
    server = redis_server(*(word for _, name in renamed for word in ("--rename-command", name, "")))
    send(replace(settings, redis_url=server.url))
    with redis.Redis.from_url(server.url) as client:
        for _, name in renamed:
            with pytest.raises(redis.exceptions.ResponseError, match="unknown command"):
                client.execute_command(name)
