"""Accounts of Redis: each kind of process works with its own, and it opens nothing else."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
from click.testing import CliRunner
from redis.exceptions import NoPermissionError, ResponseError

from smsqueue import Gateway, OutgoingMessage, Settings, exc
from smsqueue.cli import main
from smsqueue.ledger.acl import ROLES
from smsqueue.ledger.client import execute_above_maxmemory
from smsqueue.message.states import State
from tests.conftest import RedisServer
from tests.deploy.compose import PATH, ROOT, Compose, until
from tests.deploy.conftest import PASSWORDS, TOKEN, VARIABLES

SECRETS = VARIABLES | PASSWORDS
NAMES = [role.name for role in ROLES]

#: What an account might be stolen for.
FORBIDDEN = (
    *("CONFIG GET *", "CONFIG SET dir /tmp", "CONFIG REWRITE", "KEYS *", "SCAN 0", "RANDOMKEY"),
    *("FLUSHALL", "FLUSHDB", "DEBUG SLEEP 0", "MONITOR", "SLOWLOG GET", "LATENCY LATEST"),
    *("CLIENT LIST", "CLIENT KILL TYPE normal", "ACL LIST", "ACL WHOAMI", "ACL SETUSER x"),
    *("SAVE", "BGSAVE", "BGREWRITEAOF", "SHUTDOWN NOSAVE", "REPLICAOF NO ONE", "PSYNC ? -1"),
    *("MODULE LIST", "MIGRATE h 1 k 0 1", "SWAPDB 0 1", "SCRIPT FLUSH", "SCRIPT KILL"),
    *("PUBSUB CHANNELS", "DUMP sms:msg:1", "SORT sms:due:send"),
)

Make = Callable[..., RedisServer]


def password(role: str) -> str:
    return SECRETS[f"REDIS_PASSWORD_{role.upper()}"]


def address(url: str, role: str) -> str:
    return url.replace("//", f"//sms-{role}:{password(role)}@")


def accounts(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["smsqueue", "acl"], env=environment | {"PATH": PATH}, capture_output=True, text=True
    )


@pytest.fixture(scope="session")
def printed() -> str:
    """What ``smsqueue acl`` prints."""
    return accounts(**SECRETS).stdout


@pytest.fixture
def server(redis_server: Make, printed: str, tmp_path: Path) -> RedisServer:
    """A Redis with all accounts, messages of ours and keys of two other applications."""
    (tmp_path / "users.acl").write_text(printed)
    made = redis_server("--aclfile", str(tmp_path / "users.acl"))
    with account(made, "admin") as admin:
        admin.hset("sms:msg:1", mapping={"data": "the text", "state": "queued"})
        admin.hset("sms:event:1", "data", "an incoming text")
        admin.set("sms:secret", "the key of the hashes")
        admin.hset("shop:msg:1", "data", "a text of another namespace")
        admin.set("session:1", "of another application")
    return made


@contextmanager
def account(server: RedisServer, role: str) -> Iterator[Any]:
    client = redis.Redis.from_url(address(server.url, role), decode_responses=True)
    with client:
        yield client


def refused(client: Any, *words: Any) -> None:
    """Redis refuses a command, sent by itself and by a script; the account's own rights."""
    with pytest.raises(NoPermissionError):
        client.execute_command(*words)
    # Its key is not among those that the script declares.
    script = f"return redis.call({', '.join(repr(str(word)) for word in words)})"
    with pytest.raises(ResponseError, match=r"NOPERM|can't run this command|can't access|ACL"):
        client.execute_command("EVALSHA", client.script_load(script), 0)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("role", NAMES)
def test_no_account_manages_the_server(server: RedisServer, role: str) -> None:
    with account(server, role) as client:
        assert client.ping()
        for command in FORBIDDEN:
            # Redis 7 refuses DEBUG to everybody.
            with pytest.raises(ResponseError, match=r"no permissions|DEBUG command not allowed"):
                client.execute_command(*command.split())


