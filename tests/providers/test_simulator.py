"""The simulator's provider, sending and receiving, without a gateway."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask

from smsqueue import (
    IncomingMessage,
    MessageAccepted,
    MessageDelivered,
    MessageError,
    MessageExpired,
    MessageStatus,
    OutgoingMessage,
    exc,
)
from smsqueue.providers.simulator import SIGNATURE_HEADER, SimulatorProvider, sign
from smsqueue.simulator import NUMBERS, Simulator

NUMBER = {n.name: next(iter(n.numbers(1))) for n in NUMBERS}


class Gateway:
    """Keeps what a provider reports."""

    eager = True

    def __init__(self) -> None:
        self.got: list[Any] = []

    def receive_message(self, message: IncomingMessage) -> None:
        self.got.append(message)

    def note_signature(self, provider: str, signature: str, request: str, seconds: Any) -> str:
        return "new"

    def receive_status(self, status: MessageStatus) -> None:
        self.got.append(status)


@pytest.fixture
def provider() -> SimulatorProvider:
    return SimulatorProvider(Gateway(), "main", url="http://127.0.0.1:9", token="secret")


def webhook(provider: SimulatorProvider, kind: str, body: bytes, signature: str | None) -> int:
    app = Flask(__name__)
    app.register_blueprint(provider.make_receiver_blueprint())
    app.register_error_handler(ValueError, lambda error: ("", 400))
    app.register_error_handler(PermissionError, lambda error: ("", 403))
    headers = {} if signature is None else {SIGNATURE_HEADER: signature}
    answer = app.test_client().post(f"/{kind}", data=body, headers=headers)
    return answer.status_code


def signed(provider: SimulatorProvider, kind: str, payload: object) -> int:
    body = json.dumps(payload).encode()
    return webhook(provider, kind, body, sign("secret", body))


def got(provider: SimulatorProvider) -> list[Any]:
    gateway = provider.gateway
    assert isinstance(gateway, Gateway)
    return gateway.got


def send(simulator: Simulator, to: str, token: str = "secret", **options: Any) -> OutgoingMessage:
    provider = SimulatorProvider(None, "main", url=simulator.url, token=token)
    message = OutgoingMessage(to, "hello", src="1999").options(**options)
    message.reference = "m1.1"
    return provider.send(message)


def test_send() -> None:
    with Simulator({}, "secret") as simulator:
        message = send(simulator, NUMBER["delivered"], expires=2, status_report=True)
        (entry,) = simulator.carrier.accepted()
    assert message.msgid == entry["id"]
    assert (entry["reference"], entry["account"]) == ("m1.1", "main")


@pytest.mark.parametrize(
    ("name", "kind", "ambiguous", "retry_after"),
    [
        ("broken twice", exc.ServerError, False, None),
        ("throttled", exc.LimitsError, False, 1.0),
        ("no credit", exc.CreditError, False, None),
        ("refused", exc.RequestError, False, None),
        ("answer lost", exc.ConnectionError, True, None),
    ],
)
def test_errors(
    name: str, kind: type[exc.ProviderError], ambiguous: bool, retry_after: float | None
) -> None:
    with Simulator({}, "secret") as simulator, pytest.raises(exc.ProviderError) as caught:
        send(simulator, NUMBER[name])
    assert type(caught.value) is kind
    assert caught.value.ambiguous is ambiguous
    assert caught.value.retry_after == retry_after
    assert NUMBER[name] not in str(caught.value)


def test_wrong_token() -> None:
    with Simulator({}, "secret") as simulator, pytest.raises(exc.AuthError):
        send(simulator, NUMBER["delivered"], token="wrong")


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("accepted", MessageAccepted),
        ("delivered", MessageDelivered),
        ("expired", MessageExpired),
        ("failed", MessageError),
    ],
)
def test_report(provider: SimulatorProvider, state: str, kind: type[MessageStatus]) -> None:
    payload = {"id": "p1", "reference": "m1.2", "state": state, "code": 7}
    assert signed(provider, "status", payload | {"at": "2026-01-02T03:04:05+00:00"}) == 204
    (status,) = got(provider)
    assert type(status) is kind
    assert (status.msgid, status.reference, status.provider) == ("p1", "m1.2", "main")
    assert (status.status_code, status.status) == (7, state)
    assert status.rtime == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_unknown_state_is_kept_and_logged_once(
    provider: SimulatorProvider, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        assert signed(provider, "status", {"id": "p1", "state": "on its way"}) == 204
    assert [type(status) for status in got(provider)] == [MessageStatus] * 2
    assert got(provider)[0].status == "on its way"
    assert got(provider)[0].state is None
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1


def test_incoming(provider: SimulatorProvider) -> None:
    payload = {"id": "p9", "from": "+1 555", "to": "1999", "text": "hi"}
    assert signed(provider, "im", payload) == 204
    (message,) = got(provider)
    assert (message.msgid, message.src, message.dst, message.body) == ("p9", "1555", "1999", "hi")


@pytest.mark.parametrize("kind", ["im", "status"])
@pytest.mark.parametrize("signature", [None, "", "0" * 64, "\xe9", sign("other", b"{}")])
def test_wrong_signature(provider: SimulatorProvider, kind: str, signature: str | None) -> None:
    assert webhook(provider, kind, b"{}", signature) == 403
    assert got(provider) == []


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("im", b""),
        ("im", b"[]"),
        ("im", b"{}"),
        ("im", b"\xff"),
        ("im", b"[" * 100_000),
        ("im", b'{"id": "1", "from": null, "text": "x"}'),
        ("im", b'{"id": "1", "from": 1555, "text": "x"}'),
        ("status", b'{"id": "1"}'),
        ("status", b'{"id": 1, "state": "delivered"}'),
        ("status", b'{"id": "1", "state": "delivered", "at": "yesterday"}'),
        ("status", b'{"id": "1", "state": "delivered", "at": "2026-01-02T03:04:05"}'),
        ("status", b'{"id": "1", "state": "delivered", "reference": []}'),
    ],
)
def test_malformed(provider: SimulatorProvider, kind: str, body: bytes) -> None:
    assert webhook(provider, kind, body, sign("secret", body)) == 400
    assert got(provider) == []
