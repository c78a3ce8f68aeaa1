"""GatewayAPI."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jwt
import pytest

from smsqueue import exc
from smsqueue.message.states import State
from smsqueue.providers.gatewayapi import GatewayApiProvider
from smsqueue.settings import SettingsError
from smsqueue.testing.contract import PREFIX, PUBLIC_URL, Check, checks, made
from smsqueue.testing.examples import (
    REF,
    Examples,
    Received,
    Refusal,
    Reported,
    Sending,
    Webhook,
    message,
)
from smsqueue.testing.stub import Answer, Stub
from smsqueue.testing.webhook_checks import receiver
from tests.providers.helpers import account, basic, client_of_failing_gateway, malformed

TOKEN, SECRET = "gateway-api-token", "the authentication token of the webhook"
OLD = "the authentication token of before, also long"
NOW = int(time.time())
USAGE = {"countries": {"US": 1}, "currency": "DKK", "total_cost": 0.12}
GOOD = Answer(200, {"ids": [421332671], "usage": USAGE})
SENT = {
    "message": "hello",
    "recipients": [{"msisdn": 15551234567}],
    "encoding": "UTF8",
    "userref": REF,
}
#: Published with GatewayAPI's documentation; its secret is "secret".
PUBLISHED = (
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJpZCI6MjM4MTcwMywibXNpc2RuIjo0NTQyNjA5MDQ1LCJ0aW1lIjox"
    "NTIyNzY0MDYyLCJzdGF0dXMiOiJERUxJVkVSRUQiLCJlcnJvciI6bnVsbCwiY29kZSI6bnVsbCwidXNlcnJlZiI6bnVsbCwi"
    "Y2FsbGJhY2tfdXJsIjoiaHR0cDovL2JiYWY3MTQyLm5ncm9rLmlvIiwiYXBpIjo0fQ.KdfDH65bnQtgxEkFnpAQodOciAJed"
    "ZFB13r9wEo8t3Y"
)


def signed(event: Any, secret: str = SECRET, algorithm: str = "HS256") -> dict[str, str]:
    return {"X-Gwapi-Signature": jwt.encode(event, secret, algorithm)}


def sign(method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        event = None
    return headers | signed(event if isinstance(event, dict) else {})


hook = partial(Webhook, sign=sign, status=204)
bad = partial(malformed, sign=sign)


def refused(code: str, status: int, error: type[exc.ProviderError]) -> Refusal:
    answer = {"code": code, "incident_uuid": "d8127429", "message": "no %1", "variables": ["1"]}
    return Refusal(f"{code} in {status}", Answer(status, answer), error, code=code)


def status(word: str, state: State | None, code: str | None = None) -> Webhook:
    event = {"id": 421332671, "msisdn": 15551234567, "time": NOW, "status": word}
    event |= {"userref": REF} | ({"error": "why", "code": code} if code else {})
    reported = Reported(state, 421332671, REF, code, word)
    return hook(f"status {word}", "/status", [reported], json=event)


def malformed(path: str, event: Any) -> Webhook:
    return Webhook("", path, [], json=event, sign=sign)


MO = {
    "id": 1000001,
    "msisdn": 15551234567,
    "receiver": 451204,
    "message": "foo Hello",
    "senttime": NOW,
    "webhook_label": "test",
}
DELIVERED = {"id": 421332671, "msisdn": 15551234567, "status": "DELIVERED", "userref": REF}

sends = partial(Sending, answer=GOOD, msgid=421332671, path="/rest/mtsms")

EXAMPLES = Examples(
    provider=GatewayApiProvider,
    config={"token": TOKEN, "secret": SECRET},
    good=GOOD,
    secrets=[TOKEN, SECRET],
    sendings=[
        sends("a text", message(status_report=True), json=SENT, headers=basic(f"{TOKEN}:")),
        sends(
            "Unicode, a number as the sender",
            message(body="привет", src="+1 555 000 9999"),
            json=SENT | {"message": "привет", "encoding": "UCS2", "sender": "15550009999"},
        ),
        sends(
            "GSM-7 beyond ASCII, sender id, validity, parameters",
            message(body="Øre {€}", senderId="Shop", expires=5, params={"class": "premium"}),
            json=SENT
            | {"message": "Øre {€}", "sender": "Shop", "validity_period": 300, "class": "premium"},
        ),
        sends("the shortest validity", message(expires=0.5), json=SENT | {"validity_period": 60}),
        sends(
            "an address for reports",
            message(status_report=True),
            json=SENT | {"callback_url": f"{PUBLIC_URL}/{PREFIX}/main/status"},
            config={"callbacks": True},
        ),
        sends("no report is wanted", message(), json=SENT, config={"callbacks": True}),
    ],
    refusals=[
        refused("0x0213", 403, exc.AuthError),
        refused("0x0224", 401, exc.AuthError),
        refused("0x0216", 403, exc.CreditError),
        refused("0x0215", 400, exc.RequestError),
        refused("0x0215", 403, exc.RequestError),
        refused("0x0217", 403, exc.UnsupportedError),
        refused("0x0310", 400, exc.RequestError),
        refused("0x021E", 500, exc.ServerError),
        refused("0x0999", 400, exc.RequestError),
        Refusal(
            "an unknown code in a 500",
            Answer(500, {"code": "0x0201"}),
            exc.ServerError,
            code="0x0201",
            ambiguous=True,
        ),
        Refusal("small letters", Answer(403, {"code": "0x21d"}), exc.AuthError, code="0x021D"),
        Refusal("no code at all", Answer(400, {"code": "oops"}), exc.RequestError),
        Refusal("a code that is no text", Answer(400, {"code": 534}), exc.RequestError),
        Refusal("401 without a code", Answer(401, ""), exc.AuthError),
        Refusal("422", Answer(422, ""), exc.RequestError),
        Refusal("200 without ids", Answer(200, {"ids": []}), exc.RequestError),
        Refusal(
            "200 without ids, and it costs",
            Answer(200, {"ids": [], "usage": USAGE}),
            exc.ServerError,
            ambiguous=True,
        ),
        Refusal("a number in 503", Answer(503, {"code": "503"}), exc.ServerError, None, True),
        refused("0x0299", 503, exc.ServerError),
        Refusal("200 with a code", Answer(200, {"code": "0x0216"}), exc.CreditError, "0x0216"),
    ],
    webhooks=[
        hook("incoming", "/im", [Received("15551234567", "foo Hello", "451204", 1000001)], json=MO),
        hook(
            "incoming, where the reports come",
            "/status",
            [Received("15551234567", "foo Hello", "451204", 1000001)],
            json=MO,
        ),
        hook(
            "incoming, binary",
            "/im",
            [Received("15551234567", "", None, 1000001)],
            json={"id": 1000001, "msisdn": "15551234567", "payload": "aGk="},
        ),
        status("BUFFERED", State.ACCEPTED),
        status("ENROUTE", State.ACCEPTED),
        status("ACCEPTED", State.ACCEPTED),
        status("DELIVERED", State.DELIVERED),
        status("EXPIRED", State.EXPIRED),
        status("UNDELIVERABLE", State.UNDELIVERED, "0x1010"),
        status("REJECTED", State.UNDELIVERED, "0x1092"),
        status("SKIPPED", State.UNDELIVERED),
        status("NEVER_SEEN", None),
    ],
    refused=[
        ("no id", malformed("/status", {"status": "DELIVERED"}), 400),
        ("a status that is no text", malformed("/status", {"id": 1, "status": 5}), 400),
        ("no text", malformed("/im", {"id": 1, "msisdn": 15551234567}), 400),
        ("no sender", malformed("/im", {"id": 1, "message": "hi"}), 400),
        ("a sender that is none", malformed("/im", MO | {"msisdn": True}), 400),
        ("a receiver that is none", malformed("/im", MO | {"receiver": [1]}), 400),
        ("an id that is none", malformed("/status", DELIVERED | {"id": None}), 400),
    ],
)


@pytest.mark.parametrize("check", checks(EXAMPLES), ids=str)
def test_contract(check: Check) -> None:
    check()


def test_the_host_of_european_accounts() -> None:
    assert made(EXAMPLES, "", eu=True)[1].url == "https://gatewayapi.eu"
    assert made(EXAMPLES, "")[1].url == "https://gatewayapi.com"
    assert made(EXAMPLES, "https://example.org", eu=True)[1].url == "https://example.org"


def test_a_number_without_country_code_is_not_sent_as_another() -> None:
    with (
        account(EXAMPLES, GOOD) as (provider, stub),
        pytest.raises(exc.RequestError, match="country code"),
    ):
        provider.send(message("0155512345"))
    assert stub.seen == []


def test_the_balance() -> None:
    with Stub(
        Answer(200, {"credit": 1234.56, "currency": "DKK", "id": 1}), Answer(500, {})
    ) as stub:
        _, provider, _ = made(EXAMPLES, stub.url)
        balance = provider.balance()
        with pytest.raises(exc.ServerError) as caught:
            provider.balance()
    assert (str(balance.amount), balance.currency) == ("1234.56", "DKK")
    assert stub.seen[0].path == "/rest/me"
    assert not caught.value.ambiguous


Post = Callable[..., int]


def receiving(**config: Any) -> tuple[Post, list[Any]]:
    """What posts a body with headers and tells the answer's status."""
    client, heard = receiver(EXAMPLES, **config)

    def post(body: Any, headers: dict[str, str], query: str = "") -> int:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        path = f"/{PREFIX}/main/status{query}"
        return client.post(path, data=data, headers=headers).status_code

    return post, heard


