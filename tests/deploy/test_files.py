"""The Dockerfile, the units of systemd and kubernetes.yaml agree with docker-compose.yml."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.deploy.compose import FILE, ROOT, resolve, seconds
from tests.deploy.conftest import VARIABLES

SERVICES: dict[str, dict[str, Any]] = resolve(
    yaml.safe_load(FILE.read_text("utf-8"))["services"], VARIABLES
)
UNITS = ROOT / "docs" / "deploy" / "systemd"
OBJECTS = list(yaml.safe_load_all((ROOT / "docs/deploy/kubernetes.yaml").read_text("utf-8")))
DEPLOYMENTS = {
    each["metadata"]["name"].removeprefix("smsqueue-"): each
    for each in OBJECTS
    if each["kind"] == "Deployment"
}
WORKERS = ("send", "hook")
OURS = (*WORKERS, "receivers", "flower")


def dockerfile() -> list[str]:
    """Its instructions, one a line."""
    text = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


# --- the image -----------------------------------------------------------------------------------


def test_what_the_dockerfile_copies_is_there_and_sent_to_docker() -> None:
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert rules[0] == "*"
    kept = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        name
        for line in dockerfile()
        if line.startswith("COPY ") and "--from" not in line
        for name in line.split()[1:-1]
    }
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)
    assert any(fnmatch(".env", rule.removeprefix("**/")) for rule in rules)


def test_the_image_has_what_the_services_start() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    [extras] = re.findall(r"\.whl\)\[([\w,]+)\]", (ROOT / "Dockerfile").read_text("utf-8"))
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    installed = " ".join(
        [
            *project["dependencies"],
            *(
                each
                for name in extras.split(",")
                for each in project["optional-dependencies"][name]
            ),
            *project["scripts"],
        ]
    )
    for name in (*OURS, "simulator"):
        assert SERVICES[name]["command"][0] in installed
    [python] = [line.partition("=")[2] for line in dockerfile() if line.startswith("ARG PYTHON")]
    assert f"Programming Language :: Python :: {python}" in project["classifiers"]


def test_the_image_runs_as_a_user_of_its_own_in_app() -> None:
    last = dockerfile()
    last = last[max(i for i, line in enumerate(last) if line.startswith("FROM ")) :]
    assert "USER 10001:10001" in last
    assert "WORKDIR /app" in last
    assert "HEALTHCHECK NONE" in last
    assert any("PYTHONUNBUFFERED=1" in line for line in last)
    assert not [line for line in last if "apt-get" in line]


# --- systemd -------------------------------------------------------------------------------------


def options_of(name: str) -> list[tuple[str, str]]:
    """A unit's options in their order; some stand there more than once."""
    text = next(UNITS.glob(f"smsqueue-{name}*.service")).read_text("utf-8").replace("\\\n", " ")
    return re.findall(r"^([A-Z]\w+)=(.*)$", text, re.M)


def unit(name: str) -> dict[str, str]:
    text = next(UNITS.glob(f"smsqueue-{name}*.service")).read_text("utf-8").replace("\\\n", " ")
    return dict(re.findall(r"^([A-Z]\w+)=(.*)$", text, re.M))


@pytest.mark.parametrize("name", OURS)
def test_a_unit_starts_what_compose_starts(name: str) -> None:
    service, given = SERVICES[name], unit(name)
    started = given["ExecStart"].replace("${SMSQUEUE_NAMESPACE}", "sms").replace("%%h", "%h")
    ours = started.removeprefix("/opt/smsqueue/bin/").replace("%i", "8000").split()
    assert ours == [each.replace("0.0.0.0", "127.0.0.1") for each in service["command"]]
    assert float(given["TimeoutStopSec"]) == seconds(service["stop_grace_period"])
    assert given["KillMode"] == "mixed"
    assert given["Restart"] == "always"
    assert given["EnvironmentFile"].startswith("/etc/smsqueue/")
    assert given["NoNewPrivileges"] == "yes"