@pytest.mark.parametrize("role", NAMES)
def test_no_account_reaches_keys_of_others(server: RedisServer, role: str) -> None:
    with account(server, "admin") as admin:
        assert admin.get("session:1")
        assert admin.hget("shop:msg:1", "data")
    with account(server, role) as client:
        refused(client, "GET", "session:1")
        refused(client, "HGET", "shop:msg:1", "data")
        refused(client, "SET", "session:1", "x")
        refused(client, "DEL", "shop:msg:1")
        for channel in ("news", "shop:broker:/0.celery.pidbox"):
            with pytest.raises(NoPermissionError):
                client.execute_command("PUBLISH", channel, "x")


def test_flower_sees_nothing_of_the_ledger(server: RedisServer) -> None:
    with account(server, "flower") as client:
        assert client.llen("sms:broker:sms.send") == 0
        refused(client, "HGET", "sms:msg:1", "data")
        refused(client, "HGET", "sms:event:1", "data")
        refused(client, "GET", "sms:secret")
        refused(client, "ZRANGE", "sms:state:queued", 0, -1)
        refused(client, "INFO")


def test_the_monitor_reads_no_message_and_writes_nothing(server: RedisServer) -> None:
    with account(server, "monitor") as client:
        assert client.zcard("sms:state:queued") == 0
        refused(client, "HGET", "sms:msg:1", "data")
        refused(client, "HGET", "sms:event:1", "data")
        refused(client, "GET", "sms:secret")
        refused(client, "HSET", "sms:counts", "accepted", 1)
        refused(client, "LPUSH", "sms:broker:sms.send", "x")
        refused(client, "DEL", "sms:state:queued")


def test_a_sender_reads_no_incoming_message(server: RedisServer) -> None:
    with account(server, "sender") as client:
        refused(client, "HGET", "sms:event:1", "data")
        refused(client, "HSET", "sms:workers", "w", "1")
        refused(client, "RPOP", "sms:broker:sms.send")


@pytest.mark.parametrize("role", [name for name in NAMES if name not in ("worker", "flower")])
def test_only_workers_and_flower_control_workers(server: RedisServer, role: str) -> None:
    with account(server, "flower") as client:
        assert client.publish("sms:broker:/0.celery.pidbox", "x") == 0
    with account(server, role) as client:
        with pytest.raises(NoPermissionError):
            client.publish("sms:broker:/0.celery.pidbox", "x")
        with pytest.raises(NoPermissionError):
            client.execute_command("PSUBSCRIBE", "sms:broker:/0.celeryev/*")


def test_who_has_not_logged_in_may_ask_whether_redis_is_there(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url, protocol=2) as client:
        assert client.ping()
        for command in (*FORBIDDEN, "INFO", "GET sms:secret", "HGETALL sms:msg:1"):
            with pytest.raises(ResponseError):
                client.execute_command(*command.split())
    with (
        Gateway(Settings(redis_url=server.url)) as gateway,
        pytest.raises(exc.QueueUnavailable, match="does not allow this to its user"),
    ):
        gateway.send(OutgoingMessage("+15551234567", "hello"))


# --- what a stolen account can still do: docs/deploy/redis.md says so ----------------------------


@pytest.mark.parametrize("role", ["sender", "worker", "receivers", "operator"])
def test_accounts_that_need_the_ledger_can_read_and_alter_messages(
    server: RedisServer, role: str
) -> None:
    with account(server, role) as client:
        assert client.hget("sms:msg:1", "data") == "the text"
        client.hset("sms:msg:1", "data", "another text")
        assert client.get("sms:secret")


def test_a_sender_with_a_hash_key_works_beside_the_key_in_redis(server: RedisServer) -> None:
    key = "0123456789abcdef" * 2
    with Gateway(Settings(redis_url=address(server.url, "sender"), hash_key=key)) as sender:
        assert sender.send(OutgoingMessage("+15551234567", "hello")).id
    with account(server, "admin") as admin:
        assert admin.get("sms:secret") == "the key of the hashes"
        assert str(admin.get("sms:idem:hash_key")).startswith("outside:")


# --- what is refused is refused whole ------------------------------------------------------------


def test_what_a_sender_may_not_do_changes_nothing(server: RedisServer) -> None:
    with (
        Gateway(Settings(redis_url=address(server.url, "sender"))) as sender,
        Gateway(Settings(redis_url=address(server.url, "operator"))) as operator,
    ):
        later = datetime.now(UTC) + timedelta(hours=1)
        message = OutgoingMessage("+15551234567", "hello").options(send_at=later)
        id = sender.send(message).id or ""
        before = operator.lookup(id).timeline
        for forbidden in (sender.cancel, sender.requeue):
            with pytest.raises(exc.QueueUnavailable, match="does not allow this to its user"):
                forbidden(id)
        assert operator.lookup(id).state == State.SCHEDULED
        assert operator.lookup(id).timeline == before
        assert operator.cancel(id)
        assert operator.lookup(id).state == State.CANCELLED


