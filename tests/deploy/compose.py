"""Runs the services of docker-compose.yml as plain processes, because the tests have no Docker.

What a container would bring is mapped onto this machine: names and ports of services to free
ports of loopback, folders to temporary ones, the image's and the service's environment and
nothing else, ``redis-server`` to the one that is there.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from smsqueue.stack import Process, find_redis
from tests.conftest import free_port

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
#: The virtual environment in place of the image's.
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

Variables = dict[str, str]


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until a condition holds; fails after a bound that no healthy run comes near."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.03)


class Missing(Exception):
    """A variable that has to be set; the text says what to set it to."""


def resolve(value: Any, variables: Variables) -> Any:
    """Variables put in as Compose does it: ${A}, ${A:-default}, ${A:?what to do} and $$."""
    if isinstance(value, dict):
        return {key: resolve(each, variables) for key, each in value.items()}
    if isinstance(value, list):
        return [resolve(each, variables) for each in value]
    if not isinstance(value, str):
        return value

    def put(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        given = variables.get(found["name"], "")
        if not given and found["how"] == ":?":
            raise Missing(f"{found['name']}: {found['word']}")
        return given or found["word"] or ""

    return re.sub(r"\$\$|\$\{(?P<name>\w+)(?:(?P<how>:[-?])(?P<word>[^}]*))?\}", put, value)


def seconds(text: str) -> float:
    """``90s`` or ``2m`` in seconds."""
    [(number, unit)] = re.findall(r"^(\d+)(s|m)$", text)
    return float(number) * {"s": 1, "m": 60}[unit]


def image_environment() -> Variables:
    """What the Dockerfile's last stage sets."""
    text = (ROOT / "Dockerfile").read_text("utf-8").rpartition("\nFROM ")[2]
    [block] = re.findall(r"^ENV ((?:.*\\\n)*.*)$", text, re.M)
    pairs = (word.split("=", 1) for word in block.replace("\\\n", " ").split())
    return {name: value for name, value in pairs if name != "PATH"}


