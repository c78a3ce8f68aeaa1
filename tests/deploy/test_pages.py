"""What docs/deploy says is there: links, variables, commands, examples."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from smsqueue import Gateway, OutgoingMessage, Settings
from smsqueue.cli import main
from smsqueue.message.states import State
from tests.deploy.compose import FILE, ROOT, until
from tests.deploy.conftest import Make

FOLDER = ROOT / "docs" / "deploy"
PAGES = sorted(FOLDER.glob("*.md"))
#: Other files that speak of settings and commands.
OTHERS = [FOLDER / "kubernetes.yaml", *sorted((FOLDER / "systemd").iterdir()), FILE]

FENCE = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.M | re.S)


def blocks(kind: str) -> list[Any]:
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in FENCE.finditer(text):
            if match[1] == kind:
                line = text.count("\n", 0, match.start()) + 2
                found.append(pytest.param(match[2], id=f"{page.name}:{line}"))
    return found


def anchor_of(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def variables_of_compose() -> dict[str, str | None]:
    """What docker-compose.yml takes from its environment, with its default."""
    text = FILE.read_text("utf-8")
    found = re.findall(r"\$\{(\w+)(:[-?])?([^}]*)\}", text)
    return {name: word if how == ":-" else None for name, how, word in reversed(found)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text("utf-8"), re.M)
            assert anchor in map(anchor_of, headings), target


def test_the_first_page_links_to_the_others() -> None:
    linked = set(re.findall(r"\]\(([\w.]+)[)#]", (FOLDER / "README.md").read_text("utf-8")))
    assert {page.name for page in PAGES} - linked == {"README.md"}


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: page.name)
def test_every_variable_exists(page: Path) -> None:
    named = set(re.findall(r"\bSMSQUEUE_[A-Z_]*[A-Z]\b", page.read_text("utf-8")))
    settings = {each.metadata["variable"] for each in fields(Settings)}
    simulators = {"SMSQUEUE_SIMULATOR_URL", "SMSQUEUE_SIMULATOR_TOKEN"}
    assert named <= settings | simulators | set(variables_of_compose())


def test_the_table_of_variables_is_that_of_the_compose_file() -> None:
    text = (FOLDER / "README.md").read_text("utf-8")
    table = text.partition("| variable in `.env` |")[2].partition("\n\n")[0]
    told: dict[str, str | None] = {}
    for names, default in re.findall(r"^\| (`.*?) \| (.*?) \|", table, re.M):
        for name in re.findall(r"`(\w+)`", names):
            value = default.strip("`")
            told[name] = None if value == "must be set" else "" if value == "none" else value
    demo = "smsqueue.demo.app:gateway"
    expected = variables_of_compose() | {"COMPOSE_PROFILES": ""}
    assert told == {k: "the demo's" if v == demo else v for k, v in expected.items()}


def commands() -> list[str]:
    texts = [page.read_text("utf-8") for page in PAGES]
    found = (re.findall(r"(?:`|\$ | send )smsqueue ([a-z][^`#\n]*)", text) for text in texts)
    return sorted({line.strip() for lines in found for line in lines})


@pytest.mark.parametrize("line", commands())
def test_every_command_and_option_of_the_command_line_exists(line: str) -> None:
    name, *words = shlex.split(line)
    assert name in main.commands
    options = {option for each in main.commands[name].params for option in each.opts}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options


@pytest.mark.parametrize("text", [*blocks("yaml")])
def test_an_example_of_a_compose_file_names_our_services(text: str) -> None:
    services = yaml.safe_load(FILE.read_text("utf-8"))["services"]
    assert set(yaml.safe_load(text)["services"]) <= set(services)


@pytest.mark.parametrize("text", blocks("dockerfile"))
def test_an_image_of_ones_own_does_not_run_as_root(text: str) -> None:
    assert text.startswith("FROM smsqueue\n")
    users = re.findall(r"^USER (\w+)$", text, re.M)
    assert users[-1:] in ([], ["10001"])


def test_the_example_logs_json_once_in_workers_and_receivers(another: Make) -> None:
    [code] = [each.values[0] for each in blocks("python") if "# json_logs.py" in each.values[0]]
    services = another(SMSQUEUE_GATEWAY="logging_sms:gateway", SMSQUEUE_NAMESPACE="logs")
    (services.app / "json_logs.py").write_text(code)
    (services.app / "logging_sms.py").write_text(
        "import json_logs\nfrom smsqueue.demo.app import gateway\n"
    )
    services.start(["send", "receivers"])
    with Gateway(Settings.from_mapping(services.environment("send"))) as gateway:
        id = gateway.send(OutgoingMessage("+15550000701", "refused there")).id or ""
        until(lambda: gateway.lookup(id).state == State.FAILED)
    url = f"{services.url('receivers')}/k3-Zx_9/main/im"
    assert requests.post(url, data=b"{}", timeout=30).status_code == 403

    def lines(name: str, logger: str) -> list[dict[str, Any]]:
        text = services.running[name].log.read_text("utf-8")
        found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return [line for line in found if line["logger"] == logger]

    def ends() -> list[dict[str, Any]]:
        return [line for line in lines("send", "smsqueue.delivery") if line.get("id") == id]

    until(lambda: any(line.get("state") == "failed" for line in ends()))
    until(lambda: lines("receivers", "smsqueue.access"))
    [end] = [line for line in ends() if line.get("state") == "failed"]
    assert (end["provider"], end["error_class"]) == ("main", "RequestError")
    assert len(lines("receivers", "smsqueue.access")) == 1
    for name in ("send", "receivers"):
        text = services.running[name].log.read_text("utf-8")
        plain = [line for line in text.splitlines() if not line.startswith("{")]
        assert not [line for line in plain if "smsqueue.access" in line or id in line]
