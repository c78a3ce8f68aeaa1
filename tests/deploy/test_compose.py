"""docker-compose.yml: its services start by their own commands, are healthy by their own health
checks, send a message, and stop without losing a call."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import yaml

from smsqueue import Gateway, IProvider, OutgoingMessage, Settings
from smsqueue.ledger import Room
from smsqueue.message.states import EventState, State
from tests.deploy.compose import (
    FILE,
    ROOT,
    Compose,
    Missing,
    container_ports,
    resolve,
    seconds,
    until,
)
from tests.deploy.conftest import VARIABLES, Make

DOCUMENT: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = resolve(DOCUMENT["services"], VARIABLES)

#: A call and a handler that end when the test lets them.
PATIENT = """
import time
from pathlib import Path
from smsqueue import Gateway, IProvider

def wait_for(what):
    Path(f"{what}-began").touch()
    deadline = time.monotonic() + 60
    while not Path(f"{what}-may-end").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)

class Patient(IProvider):
    def send(self, message):
        wait_for("call")
        message.msgid = "1"
        return message

def handler(message):
    wait_for("handler")
    Path("handler-ended").touch()

gateway = Gateway()
gateway.add_provider("patient", Patient)
gateway.onSend.connect(handler, name="patient")
"""


@contextmanager
def gateway_of(compose: Compose) -> Iterator[Gateway]:
    """A gateway of an application that sends through these services."""
    with Gateway(Settings.from_mapping(compose.environment("send"))) as gateway:
        yield gateway


# --- as it is written ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_watched_comes_back_and_is_given_time_to_stop(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"])
    assert "stop_grace_period" in service


def test_workers_may_end_their_calls_and_handlers() -> None:
    lease = IProvider.deadline + 30
    assert seconds(SERVICES["send"]["stop_grace_period"]) > lease
    longest = Settings(handler_timeout=60).handler_timeout + 30
    assert seconds(SERVICES["hook"]["stop_grace_period"]) > longest


def test_receivers_may_end_their_requests() -> None:
    command = SERVICES["receivers"]["command"]
    patience = float(command[command.index("--graceful-timeout") + 1])
    assert seconds(SERVICES["receivers"]["stop_grace_period"]) > patience


def test_only_loopback_is_published() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"redis", "receivers", "flower"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_redis_keeps_what_was_accepted() -> None:
    command = SERVICES["redis"]["command"]
    given = dict(zip(command[1::2], command[2::2], strict=True))
    assert given["--appendonly"] == "yes"
    assert given["--appendfsync"] == "always"
    assert given["--maxmemory-policy"] == "noeviction"
    assert re.fullmatch(r"\d+mb", given["--maxmemory"])
    assert f"redis-data:{given['--dir']}" in SERVICES["redis"]["volumes"]


def test_all_pages_give_redis_the_same_settings() -> None:
    """What the promises need: as in the compose file, see the test above."""
    settings = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(page.read_text("utf-8") for page in pages)
    commands = re.findall(r"^\$ redis-server .*--append.*$", text, re.M)
    assert len(commands) >= 2
    for name, value in settings.items():
        assert [line for line in commands if f"--{name} {value}" not in line] == []
        for page in ("docs/operations.md", "docs/reliability.md"):
            assert f"\n| `{name} {value}` |" in (ROOT / page).read_text("utf-8")
        assert f"{name} {value}" in (ROOT / "docs/deploy/kubernetes.yaml").read_text("utf-8")


def test_redis_has_room_for_the_campaign_that_the_page_describes(
    redis_server: Callable[..., Any],
) -> None:
    page = (FILE.parent / "docs" / "deploy" / "README.md").read_text("utf-8")
    found = re.search(r"a campaign of ([\d,]+) messages .* beside ([\d,]+) that are kept", page)
    assert found
    campaign, kept = (int(number.replace(",", "")) for number in found.groups())
    table = (FILE.parent / "docs" / "deploy" / "redis.md").read_text("utf-8")
    row = re.search(r"^\| two reports \| ([\d,]+) \| [\d,]+ \| ([\d,]+) \|", table, re.M)
    assert row
    waiting, final = (int(number.replace(",", "")) for number in row.groups())
    options = SERVICES["redis"]["command"][1:]
    shown = dict(zip(options[::2], options[1::2], strict=True))
    names = ("--maxmemory", "--hash-max-ziplist-value", "--hash-max-ziplist-entries")
    server = redis_server(*(part for name in names for part in (name, shown[name])))
    with Gateway(Settings(redis_url=server.url)) as gateway:

        def room_beside(many: int) -> Room:
            gateway.send_many(
                OutgoingMessage(f"1555{n:07}", "x" * 100).options(status_report=True)
                for n in range(many)
            )
            gateway.ledger.redis.delete(gateway.settings.send_key)
            return gateway.ledger.room()

        empty, full = room_beside(50), room_beside(2000)
    reserved = (full.reserved - empty.reserved) / 2000
    assert reserved > 1000
    assert (full.used - empty.used) / 2000 < 1.1 * waiting
    assert campaign * (waiting + reserved) + kept * final < empty.left


def test_secrets_must_be_set_and_the_error_says_how() -> None:
    for name in VARIABLES:
        with pytest.raises(Missing, match=rf"{name}: set it to "):
            resolve(DOCUMENT["services"], {k: v for k, v in VARIABLES.items() if k != name})


def test_flower_gets_no_secret_of_the_gateway() -> None:
    flower = SERVICES["flower"]
    assert set(flower["environment"]) == {
        "SMSQUEUE_REDIS_URL",
        "SMSQUEUE_NAMESPACE",
        "FLOWER_BASIC_AUTH",
    }
    assert "env_file" not in flower
    assert "--read_only" in flower["command"]


def test_queues_have_the_name_of_the_namespace() -> None:
    named = resolve(DOCUMENT["services"], VARIABLES | {"SMSQUEUE_NAMESPACE": "shop"})
    settings = Settings(namespace="shop")
    for name, queue in (("send", settings.send_queue), ("hook", settings.hook_queue)):
        assert named[name]["environment"]["SMSQUEUE_NAMESPACE"] == "shop"
        assert named[name]["command"][named[name]["command"].index("--queues") + 1] == queue


def test_our_services_run_without_rights() -> None:
    for service in SERVICES.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    # The others have the image's user: see the Dockerfile.
    assert SERVICES["redis"]["user"] == "999:1000"


def test_only_what_needs_redis_is_in_its_network() -> None:
    networks = {name: set(service["networks"]) for name, service in SERVICES.items()}
    inside = {name for name, joined in networks.items() if "ledger" in joined}
    assert inside == {"redis", "send", "hook", "receivers", "flower"}
    assert networks["redis"] == networks["flower"] == {"ledger"}
    assert networks["simulator"] == {"outside"}


def test_redis_takes_its_accounts_from_a_file_that_has_to_be_there() -> None:
    redis = SERVICES["redis"]
    [mount] = [each for each in redis["volumes"] if isinstance(each, dict)]
    assert redis["command"][redis["command"].index("--aclfile") + 1] == mount["target"]
    assert mount["source"] == "./users.acl"
    assert mount["read_only"] is True
    assert mount["bind"] == {"create_host_path": False}


def test_each_service_has_the_account_of_its_role() -> None:
    accounts = {
        name: urlsplit(service["environment"]["SMSQUEUE_REDIS_URL"]).username
        for name, service in SERVICES.items()
        if "SMSQUEUE_REDIS_URL" in service.get("environment", {})
    }
    assert accounts == {
        "send": "sms-worker",
        "hook": "sms-worker",
        "receivers": "sms-receivers",
        "flower": "sms-flower",
    }


# --- as it runs ----------------------------------------------------------------------------------


def test_every_service_becomes_healthy(compose: Compose) -> None:
    assert set(compose.running) == set(SERVICES)
    for name, process in compose.running.items():
        assert process.alive, process.tail()
        assert compose.healthy(name)


def test_a_message_is_delivered_and_its_reply_is_answered(compose: Compose) -> None:
    number = "+15550001101"  # the simulator replies from there, and the demo's hook answers
    with gateway_of(compose) as gateway:
        message = OutgoingMessage(number, "hello").options(status_report=True)
        id = gateway.send(message).id or ""
        until(lambda: gateway.lookup(id).state == State.DELIVERED)
        until(lambda: len(gateway.find(number)) == 2)
        until(lambda: {each.state for each in gateway.find(number)} == {State.DELIVERED})


def test_flower_asks_for_the_password(compose: Compose) -> None:
    url = compose.url("flower")
    with requests.Session() as session:
        session.trust_env = False
        assert session.get(url, timeout=30).status_code == 401
        assert session.get(url, auth=("ann", "wrong"), timeout=30).status_code == 401
        assert session.get(url, auth=("ann", "s3cret"), timeout=30).status_code == 200


def test_receivers_are_alive_ready_and_measured(compose: Compose) -> None:
    with requests.Session() as session:
        session.trust_env = False
        for page in ("healthz", "readyz"):
            assert session.get(f"{compose.url('receivers')}/{page}", timeout=30).status_code == 200
        url, right = (
            f"{compose.url('receivers')}/metrics",
            {"Authorization": "Bearer t0ken-of-metrics"},
        )
        assert session.get(url, timeout=30).status_code in (401, 403, 404)
        assert session.get(url, headers=right, timeout=30).status_code == 200


def test_the_command_line_works_in_a_container(compose: Compose) -> None:
    for command in ("check", "status"):
        done = subprocess.run(
            ["smsqueue", command],
            env=compose.environment("send"),
            cwd=compose.app,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_sigterm_lets_a_call_and_a_handler_finish(another: Make) -> None:
    services = another(SMSQUEUE_GATEWAY="patient_sms:gateway", SMSQUEUE_NAMESPACE="other")
    (services.app / "patient_sms.py").write_text(PATIENT)
    services.start(["send", "hook"])
    with gateway_of(services) as gateway:
        id = gateway.send(OutgoingMessage("15551234567", "hello")).id or ""

        for name, work, done in (
            ("send", "call", lambda: gateway.lookup(id).state == State.SENT),
            ("hook", "handler", (services.app / "handler-ended").exists),
        ):
            until((services.app / f"{work}-began").exists)
            worker = services.ask_to_stop(name)
            until(lambda worker=worker: "Warm shutdown" in worker.tail(1000))
            assert worker.alive
            assert not done()
            (services.app / f"{work}-may-end").touch()
            grace = seconds(services.services[name]["stop_grace_period"])
            until(lambda worker=worker: not worker.alive, grace)
            assert done()
            assert not services.healthy(name)
        # The handler's end is recorded too: nobody will run it again.
        events = (EventState.WAITING, EventState.RUNNING, EventState.DEAD)
        assert [gateway.ledger.ids_in(state) for state in events] == [[], [], []]


def test_a_worker_is_healthy_as_long_as_its_file_is_young(another: Make) -> None:
    services = another()
    heartbeat = services.folder / "send" / "tmp" / "heartbeat"
    assert not services.healthy("send")
    heartbeat.touch()
    assert services.healthy("send")
    os.utime(heartbeat, (time.time() - 60,) * 2)
    assert not services.healthy("send")


def test_all_ports_are_told_apart() -> None:
    ports = [port for service in SERVICES.values() for port in container_ports(service)]
    assert len(set(ports)) == len(ports)
