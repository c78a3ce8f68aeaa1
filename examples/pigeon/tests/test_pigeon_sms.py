"""Pigeon Post: what it is sent, what it answers, what it tells. Nothing leaves this machine."""

from __future__ import annotations

from typing import Any

import pytest

from pigeon_sms import PigeonProvider
from smsqueue import exc
from smsqueue.message.states import State
from smsqueue.providers.authentic import hmac_hex
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

KEY, SECRET = "key-of-the-account", "secret-of-the-webhooks"
GOOD = Answer(200, {"pigeon": "p1"})
SENT = {"to": "+15551234567", "text": "hello", "flock": 1, "ref": REF}


def sign(method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
    """The headers of a genuine webhook."""
    return headers | {"X-Pigeon-Signature": hmac_hex(SECRET, body)}


def refused(code: str, status: int, error: type[exc.ProviderError]) -> Refusal:
    return Refusal(code, Answer(status, {"error": {"code": code}}), error, code)


def status(word: str, state: State | None, **more: str) -> Webhook:
    told = {"state": word, "pigeon": "p1", "ref": REF} | more
    reported = Reported(state, "p1", REF, more.get("why"), word)
    return Webhook(f"status {word}", "/status", [reported], json=told, sign=sign, status=204)


MO = {"from": "+15551234567", "to": "+15550009999", "text": "hi", "pigeon": "p9"}

EXAMPLES = Examples(
    provider=PigeonProvider,
    config={"api_key": KEY, "secret": SECRET},
    good=GOOD,
    secrets=[KEY, SECRET],
    sendings=[
        Sending(
            "a text",
            message(),
            GOOD,
            "p1",
            "/v1/messages",
            json=SENT,
            headers={"X-Pigeon-Key": KEY},
        ),
        Sending(
            "a report, a validity, a sender id, parameters",
            message(
                status_report=True,
                expires=5,
                senderId="Shop",
                params={"flock": 2, "to": "+1", "ref": "x"},
            ),
            GOOD,
            "p1",
            "/v1/messages",
            json=SENT
            | {"from": "Shop", "validity": 300, "flock": 2}
            | {"callback": f"{PUBLIC_URL}/{PREFIX}/main/status"},
        ),
    ],
    refusals=[
        refused("unknown_key", 401, exc.AuthError),
        refused("no_seeds", 403, exc.CreditError),
        refused("all_in_the_air", 503, exc.LimitsError),
        refused("no_such_roof", 400, exc.RequestError),
        refused("never_heard_of", 400, exc.RequestError),
        Refusal("200 without an id", Answer(200, {}), exc.ServerError, ambiguous=True),
    ],
    unsupported=[message(senderId="My$hop")],
    webhooks=[
        Webhook(
            "incoming",
            "/im",
            [Received("15551234567", "hi", "15550009999", "p9")],
            json=MO,
            sign=sign,
            status=204,
        ),
        status("flying", State.ACCEPTED),
        status("landed", State.DELIVERED),
        status("late", State.EXPIRED),
        status("eaten", State.UNDELIVERED, why="hawk"),
        status("never heard of", None),
    ],
    refused=[
        ("no text", Webhook("", "/im", [], json=MO | {"text": None}, sign=sign), 400),
        ("a list", Webhook("", "/status", [], json=[1], sign=sign), 400),
        ("no JSON", Webhook("", "/status", [], body=b"coo", sign=sign), 400),
    ],
)


@pytest.mark.parametrize("check", checks(EXAMPLES), ids=str)
def test_contract(check: Check) -> None:
    check()


def test_the_balance() -> None:
    with Stub(Answer(200, {"amount": 12.5})) as stub:
        _, provider, _ = made(EXAMPLES, stub.url)
        balance: Any = provider.balance()
    assert (str(balance.amount), balance.currency) == ("12.5", "EUR")
    assert stub.seen[0].path == "/v1/balance"