@pytest.mark.parametrize("name", OURS)
def test_a_unit_runs_without_rights_and_leaves_no_core_dump(name: str) -> None:
    given = unit(name)
    filters = [value for option, value in options_of(name) if option == "SystemCallFilter"]
    assert filters == ["@system-service", "~@privileged @resources"]
    assert given["LimitCORE"] == "0"
    assert re.fullmatch(r"\d+[MG]", given["MemoryMax"])
    assert given["CapabilityBoundingSet"] == ""
    assert given["ProtectSystem"] == "strict"
    assert given["UMask"] == "0077"


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("send", ["gateway", "worker"]),
        ("hook", ["gateway", "worker"]),
        ("receivers", ["gateway", "receivers"]),
        ("flower", ["flower"]),
    ],
)
def test_a_unit_gets_the_account_of_its_role(name: str, files: list[str]) -> None:
    read = [value for option, value in options_of(name) if option == "EnvironmentFile"]
    assert read == [f"/etc/smsqueue/{each}.env" for each in files]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    programs = tmp_path / "bin"  # a folder without blanks, wherever the environment is
    programs.symlink_to(Path(sys.executable).parent)
    units = tmp_path / "units"
    units.mkdir()
    for each in UNITS.iterdir():
        # A template needs an instance, and a program has to be there.
        instance = "send" if "alive" in each.name else "8000"
        text = each.read_text("utf-8")
        text = text.replace("/opt/smsqueue/bin", str(programs))
        (units / each.name.replace("@", f"@{instance}")).write_text(text)
    files = sorted(map(str, units.iterdir()))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_worker_that_hangs_is_restarted_by_systemd(tmp_path: Path) -> None:
    command = unit("alive")["ExecStart"].removeprefix("/bin/sh -c ").strip("'")
    command = command.replace("$$", "$").replace("exec systemctl restart", "echo")
    command = command.replace("/run/smsqueue-%i", str(tmp_path)).replace("%i", "send")

    def restarted() -> str:
        return subprocess.run(["sh", "-c", command], capture_output=True, text=True).stdout.strip()

    heartbeat = tmp_path / "heartbeat"
    assert restarted() == ""  # it starts, or has ended in order
    heartbeat.touch()
    assert restarted() == ""
    subprocess.run(["touch", "-d", "5 minutes ago", str(heartbeat)], check=True)
    assert restarted() == "smsqueue-send.service"


# --- Kubernetes ----------------------------------------------------------------------------------


def container(name: str) -> dict[str, Any]:
    [found] = DEPLOYMENTS[name]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def environment(name: str) -> set[str]:
    return {each["name"] for each in container(name)["env"]}


def test_kubernetes_has_our_services() -> None:
    assert set(DEPLOYMENTS) == set(OURS)
    assert {each["kind"] for each in OBJECTS} == {
        *("ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy")
    }


@pytest.mark.parametrize("name", OURS)
def test_a_deployment_starts_what_compose_starts(name: str) -> None:
    service, spec = SERVICES[name], DEPLOYMENTS[name]["spec"]["template"]["spec"]
    settings = OBJECTS[0]["data"]
    command = [
        each.replace("$(SMSQUEUE_NAMESPACE)", settings["SMSQUEUE_NAMESPACE"])
        for each in container(name)["command"]
    ]
    assert command == service["command"]
    assert spec["terminationGracePeriodSeconds"] == seconds(service["stop_grace_period"])
    assert spec["securityContext"]["runAsUser"] == 10001
    assert container(name)["securityContext"]["readOnlyRootFilesystem"] is True
    # What is set there is set here, if not in the ConfigMap; secrets come from a Secret.
    given = environment(name) | set(settings)
    missing = {each for each in service["environment"] if "SIMULATOR" not in each} - given
    assert missing <= {"SMSQUEUE_CONCURRENCY"}
    for each in container(name)["env"]:
        assert each["name"] == "SMSQUEUE_HEARTBEAT_FILE" or "secretKeyRef" in each["valueFrom"]