@pytest.mark.parametrize("rights", ["", "resetkeys ~sms:secret", "-evalsha ~*"])
def test_a_send_that_its_account_may_not_make_says_that_nothing_was_queued(
    server: RedisServer, rights: str
) -> None:
    environment = {"SMSQUEUE_REDIS_URL": address(server.url, "monitor")}
    with account(server, "admin") as admin:
        # With the key of the hashes it comes as far as to run the script.
        admin.execute_command("ACL", "SETUSER", "sms-monitor", *rights.split())
        result = CliRunner().invoke(main, ["send", "+15551234567", "hello"], env=environment)
        assert result.exit_code == 1
        assert "does not allow this to its user" in result.output
        assert "was not queued" in result.output
        assert not admin.hlen("sms:counts")


def test_an_account_of_before_tags_refuses_only_messages_with_tags(server: RedisServer) -> None:
    with account(server, "admin") as admin:
        keys = [f"~sms:{name}*" for name in ("broker", "state", "due", "number", "idem", "secret")]
        keys += [f"~sms:{name}*" for name in ("msg", "filled", "counts", "ends", "passed", "pause")]
        admin.execute_command("ACL", "SETUSER", "sms-sender", "resetkeys", "~sms", *keys)
        with Gateway(Settings(redis_url=address(server.url, "sender"))) as sender:
            with pytest.raises(exc.QueueUnavailable, match="does not allow this") as refusal:
                sender.send(OutgoingMessage("+15551234567", "hello").options(tag="sale"))
            assert refusal.value.refused
            assert not admin.exists("sms:state:queued")
            assert sender.send(OutgoingMessage("+15551234567", "hello")).id
        assert admin.zcard("sms:state:queued") == 1


def test_status_says_that_an_account_of_before_pauses_sees_none(
    server: RedisServer, printed: str
) -> None:
    (line,) = (line for line in printed.splitlines() if line.startswith("user sms-monitor "))
    rules = [rule for rule in line.split()[2:] if not rule.startswith("~sms:held")]
    environment = {"SMSQUEUE_REDIS_URL": address(server.url, "monitor")}
    for expected, changed in (("paused by", []), ("may not read what operators have", rules)):
        with account(server, "admin") as admin:
            if changed:
                admin.execute_command("ACL", "SETUSER", "sms-monitor", *changed)
        with Gateway(Settings(redis_url=address(server.url, "operator"))) as operator:
            operator.pause(tag="sale")
        assert expected in CliRunner().invoke(main, ["status"], env=environment).output


def test_status_of_the_monitor_names_no_tags(server: RedisServer) -> None:
    with Gateway(Settings(redis_url=address(server.url, "sender"))) as sender:
        sender.send(OutgoingMessage("+15551234567", "hello").options(tag="sale"))
    tags = {}
    for role in ("monitor", "operator"):
        environment = {"SMSQUEUE_REDIS_URL": address(server.url, role)}
        result = CliRunner().invoke(main, ["status", "--json"], env=environment)
        tags[role] = [entry["tag"] for entry in json.loads(result.stdout)["tags"]]
    assert tags == {"monitor": [], "operator": ["sale"]}
    result = CliRunner().invoke(
        main,
        ["status", "--tag", "sale"],
        env={"SMSQUEUE_REDIS_URL": address(server.url, "monitor")},
    )
    assert "such as sms-operator" in result.stderr


def test_a_script_that_is_denied_a_command_in_its_middle_may_have_queued(
    server: RedisServer,
) -> None:
    environment = {"SMSQUEUE_REDIS_URL": address(server.url, "sender")}
    with account(server, "admin") as admin:
        admin.execute_command("ACL", "SETUSER", "sms-sender", "-zadd")
        result = CliRunner().invoke(main, ["send", "+15551234567", "hello"], env=environment)
        assert result.exit_code == 1
        assert "may be queued" in result.output
        assert len(list(admin.scan_iter("sms:msg:*"))) == 2


