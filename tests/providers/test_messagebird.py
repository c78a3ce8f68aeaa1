"""MessageBird's REST API."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import pytest

from smsqueue import Gateway, exc
from smsqueue.message.states import State
from smsqueue.providers.authentic import hmac_base64, sha256_hex
from smsqueue.providers.messagebird import MessageBirdProvider, is_authentic
from smsqueue.settings import Settings, SettingsError
from smsqueue.testing.contract import PREFIX, PUBLIC_URL, Check, checks, seen_by
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
from smsqueue.testing.stub import Answer
from smsqueue.testing.webhook_checks import client_of, receiver
from tests.providers.helpers import (
    account,
    client_of_failing_gateway,
    failure_of,
    malformed,
    webhook_status,
)

KEY, SECRET = "messagebird-access-key", "the signing key of the account, long enough"
PAGE = Path(__file__).parents[2] / "docs" / "providers" / "messagebird.md"
OLD = "the signing key of before, that is also long"
REPORTS = f"{PUBLIC_URL}/{PREFIX}/main/status"


def told(status: str = "sent", **more: Any) -> dict[str, Any]:
    """A message as MessageBird tells it."""
    recipient = {"recipient": 15551234567, "status": status, "messagePartCount": 1} | more
    return {"id": "mb1", "reference": REF, "recipients": {"totalCount": 1, "items": [recipient]}}


GOOD = Answer(201, told())
SENT = {"recipients": ["15551234567"], "body": "hello", "datacoding": "plain", "reference": REF}


def signed(url: str, body: bytes, secret: str = SECRET, **claims: Any) -> dict[str, str]:
    now = int(time.time())
    made_of = {"iss": "MessageBird", "nbf": now, "exp": now + 60, "jti": "1"}
    made_of |= {"url_hash": sha256_hex(url.encode())}
    made_of |= {"payload_hash": sha256_hex(body)} if body else {}
    wanted = {name: value for name, value in (made_of | claims).items() if value is not ...}
    return {"MessageBird-Signature-JWT": jwt.encode(wanted, secret, "HS256")}


def sign(method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
    return headers | signed(url, body)


hook = partial(Webhook, sign=sign)
bad = partial(malformed, sign=sign)


def errors(code: Any, status: int, **more: Any) -> Answer:
    return Answer(
        status, {"errors": [{"code": code, "description": "no", "parameter": None}]} | more
    )


def refused(code: int, status: int, error: type[exc.ProviderError]) -> Refusal:
    return Refusal(f"{code} in {status}", errors(code, status), error, code=code)


def status(word: str, state: State | None, code: str | None = None) -> Webhook:
    query = {"id": "mb1", "reference": REF, "recipient": "15551234567", "status": word}
    query |= {"statusDatetime": "2021-07-05T10:00:00+00:00"}
    query |= {"statusReason": "", "statusErrorCode": code} if code else {}
    return hook(
        f"status {word} {code or ''}",
        "/status",
        [Reported(state, "mb1", REF, code, word)],
        method="GET",
        form=query,
        answer=b"OK",
    )


MO = {
    "id": "mb9",
    "recipient": "15550009999",
    "originator": "15551234567",
    "body": "hi & thére",
    "createdDatetime": "2021-07-05T10:00:00+00:00",
}
SHORT = {
    "mid": "mb9",
    "shortcode": "1008",
    "originator": "15551234567",
    "message": "hi",
    "receive_datetime": "20210705100000",
}

sends = partial(Sending, answer=GOOD, msgid="mb1", path="/messages")

EXAMPLES = Examples(
    provider=MessageBirdProvider,
    config={"access_key": KEY, "secret": SECRET, "sender": "15550009999"},
    good=GOOD,
    secrets=[KEY, SECRET],
    sendings=[
        sends(
            "a text",
            message(),
            json=SENT | {"originator": "15550009999"},
            headers={"Authorization": f"AccessKey {KEY}"},
        ),
        sends(
            "Unicode, report, validity, sender id",
            message(body="привет", status_report=True, expires=5, senderId="Shop"),
            json=SENT
            | {"body": "привет", "datacoding": "unicode", "originator": "Shop"}
            | {"reportUrl": REPORTS, "validity": 300},
        ),
        sends(
            "without a sender; a parameter replaces neither the recipient nor the reference",
            message(params={"gateway": 10, "recipients": ["1", "2"], "reference": "order 5"}),
            json=SENT | {"gateway": 10},
            config={"sender": None},
        ),
        sends("nothing is told of the recipient", message(), answer=Answer(201, {"id": "mb1"})),
    ],
    refusals=[
        refused(2, 401, exc.AuthError),
        refused(9, 422, exc.RequestError),
        refused(10, 422, exc.RequestError),
        refused(20, 404, exc.RequestError),
        refused(25, 402, exc.CreditError),
        refused(25, 422, exc.CreditError),
        refused(77, 422, exc.RequestError),
        Refusal(
            "99 in 500", errors(99, 500), exc.ServerError, code=99, ambiguous=True
        ),  # it is not documented
        Refusal("a code that is no number", errors("x", 400), exc.RequestError),
        Refusal("401 without a code", Answer(401, ""), exc.AuthError),
        Refusal("201 without an id", Answer(201, {}), exc.ServerError, ambiguous=True),
        Refusal("201 with errors", errors(25, 201), exc.CreditError, code=25),
        Refusal(
            "201, to nobody",
            Answer(201, {"id": "m", "recipients": {"totalCount": 0, "items": []}}),
            exc.RequestError,
        ),
        Refusal(
            "201 with an id and errors", errors(25, 201, id="m"), exc.CreditError, ambiguous=True
        ),
        Refusal(
            "given up at once",
            Answer(201, told("delivery_failed", statusErrorCode=103)),
            exc.OptedOut,
            code=103,
        ),
    ],
    webhooks=[
        hook(
            "incoming",
            "/im",
            [Received("15551234567", "hi & thére", "15550009999", "mb9")],
            form=MO,
            answer=b"OK",
        ),
        hook(
            "incoming, short code",
            "/im?x=1",
            [Received("15551234567", "hi", "1008", "mb9")],
            form=SHORT,
            answer=b"OK",
        ),
        status("scheduled", State.ACCEPTED),
        status("buffered", State.ACCEPTED),
        status("sent", State.ACCEPTED),
        status("delivered", State.DELIVERED),
        status("expired", State.EXPIRED),
        status("delivery_failed", State.UNDELIVERED),
        status("delivery_failed", State.UNDELIVERED, "103"),
        status("never_seen", None),
    ],
    refused=[
        bad("no originator", "/im", form={"id": "mb9"}),
        bad("no status", "/status", method="GET", form={"id": "mb1"}),
        bad("a report by POST", "/status", code=405, form={"id": "mb1"}),
    ],
)


@pytest.mark.parametrize("check", checks(EXAMPLES), ids=str)
def test_contract(check: Check) -> None:
    check()


def test_the_balance() -> None:
    prepaid = {"payment": "prepaid", "type": "credits", "amount": 9.2}
    answers = [Answer(200, prepaid), Answer(200, prepaid | {"type": "euros"})]
    with account(EXAMPLES, *answers) as (provider, stub):
        first, second = provider.balance(), provider.balance()
    assert (str(first.amount), first.currency, second.currency) == ("9.2", None, "EUR")
    assert stub.seen[0].path == "/balance"
    error = failure_of(EXAMPLES, lambda provider: provider.balance(), Answer(500, "<html>"))
    assert (isinstance(error, exc.ServerError), error.ambiguous) == (True, False)


BEGUN = datetime(2026, 5, 21, 12, 30, 1, 5, timezone(timedelta(hours=2)))


def looked_up(*items: Any) -> Any:
    answers = [Answer(200, {"offset": 0, "limit": 20, "items": list(items)})]
    with account(EXAMPLES, *answers) as (provider, stub):
        found = provider.look_up(message(), BEGUN)
    assert (stub.seen[0].method, stub.seen[0].path) == ("GET", "/messages")
    query = {"recipient": "15551234567", "from": "2026-05-21T09:30:01+00:00"}
    assert stub.seen[0].query == query
    return found


def test_look_up_finds_a_message_by_our_reference() -> None:
    other = told("delivered") | {"id": "mb2", "reference": REF.replace(".1", ".2")}
    found = looked_up("odd", other, told("delivery_failed", statusErrorCode=103))
    assert (found.msgid, found.reference, found.state) == ("mb1", REF, State.UNDELIVERED)
    assert found.status_code == 103
    assert looked_up({"id": "mb3", "reference": REF}).state is State.ACCEPTED
    assert looked_up(other, {"id": "mb3", "reference": None}) is None
    assert looked_up() is None


def test_a_look_up_that_fails() -> None:
    answers = [Answer(200, {"items": None}), Answer(500, ""), Answer(cut=True)]
    with account(EXAMPLES, *answers) as (provider, _stub):
        for _ in range(3):
            with pytest.raises(exc.ProviderError) as caught:
                provider.look_up(message(), datetime.now(UTC))
            assert not caught.value.ambiguous


# --- The signature -----------------------------------------------------------------------------

#: Published with MessageBird's SDK for Go: the key, the time, and tokens for addresses.
VECTOR_KEY = "36efdd1aace2e26cd490f0d951138253bef2f7c6d34d18981da781555cc4cebb"
VECTOR_TIME = datetime(2021, 7, 5, 10, 0, tzinfo=UTC)
_HEAD = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJNZXNzYWdlQmlyZCIsIm5iZiI6MTYyNTQ"
PLAIN = (
    _HEAD
    + "3OTIwMCwiZXhwIjoxNjI1NDc5MjYwLCJqdGkiOiI1OWEyNDRkYy1lOWFkLTRlMjMtOTc3OC0zNzFmYWEyMzhmNzIi"
    "LCJ1cmxfaGFzaCI6IjBmMTE1ZGIwNjJiN2MwZGQwMzBiMTY4NzhjOTlkZWE1YzM1NGI0OWRjMzdiMzhlYjg4NDYxNzljNzc4"
    "M2U5ZDcifQ.6Fp0rVOsRr1fj9S2GidXAfkmPVofKr8_RTffC6G6r2E"
)
QUERY = (
    _HEAD
    + "3OTIwMCwiZXhwIjoxNjI1NDc5MjYwLCJqdGkiOiJjOTQ2YWY3Ny1lMTgyLTRlYWEtYjJmZi0xYTU0NWI1ZTk5MWEi"
    "LCJ1cmxfaGFzaCI6IjQxZjA1ZjBkZGQwYTIyYWIyMDlhYzQ2ZjQ3YzQ1NzJkOWNlZmEyNTdlZDc0YjI0MDA0YmFlNzUzZWNl"
    "NmMyNjAifQ.huo2ou6JDoDc7sV25d75UMWeYhBeavQlLsqIibSZuac"
)
PAYLOAD = (
    _HEAD
    + "3OTIwMCwiZXhwIjoxNjI1NDc5MjYwLCJqdGkiOiI5M2U1NTAwNi1hMGU4LTQ1MjYtYTE5MC1mYTVmZjAwZWExMTYi"
    "LCJ1cmxfaGFzaCI6IjQxZjA1ZjBkZGQwYTIyYWIyMDlhYzQ2ZjQ3YzQ1NzJkOWNlZmEyNTdlZDc0YjI0MDA0YmFlNzUzZWNl"
    "NmMyNjAiLCJwYXlsb2FkX2hhc2giOiJkZmZkNjAyMWJiMmJkNWIwYWY2NzYyOTA4MDllYzNhNTMxOTFkZDgxYzdmNzBhNGIy"
    "ODY4OGEzNjIxODI5ODZmIn0._H--TOuYFLpeEH39-rg5E3IHVkjHozBcaKVWPRC5m9I"
)
FUTURE = (
    _HEAD
    + "4MjgwMCwiZXhwIjoxNjI1NDgyODYwLCJqdGkiOiJmOWY4YzM4Mi0yNDQ5LTQzMTEtYjcyYi0xZGY3MTY4NzkzMWUi"
    "LCJ1cmxfaGFzaCI6IjBmMTE1ZGIwNjJiN2MwZGQwMzBiMTY4NzhjOTlkZWE1YzM1NGI0OWRjMzdiMzhlYjg4NDYxNzljNzc4"
    "M2U5ZDcifQ.ZELgDFNGhjZH9CffQKcq3sytBe2I0KciLxpBhcfstHQ"
)
PAST = (
    _HEAD
    + "3NTYwMCwiZXhwIjoxNjI1NDc1NjYwLCJqdGkiOiI1ZjAyZjUyMi02MDMwLTQ2YzgtYjVhMy0wMTI0NjQ3OGQ4YmMi"
    "LCJ1cmxfaGFzaCI6IjBmMTE1ZGIwNjJiN2MwZGQwMzBiMTY4NzhjOTlkZWE1YzM1NGI0OWRjMzdiMzhlYjg4NDYxNzljNzc4"
    "M2U5ZDcifQ.45MSST3B_2PsjNUeiuW54_vUQgVw4rBXrdWrOUEz3lM"
)
SORTED = (
    _HEAD
    + "3OTIwMCwiZXhwIjoxNjI1NDc5MjYwLCJqdGkiOiJhNzVjOTA5Ni1lODIzLTQ0MmItODVmMi03ZDNjOWQ5YjcyNmIi"
    "LCJ1cmxfaGFzaCI6IjZhMDIyZDgzNGMxODMzMGJhYWQ4YTJiZDYxMzUxNzNlZDIxNjEwYTQ1NDUxNmJlMGRmM2YxY2MwMTUx"
    "NjEwZWEifQ.z6Sw1XQIM0wuEQGBhXBdawDIIrtMg2XnmA_bpDq53pE"
)
OTHER_PAYLOAD = (
    _HEAD
    + "3OTIwMCwiZXhwIjoxNjI1NDc5MjYwLCJqdGkiOiIxNDUwMTUzMi05NmYyLTQ2ODQtOTgzMi02OGYwOTUxYWUzNDIi"
    "LCJ1cmxfaGFzaCI6IjBmMTE1ZGIwNjJiN2MwZGQwMzBiMTY4NzhjOTlkZWE1YzM1NGI0OWRjMzdiMzhlYjg4NDYxNzljNzc4"
    "M2U5ZDciLCJwYXlsb2FkX2hhc2giOiJmYjYyZjAyYWNkYTdkNzQxNzdhNzAxYTFjZTAwNmU2YmFjZDkwYzdkNGQ3YWI0ODE2"
    "OTJjMWRhNDdjODEwNzZiIn0.m79RCwO6dGa9pvzsQypkVuXQ6eM0CkRl6_U7MfWg6TM"
)
SITE, LONG = "https://example.com/", "https://example.com/path?bar=1&foo=2"
VECTORS: list[tuple[str, str, str, bytes, bool]] = [
    ("no query and no body", PLAIN, SITE, b"", True),
    ("a query", QUERY, LONG, b"", True),
    ("a query and a body", PAYLOAD, LONG, b"Hello, World!", True),
    ("before its time", FUTURE, SITE, b"", False),
    ("after its time", PAST, SITE, b"", False),
    ("the query in another order", SORTED, "https://example.com/path?foo=1&bar=2", b"", False),
    ("another body", OTHER_PAYLOAD, SITE, b"Hello, World!", False),
    ("a body that was not signed", PLAIN, SITE, b"Hello, World!", False),
    ("a body that is missing", PAYLOAD, LONG, b"", False),
]


class Then(datetime):
    """The time of the published examples."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Then:
        return cls(2021, 7, 5, 10, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("token", "url", "body", "valid"), [v[1:] for v in VECTORS], ids=[v[0] for v in VECTORS]
)
def test_the_published_examples_of_a_signature(
    monkeypatch: pytest.MonkeyPatch, token: str, url: str, body: bytes, valid: bool
) -> None:
    monkeypatch.setattr("jwt.api_jwt.datetime", Then)
    assert is_authentic(token, url, body, [OLD, VECTOR_KEY]) is valid
    assert not is_authentic(token, url, body, [OLD])