@pytest.mark.parametrize("name", WORKERS)
def test_workers_are_probed_as_compose_does(name: str) -> None:
    check = SERVICES[name]["healthcheck"]["test"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container(name)[probe]["exec"]["command"] == check[1:]
    [file] = [e["value"] for e in container(name)["env"] if e["name"] == "SMSQUEUE_HEARTBEAT_FILE"]
    assert file == SERVICES[name]["environment"]["SMSQUEUE_HEARTBEAT_FILE"]
    assert {each["mountPath"] for each in container(name)["volumeMounts"]} == {
        str(Path(file).parent)
    }


@pytest.mark.parametrize(
    ("name", "alive", "ready"),
    [("receivers", "/healthz", "/readyz"), ("flower", "/healthcheck", "/healthcheck")],
)
def test_servers_are_probed_where_they_answer(name: str, alive: str, ready: str) -> None:
    given = container(name)
    [port] = given["ports"]
    assert f":{port['containerPort']}{alive}" in SERVICES[name]["healthcheck"]["test"][-1]
    for probe, path in (("startup", alive), ("liveness", alive), ("readiness", ready)):
        assert given[f"{probe}Probe"]["httpGet"] == {"path": path, "port": port["name"]}
    [service] = [
        each
        for each in OBJECTS
        if each["kind"] == "Service" and each["metadata"]["name"] == f"smsqueue-{name}"
    ]
    [served] = service["spec"]["ports"]
    assert served == {"name": "http", "port": port["containerPort"], "targetPort": port["name"]}


def test_selectors_choose_the_pods() -> None:
    labels = {n: d["spec"]["template"]["metadata"]["labels"] for n, d in DEPLOYMENTS.items()}
    for name, deployment in DEPLOYMENTS.items():
        assert deployment["spec"]["selector"]["matchLabels"] == labels[name]
    for each in OBJECTS:
        name = each["metadata"]["name"].removeprefix("smsqueue-")
        if each["kind"] == "Service":
            assert each["spec"]["selector"] == labels[name]
        if each["kind"] == "PodDisruptionBudget":
            assert each["spec"]["selector"]["matchLabels"] == labels[name]


@pytest.mark.parametrize("name", OURS)
def test_a_pod_has_the_account_of_its_role_few_rights_and_limits(name: str) -> None:
    url = SERVICES[name]["environment"]["SMSQUEUE_REDIS_URL"]
    role = str(urlsplit(url).username).removeprefix("sms-")
    [variable] = [each for each in container(name)["env"] if each["name"] == "SMSQUEUE_REDIS_URL"]
    assert variable["valueFrom"]["secretKeyRef"]["key"] == f"redis-url-{role}"
    text = (ROOT / "docs/deploy/kubernetes.yaml").read_text("utf-8")
    assert f"--from-literal=redis-url-{role}=rediss://sms-{role}:" in text
    assert set(container(name)["resources"]["limits"]) == {"cpu", "memory", "ephemeral-storage"}
    pod = DEPLOYMENTS[name]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def policies_of(name: str) -> list[dict[str, Any]]:
    """The rules of the NetworkPolicies that choose a pod."""
    labels = DEPLOYMENTS[name]["spec"]["template"]["metadata"]["labels"]

    def chooses(selector: dict[str, Any]) -> bool:
        pairs = selector.get("matchLabels", {}).items()
        sets = selector.get("matchExpressions", [])
        assert pairs or sets
        assert all(each["operator"] == "In" for each in sets)
        return all(labels[key] == value for key, value in pairs) and all(
            labels[each["key"]] in each["values"] for each in sets
        )

    policies = [each["spec"] for each in OBJECTS if each["kind"] == "NetworkPolicy"]
    return [each for each in policies if chooses(each["podSelector"])]


@pytest.mark.parametrize("name", OURS)
def test_pods_reach_and_are_reached_as_the_policies_say(name: str) -> None:
    policies = policies_of(name)
    assert {kind for each in policies for kind in each["policyTypes"]} == {"Ingress", "Egress"}
    reached = {
        port["port"]
        for each in policies
        for rule in each.get("ingress", ())
        for port in rule["ports"]
    }
    assert reached == ({"http"} if name == "receivers" else set())
    called = {
        port["port"]
        for each in policies
        for rule in each.get("egress", ())
        for port in rule["ports"]
    }
    assert called == {53, 6379, 6380, 26379} | (set() if name == "flower" else {443})
    for each in policies:
        for rule in each.get("egress", ()):
            if rule["ports"] == [{"port": 443, "protocol": "TCP"}]:
                blocks = [target["ipBlock"] for target in rule["to"]]
                assert "169.254.0.0/16" in blocks[0]["except"]


def test_flower_gets_no_providers_secrets() -> None:
    assert [next(iter(each)) for each in container("flower")["envFrom"]] == ["configMapRef"]
    assert environment("flower") == {"SMSQUEUE_REDIS_URL", "FLOWER_BASIC_AUTH"}


def test_flowers_password_is_on_no_command_line() -> None:
    texts = [ROOT / name for name in ("Makefile", "Dockerfile", "docker-compose.yml", "README.md")]
    texts += [path for path in (ROOT / "docs").rglob("*") if path.is_file()]
    texts += list((ROOT / "smsqueue").rglob("*.py"))
    found = [path.name for path in texts if re.search(rb"--basic[-_]auth", path.read_bytes())]
    assert found == []
