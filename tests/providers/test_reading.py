"""Webhooks with an invalid field are malformed, and no part of them is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask

from smsqueue import Gateway, IncomingMessage
from smsqueue.message.statuses import MessageDelivered
from smsqueue.providers.base import IProvider
from smsqueue.providers.reading import event_views, id_of, json_object, text_of, time_of
from smsqueue.settings import Settings


def test_objects() -> None:
    assert json_object(b'{"a": [1]}') == {"a": [1]}
    for body in (b"", b"[]", b"1", b"null", b"{", b"\xff", b"[" * 100_000, b"9" * 5000):
        with pytest.raises(ValueError):  # noqa: PT011  whichever text it has
            json_object(body)


def test_texts_and_ids() -> None:
    assert text_of({"b": "x"}, "a", "b") == "x"
    assert (id_of({"id": 5}), id_of({"n": "x"}, "n")) == (5, "x")
    for wrong in (None, [], {}, 1.5, True):
        with pytest.raises(ValueError, match="not a string"):
            text_of({"a": wrong}, "a")
        with pytest.raises(ValueError, match="no id"):
            id_of({"id": wrong})
    with pytest.raises(ValueError, match="no id"):
        id_of({"id": ""})


def test_times() -> None:
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    assert time_of("2026-01-02T12:00:00Z") == noon
    assert time_of("2026-01-02T13:00:00.000+01:00") == noon
    assert time_of(noon.timestamp()) == noon
    assert time_of(int(noon.timestamp()) * 1000, per_second=1000) == noon
    for wrong in (None, True, "", "noon", "2026-01-02T12:00:00", [], float("nan"), float("inf")):
        assert time_of(wrong) is None
    assert [time_of(10**n) for n in (20, 400)] == [None, None]


class Told(IProvider):
    """Reports what a test tells it to."""

    def __init__(self, gateway: Any, name: str, *, read: Callable[[], Any]) -> None:
        super().__init__(gateway, name)
        self.read = read

    def make_receiver_blueprint(self) -> Any:
        return event_views(self, self.read, status=202)


def receiving(read: Callable[[], Any]) -> tuple[Any, list[Any]]:
    gateway = Gateway(Settings(eager=True))
    gateway.add_provider("main", Told, read=read)
    heard: list[Any] = []
    gateway.onReceive += heard.append
    gateway.onStatus += heard.append
    return gateway.receiver_blueprints_register(Flask("test"), "p").test_client(), heard


@pytest.mark.parametrize("path", ["/p/main/im", "/p/main/status"])
def test_both_addresses_take_both_kinds(path: str) -> None:
    told = [IncomingMessage("1555", "hi"), MessageDelivered("m1")]
    client, heard = receiving(lambda: told)
    assert client.post(path).status_code == 202
    assert heard == told
    assert client.get(path).status_code == 405


@pytest.mark.parametrize("error", [KeyError, IndexError, TypeError, AttributeError, OverflowError])
def test_an_unreadable_webhook_is_malformed_as_a_whole(
    error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    def read() -> Iterator[Any]:
        yield MessageDelivered("m1")
        raise error("+15551234567")

    client, heard = receiving(read)
    assert client.post("/p/main/im").status_code == 400
    assert heard == []
    assert error.__name__ in caplog.text
    assert "15551234567" not in caplog.text


def test_an_error_of_a_hook_is_not_the_webhooks() -> None:
    def fail(status: Any) -> None:
        raise KeyError("in the hook")

    gateway = Gateway(Settings(eager=True))
    gateway.add_provider("main", Told, read=lambda: [MessageDelivered("m1")])
    gateway.onStatus += fail
    client = gateway.receiver_blueprints_register(Flask("test"), "p").test_client()
    assert client.post("/p/main/im").status_code == 500