Get = Callable[..., int]


def receiving(**config: Any) -> tuple[Get, list[Any]]:
    """What sends a report with a token's claims and tells the answer's status."""
    client, heard = receiver(EXAMPLES, **config)
    query = f"?id=mb1&reference={REF}&status=sent&statusDatetime=2021-07-05T10%3A00%3A00%2B00%3A00"

    def get(headers: dict[str, str] | None = None, secret: str = SECRET, **claims: Any) -> int:
        headers = signed(REPORTS + query, b"", secret, **claims) if headers is None else headers
        path = f"/{PREFIX}/main/status{query}"
        return client.get(path, base_url="http://internal:8000", headers=headers).status_code

    return get, heard


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_algorithms(algorithm: str) -> None:
    token = signed(SITE, b"")["MessageBird-Signature-JWT"]
    claims = jwt.decode(token, options={"verify_signature": False})
    key = SECRET * 2
    assert is_authentic(jwt.encode(claims, key, algorithm), SITE, b"", [key])
    assert not is_authentic(jwt.encode(claims, key, algorithm), SITE, b"", [key + " "])


def test_secrets_rotate() -> None:
    get, heard = receiving(secret=[SECRET, OLD])
    assert [get(secret=SECRET), get(secret=OLD), get(secret=SECRET + OLD)] == [200, 200, 403]
    assert len(heard) == 2
    assert heard[0].rtime == VECTOR_TIME