@pytest.mark.parametrize("command", ["find +15551234567", "purge --all --yes", "cancel {id}"])
def test_a_sender_is_told_which_account_may_find_purge_and_cancel(
    server: RedisServer, command: str
) -> None:
    with Gateway(Settings(redis_url=address(server.url, "sender"))) as gateway:
        id = gateway.send(OutgoingMessage("+15551234567", "hello")).id or ""
    result = CliRunner().invoke(
        main,
        command.format(id=id).split(),
        env={"SMSQUEUE_REDIS_URL": address(server.url, "sender")},
    )
    assert result.exit_code == 1
    assert "does not allow this to its user" in result.output
    assert "an account that may do it, such as sms-operator, into SMSQUEUE_REDIS_URL" in (
        result.output
    )
    assert "script" not in result.output


@pytest.mark.parametrize("role", ["sender", "worker", "receivers", "operator"])
def test_triggers_are_published_above_maxmemory(server: RedisServer, role: str) -> None:
    with account(server, "admin") as admin, account(server, role) as client:
        admin.config_set("maxmemory", 1)
        push = ("LPUSH", "sms:broker:sms.send", "trigger")
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.execute_command(*push)
        assert execute_above_maxmemory(client, "sms:broker:", [push]) == [1]


@pytest.mark.parametrize("role", ["sender", "operator"])
def test_a_damaged_index_is_set_aside_by_who_meets_it(server: RedisServer, role: str) -> None:
    with account(server, "admin") as admin:
        for name in ("counts", "state:queued", "due:send"):
            admin.set(f"sms:{name}", "not an index")
        with Gateway(Settings(redis_url=address(server.url, role))) as gateway:
            id = gateway.send(OutgoingMessage("+15551234567", "hello")).id or ""
            assert gateway.lookup(id).state == State.QUEUED
        assert admin.get("sms:aside:counts") == "not an index"


# --- what works ----------------------------------------------------------------------------------


def settings_of(compose: Compose, role: str) -> Settings:
    url = address(f"redis://127.0.0.1:{compose.ports['redis', 6379]}/0", role)
    return Settings.from_mapping(compose.environment("send") | {"SMSQUEUE_REDIS_URL": url})


def test_every_process_works_and_redis_refuses_nothing_that_it_does(compose: Compose) -> None:
    admin_url = settings_of(compose, "admin").redis_url
    number = "+15550001109"  # the simulator replies from there, and the demo's hook answers
    with (
        redis.Redis.from_url(admin_url, decode_responses=True) as admin,
        Gateway(settings_of(compose, "sender")) as sender,
        Gateway(settings_of(compose, "operator")) as operator,
    ):
        admin.acl_log_reset()
        message = OutgoingMessage(number, "hello").options(
            status_report=True, idempotency_key="once"
        )
        id = sender.send(message).id or ""
        until(lambda: sender.lookup(id).state == State.DELIVERED)
        until(lambda: len(operator.find(number)) == 2)
        until(lambda: {each.state for each in operator.find(number)} == {State.DELIVERED})
        again = OutgoingMessage(number, "hello").options(status_report=True, idempotency_key="once")
        assert sender.send(again).duplicate
        many = [OutgoingMessage(f"+1555000{n:04}", "hi") for n in range(20)]
        for each in sender.send_many(many):
            until(lambda id=each.id: operator.lookup(id).state == State.SENT)
        with requests.Session() as session:
            session.trust_env = False
            flower, ours = compose.url("flower"), ("ann", "s3cret")

            def page(path: str) -> str:
                return session.get(f"{flower}/{path}", auth=ours, timeout=30).text

            until(lambda: id in page(f"task/{id}"))
            page("api/workers?refresh=1")
            [worker] = [name for name in json.loads(page("api/workers")) if "send" in name]
            shown = page(f"worker/{worker}")
            assert "Pool" in shown
            assert password("worker") not in shown
            receivers = compose.url("receivers")
            assert session.get(f"{receivers}/readyz", timeout=30).text.strip() == "ready"
            right = {"Authorization": f"Bearer {TOKEN['SMSQUEUE_METRICS_TOKEN']}"}
            metrics = session.get(f"{receivers}/metrics", headers=right, timeout=30)
            assert metrics.status_code == 200
        for role, commands in (
            ("operator", ("check", "status", "list", "providers", f"show {id}", f"find {number}")),
            ("monitor", ("status",)),
        ):
            for command in commands:
                url = settings_of(compose, role).redis_url
                done = subprocess.run(
                    ["smsqueue", *command.split()],
                    env=compose.environment("send") | {"SMSQUEUE_REDIS_URL": url},
                    cwd=compose.app,
                    capture_output=True,
                    text=True,
                )
                assert done.returncode == 0, done.stdout + done.stderr
                if command == "check":
                    assert not re.findall("^(?:warning|problem).*redis.*", done.stdout, re.M)
        # From Redis 7 on with the subcommand: config|get.
        log = {(e["username"], e["object"].partition("|")[0]) for e in admin.acl_log(1000)}
    # redis-py tells Redis its version; ``check``, and workers and receivers that start, look for
    # settings. None of them needs an answer.
    ours = {(f"sms-{role}", "client") for role in NAMES}
    ours |= {(f"sms-{role}", "config") for role in ("operator", "worker", "receivers")}
    assert {entry for entry in log if entry[0].startswith("sms-")} <= ours


