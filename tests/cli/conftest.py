"""Fixtures that run commands in this process, in the namespace of the test."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from smsqueue import Gateway, IncomingMessage, OutgoingMessage, Settings
from smsqueue.cli import main
from smsqueue.ledger import AttemptOutcome

Run = Callable[..., Result]

_numbers = itertools.count(1)


@pytest.fixture
def environment(settings: Settings) -> dict[str, str | None]:
    return {
        "SMSQUEUE_REDIS_URL": settings.redis_url,
        "SMSQUEUE_NAMESPACE": settings.namespace,
        "SMSQUEUE_EAGER": None,
    }


@pytest.fixture
def run(environment: dict[str, str | None]) -> Run:
    """Runs a command and asserts its exit code."""

    def call(*arguments: str, code: int = 0, input: str | None = None, **env: str) -> Result:
        variables = environment | env
        result = CliRunner().invoke(main, arguments, env=variables, input=input)
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        assert "Traceback" not in result.output
        return result

    return call


@pytest.fixture
def run_json(run: Run) -> Callable[..., Any]:
    """Runs a command with --json; returns the document."""

    def call(*arguments: str, **options: Any) -> Any:
        return json.loads(run(*arguments, "--json", **options).stdout)

    return call


@pytest.fixture
def make(gateway: Gateway) -> Callable[..., str]:
    """Makes a message or an event in a given state; returns its id."""

    def message(state: str, provider: str = "main", **outcome: Any) -> str:
        id = gateway.send(OutgoingMessage("15551234567", "the secret text")).id
        assert id
        if state == "queued":
            return id
        gateway.ledger.claim(id, "token", lease=60, worker="w")
        gateway.ledger.begin(id, "token", provider, lease=60, attempt=1)
        if state != "sending":
            verdict: Any = "retry" if state == "retrying" else state
            if state == "sent":
                outcome |= {"msgid": '"m"', "msgids": (f"m{next(_numbers)}",)}
            else:
                outcome = {"event": f"event-of-{id}", "delay_ms": 60_000} | outcome
            settled = AttemptOutcome(verdict, provider, **outcome)
            gateway.ledger.settle(id, "token", 1, settled)
        assert gateway.lookup(id).state == state
        return id

    def event(state: str) -> str:
        incoming = IncomingMessage("15551234567", "the secret reply", next(_numbers))
        incoming.provider = "main"
        _, id = gateway.ledger.receive(incoming, repeats=False)
        if state != "waiting":
            gateway.ledger.claim_event(id, "token", "w")
            gateway.ledger.settle_event(id, "token", state, delay=0, why="why")
        return id

    def call(state: str, *args: Any, **kwargs: Any) -> str:
        return (event if state in ("waiting", "dead", "unheard", "done") else message)(
            state, *args, **kwargs
        )

    return call


@pytest.fixture
def live(gateway: Gateway, settings: Settings) -> Callable[..., None]:
    """Records a worker's heartbeat; by default it consumes both queues."""

    def beat(*queues: str) -> None:
        report = {"queues": queues or (settings.send_queue, settings.hook_queue)}
        gateway.ledger.record_heartbeat(
            "celery@host/1", report | {"concurrency": 8, "version": "0.1.0"}
        )

    return beat
