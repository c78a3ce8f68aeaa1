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
from smsqueue.message.states import WAITING, State
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
    linked = set(re.findall(r"\]\(([\w.-]+)[)#]", (FOLDER / "README.md").read_text("utf-8")))
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


def test_workers_and_receivers_log_json(another: Make) -> None:
    services = another(SMSQUEUE_NAMESPACE="logs", SMSQUEUE_LOG="json")
    services.start(["send", "receivers"])
    with Gateway(Settings.from_mapping(services.environment("send"))) as gateway:
        refused = gateway.send(OutgoingMessage("+15550000701", "refused there")).id or ""
        sent = gateway.send(OutgoingMessage("+15550000001", "hi")).id or ""
        until(lambda: gateway.lookup(refused).state == State.FAILED)
        until(lambda: gateway.lookup(sent).state not in WAITING)
    url = f"{services.url('receivers')}/k3-Zx_9/main/im"
    assert requests.post(url, data=b"{}", timeout=30).status_code == 403

    def text(name: str) -> str:
        return services.running[name].log.read_text("utf-8")

    until(lambda: '"state": "failed"' in text("send") and '"state": "sent"' in text("send"))
    until(lambda: "smsqueue.access" in text("receivers"))
    # Not a line of anybody is of another form: Celery's, gunicorn's, of warnings.
    lines = {n: [*map(json.loads, text(n).splitlines())] for n in ("send", "receivers")}
    of_message = [line for line in lines["send"] if sent in line["message"]]
    assert [(line["level"], line["state"], line["provider"]) for line in of_message] == [
        ("INFO", "sent", "main")
    ]
    warning, end = [line for line in lines["send"] if line.get("id") == refused]
    assert (warning["level"], warning["error"]) == ("WARNING", "RequestError")
    assert (end["state"], end["provider"], end["attempt"]) == ("failed", "main", 1)
    assert [line["status"] for line in lines["receivers"] if "status" in line] == [403]
    assert "gunicorn.error" in {line["logger"] for line in lines["receivers"]}
