"""Fixtures for HTTP calls of providers, over both transports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from smsqueue.concurrency.greenlet_loop import Loop
from smsqueue.providers import http
from smsqueue.providers.http import Answer
from tests.providers.raw_server import Call, Example, Handle, Post, RawServer, serving


@pytest.fixture
def serve() -> Iterator[Callable[[Handle], RawServer]]:
    with serving() as start:
        yield start


@pytest.fixture(autouse=True)
def attempt() -> None:
    http.begin_attempt()


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(params=["requests", "aiohttp"])
def call(request: pytest.FixtureRequest, loop: Loop) -> Call:
    """``HttpProvider.call`` in this thread, with requests, and on a loop, with aiohttp."""

    def with_requests(provider: Example, *args: Any, **given: Any) -> Answer:
        return provider.call(*args, **given)

    def with_aiohttp(provider: Example, *args: Any, **given: Any) -> Answer:
        return loop.run(lambda: provider.call(*args, **given)).result(30)

    return with_requests if request.param == "requests" else with_aiohttp


@pytest.fixture
def post(call: Call) -> Post:
    return lambda provider: call(
        provider, "POST", "/messages", json={"to": "15550001234", "text": "secret text"}
    )
