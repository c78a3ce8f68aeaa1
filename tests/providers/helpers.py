"""Helpers of provider tests: calls of a provider, and webhooks to its receivers."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from smsqueue import exc
from smsqueue.testing.contract import PREFIX, made
from smsqueue.testing.examples import Examples, Webhook, message
from smsqueue.testing.stub import Answer, Stub
from smsqueue.testing.webhook_checks import client_of


@contextmanager
def account(examples: Examples, *answers: Answer, **config: Any) -> Iterator[tuple[Any, Stub]]:
    """A provider, and a stub of its API that returns these responses in turn."""
    with Stub(*answers) as stub:
        yield made(examples, stub.url, **config)[1], stub


def failure_of(
    examples: Examples, ask: Callable[[Any], object], *answers: Answer, **config: Any
) -> exc.ProviderError:
    """The error that a call of a provider raises."""
    call = account(examples, *answers, **config)
    with call as (provider, _), pytest.raises(exc.ProviderError) as raised:
        ask(provider)
    return raised.value


def refuses_without_sender(examples: Examples, **config: Any) -> bool:
    """Is a message without any sender refused before anything is sent?"""
    call = account(examples, examples.good, sender=None, **config)
    with call as (provider, stub), pytest.raises(exc.UnsupportedError, match="sender"):
        provider.send(message())
    return not stub.seen


def webhook_status(client: Any, view: str, method: str = "POST", **how: Any) -> int:
    """The HTTP status that a webhook is answered with.

    Args:
        view: The rest of the URL after the provider's name: ``status?ref=...``.
        how: Arguments of Flask's client: ``data``, ``json``, ``headers`` ...
    """
    code: int = client.open(f"/{PREFIX}/main/{view}", method=method, **how).status_code
    return code


def basic(user: str) -> dict[str, str]:
    """The header of HTTP Basic.

    Args:
        user: With the password: ``user:password``.
    """
    return {"Authorization": f"Basic {b64encode(user.encode()).decode()}"}


def client_of_failing_gateway(examples: Examples, **config: Any) -> Any:
    """A client of a provider's receivers whose gateway raises QueueUnavailable."""
    gateway, _, _ = made(examples, "http://127.0.0.1:9", **config)

    def fail(event: Any) -> None:
        raise exc.QueueUnavailable("away")

    gateway.receive_message = gateway.receive_status = fail  # type: ignore[method-assign]
    return client_of(gateway)


def malformed(name: str, path: str, code: int = 400, **what: Any) -> tuple[str, Webhook, int]:
    """A webhook that must be refused, for :class:`Examples`.

    Args:
        what: Arguments of :class:`Webhook`: ``json``, ``form``, ``sign`` ...
    """
    return name, Webhook("", path, [], **what), code


def same(found: Any, wanted: Any) -> None:
    assert found == wanted
