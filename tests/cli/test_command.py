"""The program smsqueue: imports, invalid settings and arguments, and the programs it starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

import smsqueue.demo
from smsqueue.stack import StackError

PROGRAM = Path(sys.executable).with_name("smsqueue")


def test_version(run) -> None:
    assert run("--version").stdout.split()[0] == "smsqueue"


def test_import_loads_neither_flask_nor_celery() -> None:
    code = "import sys, smsqueue.cli; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "smsqueue.cli.development" in loaded
    assert not loaded & {"flask", "werkzeug", "celery", "kombu", "smsqueue.demo", "workers"}


COMMANDS = [
    ["send", "15551234567", "x"],
    ["show", "x"],
    ["find", "15551234567"],
    ["list"],
    ["list", "--state", "dead"],
    ["cancel", "x", "y"],
    ["requeue", "x"],
    ["requeue", "--state", "failed"],
    ["settle", "x", "--as", "sent"],
    ["replay", "x"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_redis_does_not_answer(run, command: list[str]) -> None:
    result = run(*command, code=1, SMSQUEUE_REDIS_URL="redis://:hidden@127.0.0.1:1/0")
    assert "cannot be reached: start it, or correct SMSQUEUE_REDIS_URL" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "hidden" not in result.output


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SMSQUEUE_REDIS_URL", "http://hidden@x"),
        ("SMSQUEUE_REDIS_URL", "redis://:hidden/x@127.0.0.1/0"),
        ("SMSQUEUE_NAMESPACE", "a b"),
        ("SMSQUEUE_RETENTION", "soon"),
        ("SMSQUEUE_EAGER", "1"),
    ],
)
def test_invalid_settings(run, variable: str, value: str) -> None:
    result = run("list", code=1, **{variable: value})
    assert result.stderr.startswith(f"Error: {variable}")
    assert len(result.stderr.splitlines()) == 1
    assert "hidden" not in result.output


def test_the_installed_program(environment) -> None:
    variables = {k: v for k, v in environment.items() if v is not None}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAM, *arguments], capture_output=True, text=True, env=os.environ | variables
        )

    sent = call("send", "15551234567", "grüße", "--json")
    id = json.loads(sent.stdout)["id"]
    shown = call("show", id, "--reveal", "--json")
    assert json.loads(shown.stdout)["text"] == "grüße"
    gone = call("show", "gone")
    assert (gone.returncode, gone.stdout) == (1, "")
    assert gone.stderr.startswith("Error: no message")
    variables["PYTHONIOENCODING"] = "ascii"
    assert "gr\\xfc\\xdfe" in call("show", id, "--reveal").stdout


def test_simulator_serves_until_interrupted(run) -> None:
    arguments = [PROGRAM, "simulator", "--port", "0", "--webhook", "http://127.0.0.1:1/x", "--json"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            lines = [process.stdout.readline() for _ in range(3)]
            url = json.loads("".join(lines))["url"]
            assert requests.get(url, timeout=30).status_code < 500
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert "ACCOUNT=" in run("simulator", "--webhook", "x", code=2).stderr


@pytest.mark.parametrize(("command", "function"), [("demo", "run"), ("dev", "run_dev")])
def test_dev_and_demo_have_the_exit_code_of_the_stack(run, monkeypatch, command, function) -> None:
    monkeypatch.setattr(smsqueue.demo, function, lambda console, provider="simulator": 3)
    run(command, code=3)

    def fail(*arguments: object) -> int:
        raise StackError("redis-server was not found: install it")

    monkeypatch.setattr(smsqueue.demo, function, fail)
    assert run(command, code=1).stderr == "Error: redis-server was not found: install it\n"


def test_demo_prints_json(run_json, monkeypatch) -> None:
    monkeypatch.setattr(
        smsqueue.demo, "run", lambda console, provider="simulator": console.print("table") or 0
    )
    assert run_json("demo") == {"ok": True, "exit_code": 0}


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--state", "failed", "--since", "999999d"],
        ["list", "--state", "failed", "--limit", "9" * 23],
        ["show", b"\xff"],
        ["cancel", b"\xff"],
        ["find", b"\xff"],
        ["show", "a\nb\x1b[2J"],
        ["replay", b"\xff"],
    ],
)
def test_malformed_arguments_cause_no_traceback(environment, arguments) -> None:
    variables = {name: value for name, value in environment.items() if value is not None}
    done = subprocess.run(
        [PROGRAM, *arguments],
        env=os.environ | variables | {"LC_ALL": "C.UTF-8"},
        capture_output=True,
    )
    assert b"Traceback" not in done.stderr
    assert b"\x1b[2J" not in done.stdout + done.stderr


@pytest.mark.parametrize("ids", [b"\xff\xfe\n", b"a\0b\n", b"\x1b[2J\n"])
def test_malformed_ids_on_standard_input_cause_no_traceback(environment, ids) -> None:
    variables = {name: value for name, value in environment.items() if value is not None}
    done = subprocess.run(
        [PROGRAM, "cancel", "-"],
        env=os.environ | variables | {"PYTHONIOENCODING": "utf-8"},
        input=ids,
        capture_output=True,
    )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert b"\x1b[2J" not in done.stdout + done.stderr
