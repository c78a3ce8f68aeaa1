"""The metrics that documentation, dashboard and alerts speak of are those that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from receivers import create_app
from smsqueue import IncomingMessage, OutgoingMessage, Refuse, Settings, exc
from smsqueue.cli import main
from smsqueue.ledger.queries import LANES
from smsqueue.message.states import EventState, State
from smsqueue.operation.metrics import scrape
from tests.ledger.bench import Bench

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "metrics.md").read_text("utf-8")
DASHBOARD: dict[str, Any] = json.loads((DOCS / "deploy/grafana-dashboard.json").read_text("utf-8"))
ALERTS: dict[str, Any] = yaml.safe_load((DOCS / "deploy/alerts.yml").read_text("utf-8"))
RULES: list[dict[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]

#: What Prometheus itself adds.
_ITS_OWN = {"instance", "job"}
#: What a label may be compared with.
VALUES = {
    "state": {*map(str, State), *map(str, EventState)},
    "lane": set(LANES),
    "queue": {"send", "hook"},
    "outcome": {"done", "retry", "dead", "unheard", "matched", "parked", "repeated", "recorded"},
    "error": {*exc.__all__, "WorkerLost", ""},
}


class Metric(NamedTuple):
    type: str
    labels: frozenset[str]


@pytest.fixture(scope="module")
def exported(redis_url: str) -> dict[str, Metric]:
    """The metrics of a scrape after some of everything has happened, as the documentation names
    them."""
    bench = Bench(Settings(redis_url=redis_url, namespace="docs-metrics"))
    provider = bench.add("a", None, exc.RequestError(), exc.CreditError())
    for _ in range(3):
        id = bench.send(status_report=True)
        bench.deliver(id)
        bench.report("delivered", reference=f"{id}.1")
    bench.gateway.router = lambda message: Refuse("no consent")
    refused = bench.gateway.send(OutgoingMessage("15550001", "hi").route())
    bench.deliver(str(refused.id))
    provider._receive_message(IncomingMessage("1555", "hi", "1"))
    use = {"slots": {"a": [1, 32, 250]}, "handlers": [1, 8, 8], "memory": 1, "uptime": 1}
    bench.ledger.record_heartbeat("w/1", {"version": "1", "build": "1", "python": "3"} | use)
    for sample in bench.redis.zrange(bench.key("samples"), 0, -1):
        bench.redis.zadd(bench.key("samples"), {sample: bench.now() - 900_000})
    page = scrape(bench.ledger).decode()
    bench.close()
    found = {}
    for family in text_string_to_metric_families(page):
        assert family.samples, family.name
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels}
        found[name] = Metric(family.type, frozenset(labels - {"le"}))
    return found


def panels() -> Iterator[dict[str, Any]]:
    return (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def expressions() -> list[Any]:
    """Every expression, and the texts that show its labels."""
    found = []
    for panel in panels():
        for target in panel["targets"]:
            case = f"{panel['title']} {target['refId']}"
            found.append(pytest.param(target["expr"], [target["legendFormat"]], id=case))
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            [(metric, label)] = re.findall(r"^label_values\((.*), (\w+)\)$", variable["definition"])
            query = f"sum by ({label}) (rate({metric}[1m]))"
            found.append(pytest.param(query, [], id=f"${variable['name']}"))
    for rule in RULES:
        texts = list(rule["annotations"].values())
        found.append(pytest.param(rule["expr"], texts, id=rule["alert"]))
    return found


def base(name: str) -> str:
    return re.sub(r"_(bucket|count|sum)$", "", name)


def test_the_page_documents_exactly_what_is_exported(exported: dict[str, Metric]) -> None:
    rows = re.findall(r"^\| `(smsqueue_\w+)` \| (\w+) \| (.*?) ?\| (.+) \|$", PAGE, re.M)
    documented = {
        name: Metric(kind, frozenset(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels, _ in rows
    }
    assert documented == exported
    assert len(rows) == len(documented)
    assert set(re.findall(r"\bsmsqueue_\w+", PAGE)) == set(exported)


@pytest.mark.parametrize(("expression", "texts"), expressions())
def test_an_expression_names_what_exists(
    exported: dict[str, Metric], expression: str, texts: list[str]
) -> None:
    named = re.findall(r"\b(smsqueue_\w+)(?:\{(.*?)\})?", expression)
    assert named
    known = set(_ITS_OWN)
    for name, matchers in named:
        metric = exported.get(base(name)) or exported[name]
        assert (name == base(name)) is (metric.type != "histogram"), name
        # A rate of a gauge, or a bare counter, says nothing.
        over_time = re.search(rf"(\w+)\({name}(\{{[^}}]*\}})?\[", expression)
        if metric.type == "gauge":
            assert not over_time or over_time[1] == "delta", name
        elif not expression.startswith("absent("):
            assert over_time, name
            assert over_time[1] in ("rate", "increase"), name
        known |= metric.labels | ({"le"} if metric.type == "histogram" else set())
        for label, values in re.findall(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"', matchers):
            assert label in metric.labels | _ITS_OWN, (name, label)
            if not values.startswith("$"):
                assert set(values.split("|")) <= VALUES.get(label, {""}), (name, label, values)
    used = re.findall(r"\b(?:by|without|on|ignoring) \(([^)]*)\)", expression)
    assert {label.strip() for labels in used for label in labels.split(",")} <= known
    shown = re.findall(r"\{\{ ?(?:\$labels\.)?(\w+)", " ".join(texts))
    assert set(shown) <= known


def test_the_dashboard_can_be_imported() -> None:
    assert DASHBOARD["schemaVersion"] >= 39
    assert "id" not in DASHBOARD
    assert "__inputs" not in DASHBOARD
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["query"] == "prometheus"
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        own = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not own & cells, panel["title"]
        cells |= own
    asking = [each for panel in panels() for each in (panel, *panel["targets"])]
    asking += [each for each in variables.values() if each["type"] == "query"]
    for each in asking:
        assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert used - {"__rate_interval", "__all"} == set(variables)


def test_every_metric_is_on_the_dashboard(exported: dict[str, Metric]) -> None:
    text = json.dumps(DASHBOARD)
    assert [name for name in exported if name not in text] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert re.fullmatch(r"\d+[mh]", rule.get("for", "1m"))
    notes = rule["annotations"]
    assert notes.keys() == {"summary", "description", "runbook"}
    lines = re.findall(r"`smsqueue ([a-z][^`]*)`", notes["runbook"])
    assert lines
    for line in lines:
        name, *words = line.split()
        options = {option for each in main.commands[name].params for option in each.opts}
        assert {word for word in words if word.startswith("--")} <= options, line


def test_the_page_explains_exactly_the_alerts_that_there_are() -> None:
    explained = re.findall(r"^\| `(Smsqueue\w+)` \|", PAGE, re.M)
    assert explained == [rule["alert"] for rule in RULES]


def test_the_scrape_configuration_reads_our_page(settings: Settings) -> None:
    [text] = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)
    [job] = yaml.safe_load(text)["scrape_configs"]
    assert len(job["static_configs"][0]["targets"]) == 1
    # Prometheus's own defaults are the ones that are needed.
    path, scheme = job.get("metrics_path", "/metrics"), job["authorization"].get("type", "Bearer")
    bench = Bench(
        Settings(
            redis_url=settings.redis_url,
            namespace=settings.namespace,
            receiver_prefix=("a-prefix-for-tests",),
            metrics_token="t0ken-of-metrics",
        )
    )
    client = create_app(gateway=bench.gateway).test_client()
    answer = client.get(path, headers={"Authorization": f"{scheme} t0ken-of-metrics"})
    bench.close()
    assert answer.status_code == 200


if shutil.which("promtool"):  # of Prometheus; where it is not installed, there is no such test

    def test_prometheus_accepts_the_alerts() -> None:
        command = ["promtool", "check", "rules", str(DOCS / "deploy/alerts.yml")]
        subprocess.run(command, check=True, timeout=60)