def test_the_address_that_is_signed_without_a_public_url() -> None:
    gateway = Gateway(Settings(public_url="", receiver_prefix=(PREFIX,), eager=True))
    gateway.add_provider("main", MessageBirdProvider, access_key=KEY, secret=SECRET)
    client = client_of(gateway)
    path = f"/{PREFIX}/main/status?id=mb1&status=sent&statusDatetime=2021-07-05T10%3A00%3A00%2B00"
    for site in ("https://sms.example.org", "http://127.0.0.1:8000"):
        headers = signed(site + path, b"")
        assert client.get(path, base_url=site, headers=headers).status_code == 200
        assert client.get(path + "%20", base_url=site, headers=headers).status_code == 403
    headers = signed(f"https://sms.example.org/{PREFIX}/main/im", b"id=1&originator=2")
    form = {"data": b"id=1&originator=2", "content_type": "application/x-www-form-urlencoded"}
    site = "https://sms.example.org"
    assert webhook_status(client, "im", base_url=site, headers=headers, **form) == 200


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "Somebody"},
        {"iss": ...},
        {"nbf": ...},
        {"exp": ...},
        {"url_hash": ...},
        {"url_hash": 5},
        {"url_hash": sha256_hex(b"https://sms.example.org/")},
        {"exp": int(time.time()) - 60},
        {"nbf": int(time.time()) + 3600},
        {"payload_hash": sha256_hex(b"")},
    ],
    ids=["iss", "no iss", "no nbf", "no exp", "no url", "5", "url", "past", "future", "payload"],
)
def test_claims_that_are_refused(claims: dict[str, Any]) -> None:
    get, heard = receiving()
    assert get(**claims) == 403
    assert heard == []


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "e30.e30.", jwt.encode({}, "", "none")])
def test_what_is_no_token_is_refused(token: str) -> None:
    get, heard = receiving()
    assert get({"MessageBird-Signature-JWT": token}) == 403
    assert get({}) == 403
    assert heard == []