def test_a_worker_keeps_its_connection_with_the_command_of_the_readme(
    server: RedisServer, tmp_path: Path
) -> None:
    """Without --without-gossip it also subscribes to what other workers tell of themselves."""
    (tmp_path / "shop_sms.py").write_text(
        "from smsqueue import Gateway\nfrom smsqueue.providers.null import NullProvider\n"
        "gateway = Gateway()\ngateway.add_provider('null', NullProvider)\n"
    )
    environment = {
        "PATH": PATH,
        "SMSQUEUE_GATEWAY": "shop_sms:gateway",
        "SMSQUEUE_REDIS_URL": address(server.url, "worker"),
    }
    with account(server, "admin") as admin, (tmp_path / "worker.log").open("w") as log:
        admin.acl_log_reset()
        worker = subprocess.Popen(
            ["celery", "-A", "workers", "worker", "--loglevel", "info"],
            env=environment,
            cwd=tmp_path,
            stdout=log,
            stderr=log,
        )
        try:
            until(lambda: admin.acl_log() and admin.pubsub_numpat() >= 2, 30.0)
            refused = {entry["object"] for entry in admin.acl_log()}
        finally:
            worker.terminate()
            worker.wait(30)
    # redis-py tells Redis its version, the worker looks for settings. Neither needs an answer.
    assert {each.partition("|")[0] for each in refused} <= {"client", "config"}


def test_the_accounts_may_run_every_command_of_the_scripts() -> None:
    scripts = (ROOT / "smsqueue" / "ledger").rglob("*.lua")
    used = {
        name.lower()
        for script in scripts
        for name in re.findall(r"\.p?call\(\s*'([A-Z]+)'", script.read_text("utf-8"))
    }
    assert len(used) > 30
    for role in ROLES:
        if role.name in ("worker", "receivers", "operator"):
            assert used <= set(role.commands)


# --- the command that makes them -----------------------------------------------------------------


def test_the_file_holds_no_password(printed: str) -> None:
    assert len(printed.splitlines()) == 2 + len(ROLES)
    assert not [name for name in SECRETS if SECRETS[name] in printed]


@pytest.mark.parametrize(
    ("given", "reason"), [("", "is not set"), ("short", "has fewer than 24 characters")]
)
@pytest.mark.parametrize("name", [f"REDIS_PASSWORD_{name.upper()}" for name in NAMES])
def test_a_password_that_is_missing_or_weak_is_refused(name: str, given: str, reason: str) -> None:
    done = CliRunner().invoke(main, ["acl"], env=SECRETS | {name: given})
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"{name} {reason}: set it to a random string" in done.stderr


@pytest.mark.parametrize("name", ["WORKER", "ADMIN"])
def test_one_password_for_two_accounts_is_refused(name: str) -> None:
    same = {f"REDIS_PASSWORD_{name}": SECRETS["REDIS_PASSWORD_SENDER"]}
    done = CliRunner().invoke(main, ["acl"], env=SECRETS | same)
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"REDIS_PASSWORD_SENDER and REDIS_PASSWORD_{name} are the same" in done.stderr
