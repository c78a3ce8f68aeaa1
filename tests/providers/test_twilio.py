"""Twilio."""

from __future__ import annotations

from base64 import b64encode
from typing import Any
from urllib.parse import parse_qsl

import pytest

from smsqueue import exc
from smsqueue.providers.authentic import hmac_base64
from smsqueue.providers.twilio import TwilioProvider
from smsqueue.states import State
from smsqueue.testing.contract import PREFIX, PUBLIC_URL, Check, checks, made
from smsqueue.testing.examples import (
    Examples,
    Received,
    Refusal,
    Reported,
    Sending,
    Webhook,
    message,
)
from smsqueue.testing.stub import Answer, Stub

SID, TOKEN = "AC" + "0" * 32, "twilio-token"
PATH = f"/2010-04-01/Accounts/{SID}/Messages.json"
GOOD = Answer(201, {"sid": "SM1", "status": "queued", "num_segments": "1", "price": None})
REF = "1m842psghd5k1m5599r6.1"


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def sign(method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
    pairs = sorted(set(parse_qsl(body.decode(), keep_blank_values=True)))
    text = url + "".join(name + value for name, value in pairs)
    return headers | {"X-Twilio-Signature": hmac_base64(TOKEN, text.encode(), "sha1")}


def refused(code: int, status: int, error: type[exc.ProviderError]) -> Refusal:
    answer = Answer(status, {"code": code, "message": "no", "status": status})
    return Refusal(f"{code}", answer, error, code=code)


def status(word: str, state: State | None, **more: Any) -> Webhook:
    form = {"MessageSid": "SM1", "MessageStatus": word, "To": "+15551234567"} | more
    code = more.get("ErrorCode")
    return Webhook(
        f"status {word} {code or ''}",
        f"/status?ref={REF}",
        [Reported(state, "SM1", REF, code, word)],
        form=form,
        sign=sign,
        status=204,
    )


EXAMPLES = Examples(
    provider=TwilioProvider,
    config={"account_sid": SID, "auth_token": TOKEN, "sender": "15550009999"},
    good=GOOD,
    secrets=[TOKEN],
    secret="auth_token",
    config_without_secret={"api_key": ("SK1", "its-secret")},
    sendings=[
        Sending(
            "a text",
            message(),
            GOOD,
            "SM1",
            PATH,
            form={"To": "+15551234567", "From": "+15550009999", "Body": "hello"},
            headers={"Authorization": basic(SID, TOKEN)},
        ),
        Sending(
            "report, validity, sender id",
            message(status_report=True, expires=5, senderId="Shop"),
            GOOD,
            "SM1",
            PATH,
            form={
                "To": "+15551234567",
                "From": "Shop",
                "Body": "hello",
                "ValidityPeriod": "300",
                "StatusCallback": f"{PUBLIC_URL}/{PREFIX}/main/status?ref={REF}#rc=3&rp=all",
            },
        ),
        Sending(
            "messaging service, parameter",
            message(params={"SmartEncoded": "true"}),
            GOOD,
            "SM1",
            PATH,
            form={
                "To": "+15551234567",
                "MessagingServiceSid": "MG1",
                "Body": "hello",
                "SmartEncoded": "true",
            },
            config={"sender": None, "service": "MG1"},
        ),
    ],
    refusals=[
        refused(20003, 401, exc.AuthError),
        refused(20005, 403, exc.CreditError),
        refused(20429, 429, exc.LimitsError),
        refused(21211, 400, exc.RequestError),
        refused(21610, 400, exc.RequestError),
        refused(21408, 403, exc.UnsupportedError),
        refused(20500, 500, exc.ServerError),
        refused(99999, 400, exc.RequestError),
        Refusal("401 without a code", Answer(401, ""), exc.AuthError),
        Refusal("201 without a sid", Answer(201, {}), exc.ServerError, ambiguous=True),
    ],
    webhooks=[
        Webhook(
            "incoming",
            "/im",
            [Received("15551234567", "hi there", "15550009999", "SM9")],
            form={
                "MessageSid": "SM9",
                "From": "+15551234567",
                "To": "+15550009999",
                "Body": "hi there",
                "NumMedia": "0",
                "SomethingNew": ["b", "a", "a"],
            },
            sign=sign,
            answer=b"<Response/>",
        ),
        status("sent", State.ACCEPTED),
        status("delivered", State.DELIVERED),
        status("undelivered", State.UNDELIVERED, ErrorCode="30003"),
        status("failed", State.EXPIRED, ErrorCode="30036"),
        status("canceled", State.UNDELIVERED),
        status("never-heard-of", None),
    ],
    refused=[
        ("no From", Webhook("", "/im", [], form={"MessageSid": "SM9"}, sign=sign), 400),
    ],
)


@pytest.mark.parametrize("check", checks(EXAMPLES), ids=str)
def test_contract(check: Check) -> None:
    check()


def test_the_balance() -> None:
    with Stub(Answer(200, {"balance": "12.50", "currency": "USD"})) as stub:
        _, provider, _ = made(EXAMPLES, stub.url)
        balance = provider.balance()
    assert (str(balance.amount), balance.currency) == ("12.50", "USD")


def test_the_published_example_of_a_signature() -> None:
    """Twilio's own: a call's webhook with five parameters."""
    form = {"CallSid": "CA1234567890ABCDE", "Caller": "+14158675309", "Digits": "1234"}
    form |= {"From": "+14158675309", "To": "+18005551212"}
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    text = url + "".join(name + form[name] for name in sorted(form))
    assert hmac_base64("12345", text.encode(), "sha1") == "RSOYDt4T1cUTdK1PDd93/VVr8B8="