@pytest.mark.filterwarnings("ignore:The HMAC key")  # "secret" is short
def test_the_published_example_of_a_token() -> None:
    post, heard = receiving(secret="secret", replay_window=100 * 365 * 86400.0)
    body = {"id": 2381703, "msisdn": 4542609045, "time": 1522764062, "status": "DELIVERED"}
    assert post(body, {"X-Gwapi-Signature": PUBLISHED}) == 204
    [report] = heard
    assert (report.msgid, report.status, report.delivered) == (2381703, "DELIVERED", True)
    assert report.rtime.isoformat() == "2018-04-03T14:01:02+00:00"
    assert "4542609045" not in str(report.meta)
    assert post(body, {"X-Gwapi-Signature": PUBLISHED[:-1] + "Z"}) == 403


def test_a_text_of_several_ids_is_reported_by_our_reference() -> None:
    with account(EXAMPLES, Answer(200, {"ids": [1, 2], "usage": USAGE})) as (provider, _):
        sent = provider.send(message())
    assert (sent.msgid, sent.meta) == (1, {"usage": USAGE, "ids": [1, 2]})
    post, heard = receiving()
    for each in (1, 2):
        event = DELIVERED | {"id": each}
        assert post(event, signed(event)) == 204
    assert [(each.msgid, each.reference) for each in heard] == [(1, REF), (2, REF)]