class Compose:
    """The services of one docker-compose.yml, started in the order of their dependencies.

    Args:
        folder: For their files and logs; ``folder/app`` is /app, where a gateway may stand.
        variables: What the file's variables are.
        ports: Of services that run already, e.g. the Redis of another one.
    """

    def __init__(
        self,
        folder: Path,
        variables: Variables,
        ports: dict[tuple[str, int], int] | None = None,
    ) -> None:
        self.folder = folder
        self.app = folder / "app"
        self.app.mkdir(parents=True, exist_ok=True)
        document = yaml.safe_load(FILE.read_text("utf-8"))
        self.services: dict[str, dict[str, Any]] = resolve(document["services"], variables)
        wanted = [
            (name, port)
            for name, service in self.services.items()
            for port in container_ports(service)
        ]
        self.ports = {each: free_port() for each in wanted} | (ports or {})
        self.running: dict[str, Process] = {}

    def write_accounts(self, namespaces: Iterable[str], passwords: Variables) -> None:
        """Write the file of Redis's accounts by the command that the guide says."""
        lines: list[str] = []
        for namespace in namespaces:
            done = subprocess.run(
                ["smsqueue", "acl"],
                env=passwords | {"PATH": PATH, "SMSQUEUE_NAMESPACE": namespace},
                capture_output=True,
                text=True,
                check=True,
            )
            lines += [line for line in done.stdout.splitlines() if line not in lines]
        (self.folder / "users.acl").write_text("\n".join(lines) + "\n")

    def url(self, name: str) -> str:
        [port] = container_ports(self.services[name])
        return f"http://127.0.0.1:{self.ports[name, port]}"

    def environment(self, name: str) -> Variables:
        """All that a service's process gets to know."""
        given = image_environment() | self.services[name].get("environment", {})
        given = {key: self._here(name, value) for key, value in given.items()}
        return given | {"PATH": PATH, "PYTHONPATH": str(ROOT)}

    def command(self, name: str) -> list[str]:
        program, *arguments = self.services[name]["command"]
        assert "entrypoint" not in self.services[name]
        if program == "redis-server":
            program = find_redis()
        return [program, *(self._here(name, each) for each in arguments)]

    def _here(self, name: str, text: str) -> str:
        """A text of a service, with this machine's ports and folders."""
        for (other, port), mapped in self.ports.items():
            text = re.sub(rf"(?<![\w-]){other}:{port}(?!\d)", f"127.0.0.1:{mapped}", text)
            if other == name:
                text = re.sub(rf"(?<![\d.]){port}(?![\d.])", str(mapped), text)
        text = text.replace("0.0.0.0", "127.0.0.1")
        for place in ("tmp", "data"):
            folder = self.folder / name / place
            folder.mkdir(parents=True, exist_ok=True)
            text = re.sub(rf"(?<![\w/.])/{place}(?![\w-])", str(folder), text)
        for mount in self.services[name].get("volumes", ()):
            if isinstance(mount, dict):
                source = self.folder / mount["source"].removeprefix("./")
                text = text.replace(mount["target"], str(source))
        return text

    def start(self, names: Iterable[str] | None = None) -> None:
        """Start services, each when what it depends on is healthy, and see all healthy."""
        waiting = list(self.services if names is None else names)
        chosen = set(waiting)
        healthy: set[str] = set()
        while waiting or healthy != chosen:
            for name in list(waiting):
                if self._needs(name) & chosen <= healthy:
                    waiting.remove(name)
                    self.run(name)
            first = next(each for each in self.running if each in chosen - healthy)
            self.see_healthy(first)
            healthy.add(first)

    def _needs(self, name: str) -> set[str]:
        needs: dict[str, Any] = self.services[name].get("depends_on", {})
        assert all(each == {"condition": "service_healthy"} for each in needs.values())
        return set(needs)

    def run(self, name: str) -> Process:
        """Start one service without waiting for it."""
        environment = [f"{key}={value}" for key, value in self.environment(name).items()]
        process = Process(
            name,
            # Nothing of the environment of the tests.
            ["env", "-i", *environment, *self.command(name)],
            self.folder / f"{name}.log",
            folder=self.app,
        )
        self.running[name] = process
        process.start(lambda: True)
        return process

    def see_healthy(self, name: str) -> None:
        def healthy() -> bool:
            process = self.running[name]
            assert process.alive, process.tail(100)
            return self.healthy(name)

        try:
            until(healthy)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}\n{self.running[name].tail(50)}") from None

    def healthy(self, name: str) -> bool:
        """The result of the service's own health check."""
        check = self.services[name]["healthcheck"]
        kind, *words = check["test"]
        command = [self._here(name, each) for each in words]
        if kind == "CMD-SHELL":
            if command[0].startswith("redis-cli") and not shutil.which("redis-cli", path=PATH):
                # It comes with the image, but not with every machine: ask the same by a socket.
                return self._redis_answers(name)
            command = ["sh", "-c", *command]
        done = subprocess.run(
            command,
            env=self.environment(name),
            capture_output=True,
            cwd=self.app,
            timeout=60,
            check=False,
        )
        return done.returncode == 0

    def _redis_answers(self, name: str) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.ports[name, 6379])) as client:
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def ask_to_stop(self, name: str) -> Process:
        """SIGTERM, as Docker sends it."""
        process = self.running[name]
        os.kill(process.pid, signal.SIGTERM)
        return process

    def stop(self) -> None:
        for name in [name for name, process in self.running.items() if process.alive]:
            if name != "redis":
                self.ask_to_stop(name)
        for process in reversed(self.running.values()):
            process.stop()


def container_ports(service: dict[str, Any]) -> list[int]:
    """The ports that a service serves in its container."""
    named = [*service.get("ports", ()), *service.get("expose", ())]
    return [int(each.rpartition(":")[2]) for each in named]
