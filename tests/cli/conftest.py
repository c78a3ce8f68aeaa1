"""Runs commands in this process, on the test's own namespace."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from smsqueue import Settings
from smsqueue.cli import main

Run = Callable[..., Result]


@pytest.fixture
def environment(settings: Settings) -> dict[str, str | None]:
    return {
        "SMSQUEUE_REDIS_URL": settings.redis_url,
        "SMSQUEUE_NAMESPACE": settings.namespace,
        "SMSQUEUE_EAGER": None,
    }


@pytest.fixture
def run(environment: dict[str, str | None]) -> Run:
    """Runs a command; its exit code must be the given one."""

    def call(*arguments: str, code: int = 0, input: str | None = None, **env: str) -> Result:
        variables = environment | env
        result = CliRunner().invoke(main, arguments, env=variables, input=input)
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        assert "Traceback" not in result.output
        return result

    return call


@pytest.fixture
def run_json(run: Run) -> Callable[..., Any]:
    """Runs a command with --json; its document."""

    def call(*arguments: str, **options: Any) -> Any:
        return json.loads(run(*arguments, "--json", **options).stdout)

    return call