def test_secrets_rotate() -> None:
    post, heard = receiving(secret=[SECRET, OLD])
    for secret in (SECRET, OLD):
        assert post(DELIVERED, signed(DELIVERED, secret)) == 204
    assert post(DELIVERED, signed(DELIVERED, "another secret that is long enough")) == 403
    assert len(heard) == 2


def test_what_the_token_says_is_what_counts() -> None:
    token = signed(DELIVERED)
    for body, query in (({}, ""), ({"status": "DELIVERED", "new": 1}, "?ref=another.1")):
        post, heard = receiving()
        assert post(body, token, query) == 204
        assert [each.reference for each in heard] == [REF]
        # The token was used: it is good for no other webhook.
        assert post(DELIVERED, token) == 403
    post, heard = receiving()
    assert post(DELIVERED | {"userref": "another.1"}, token) == 403
    assert post([DELIVERED], token) == 400
    assert post(b"[" * 100_000, token) == 400
    assert heard == []


@pytest.mark.parametrize(
    ("days", "taken"),
    [(0, True), (-1, True), (-2.9, True), (-3.1, False), (-3000, False), (2, True)],
)
def test_an_event_of_long_ago_is_a_replay(days: float, taken: bool) -> None:
    post, heard = receiving()
    at = NOW + days * 86400
    for event in (DELIVERED | {"time": at}, MO | {"senttime": at}):
        assert post(event, signed(event)) == (204 if taken else 403)
    assert len(heard) == (2 if taken else 0)
    late, _ = receiving(replay_window=4 * 86400.0)
    event = DELIVERED | {"time": NOW - 3.5 * 86400}
    assert late(event, signed(event)) == 204


def test_an_event_without_a_time_is_taken() -> None:
    post, heard = receiving()
    for event in (
        DELIVERED,
        DELIVERED | {"time": None, "id": 5},
        DELIVERED | {"time": "x", "id": 6},
    ):
        assert post(event, signed(event)) == 204
    assert len(heard) == 3


@pytest.mark.parametrize("algorithm", ["HS512", "none"])
def test_other_algorithms_are_refused(algorithm: str) -> None:
    post, heard = receiving(secret=SECRET * 2)
    secret = "" if algorithm == "none" else SECRET * 2
    assert post(DELIVERED, signed(DELIVERED, secret, algorithm)) == 403
    assert heard == []


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "e30.e30.", "W10.W10.W10"])
def test_what_is_no_token_is_refused(token: str) -> None:
    post, heard = receiving()
    assert post(DELIVERED, {"X-Gwapi-Signature": token}) == 403
    assert heard == []


def test_a_token_that_has_run_out_is_refused() -> None:
    post, heard = receiving()
    assert post(DELIVERED, signed(DELIVERED | {"exp": 1450000000})) == 403
    assert heard == []


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(SettingsError, match=r"smsqueue-gateway\[signatures\]"):
        receiving()
    post, heard = receiving(insecure=True)
    assert post(DELIVERED, {}) == 204
    assert len(heard) == 1


def test_a_webhook_that_was_not_recorded_is_to_be_repeated() -> None:
    client = client_of_failing_gateway(EXAMPLES)
    path = f"/{PREFIX}/main/status"
    assert client.post(path, json=DELIVERED, headers=signed(DELIVERED)).status_code == 503