def test_the_deprecated_signature_is_refused_and_named(caplog: pytest.LogCaptureFixture) -> None:
    """It covers time, query and body, but not the address."""
    query, at = "id=mb1&status=delivered", str(int(time.time()))
    signed_part = f"{at}\n{query}\n".encode() + hashlib.sha256(b"").digest()
    signature = hmac_base64(SECRET, signed_part)
    old = {"MessageBird-Signature": signature, "MessageBird-Request-Timestamp": at}
    client, heard = receiver(EXAMPLES)
    assert webhook_status(client, f"status?{query}", "GET", headers=old) == 403
    assert heard == []
    assert "MessageBird-Signature-JWT is needed" in caplog.text
    assert "MessageBird-Request-Timestamp" in PAGE.read_text("utf-8")


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(SettingsError, match=r"smsqueue-gateway\[signatures\]"):
        receiving()
    get, heard = receiving(insecure=True)
    assert get({}) == 200
    assert len(heard) == 1


def test_a_webhook_that_was_not_recorded_is_to_be_repeated() -> None:
    client = client_of_failing_gateway(EXAMPLES, insecure=True)
    assert webhook_status(client, "status?id=mb1&status=sent", "GET") == 503


def test_odd_times_are_no_reason_to_refuse() -> None:
    client, heard = receiver(EXAMPLES, insecure=True)
    for text in ("yesterday", "2021-07-05T10:00:00"):
        form = MO | {"createdDatetime": text}
        assert webhook_status(client, "im", data=form) == 200
    assert heard[1].rtime == VECTOR_TIME
    assert heard[0].rtime.tzinfo is not None


def test_a_repeated_sending_is_the_same_request() -> None:
    first, second = (seen_by(EXAMPLES, message())[0].body for _ in range(2))
    assert first == second
