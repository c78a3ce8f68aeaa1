"""Plivo."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from flask import Flask

from smsqueue import Gateway, exc
from smsqueue.message.states import State
from smsqueue.providers.authentic import hmac_base64, seal
from smsqueue.providers.plivo import PlivoProvider
from smsqueue.settings import Settings
from smsqueue.testing.contract import PREFIX, PUBLIC_URL, Check, checks
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
from smsqueue.testing.webhook_checks import receiver
from tests.providers.helpers import (
    account,
    basic,
    client_of_failing_gateway,
    malformed,
    webhook_status,
)

ID, TOKEN, NONCE = "MA" + "0" * 18, "plivo-token", "12345"
PATH = f"/v1/Account/{ID}/Message/"
GOOD = Answer(202, {"message": "message(s) queued", "message_uuid": ["P1"], "api_id": "A1"})
#: As it stands in addresses.
SEALED = seal(REF, TOKEN, "main")
BASIC = basic(f"{ID}:{TOKEN}")


def signed(
    method: str, url: str, headers: dict[str, str], body: bytes, token: str = TOKEN
) -> dict[str, str]:
    """As Plivo describes version 3."""
    bare, _, query = url.partition("?")
    told = body.decode() if body.isascii() else ""  # others are escaped, or no form at all
    asked, form = (sorted(parse_qsl(text, keep_blank_values=True)) for text in (query, told))
    text = bare
    if asked or form:
        text += "?" + "&".join(f"{name}={value}" for name, value in asked)
    if asked and form:
        text += "."
    text += "".join(name + value for name, value in form)
    return headers | {
        "X-Plivo-Signature-V3": hmac_base64(token, f"{text}.{NONCE}".encode()),
        "X-Plivo-Signature-V3-Nonce": NONCE,
    }


def sign(method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
    return signed(method, url, headers, body)


hook = partial(Webhook, sign=sign)
bad = partial(malformed, sign=sign)


def signed_v2(
    url: str, token: str = TOKEN, main: bool = False, nonce: str = NONCE
) -> dict[str, str]:
    text = url.partition("?")[0] + nonce
    return {
        f"X-Plivo-Signature-{'Ma-' if main else ''}V2": hmac_base64(token, text.encode()),
        "X-Plivo-Signature-V2-Nonce": nonce,
    }


def refused(
    status: int, error: type[exc.ProviderError], text: Any = "no", *, ambiguous: bool = False
) -> Refusal:
    answer = Answer(status, {"api_id": "A1", "error": text})
    return Refusal(f"{status} {text}", answer, error, ambiguous=ambiguous)


def status(word: str, state: State | None, code: str = "", method: str = "POST") -> Webhook:
    form = {"MessageUUID": "P1", "Status": word, "To": "15551234567", "ErrorCode": code}
    return hook(
        f"status {word} {code} {method}",
        f"/status?ref={SEALED}",
        [Reported(state, "P1", REF, code or None, word)],
        method=method,
        form=form | {"Units": "1", "ParentMessageUUID": "P1", "SomethingNew": ["b", "a"]},
    )


INBOUND = {
    "MessageUUID": "P9",
    "From": "15551234567",
    "To": "15550009999",
    "Text": "hi there & more",
    "Type": "sms",
}

sends = partial(Sending, answer=GOOD, msgid="P1", path=PATH)

EXAMPLES = Examples(
    provider=PlivoProvider,
    config={"auth_id": ID, "auth_token": TOKEN, "sender": "+15550009999"},
    good=GOOD,
    secrets=[TOKEN],
    secret="auth_token",
    sendings=[
        sends(
            "a text",
            message(),
            json={"dst": "15551234567", "src": "15550009999", "text": "hello", "type": "sms"},
            headers=BASIC,
        ),
        sends(
            "report, validity, sender id",
            message(status_report=True, expires=5, senderId="Shop"),
            json={
                "dst": "15551234567",
                "src": "Shop",
                "text": "hello",
                "type": "sms",
                "message_expiry": 300,
                "url": f"{PUBLIC_URL}/{PREFIX}/main/status?ref={SEALED}",
                "method": "POST",
            },
        ),
        sends(
            "a number as people write it, a validity of a moment",
            message(src="+1 (555) 000-9999", expires=0.01),
            json={
                "dst": "15551234567",
                "src": "15550009999",
                "text": "hello",
                "type": "sms",
                "message_expiry": 5,
            },
        ),
        sends(
            "a short code",
            message(src="12345"),
            json={"dst": "15551234567", "src": "12345", "text": "hello", "type": "sms"},
        ),
        sends(
            "powerpack, parameter, a long validity, an id that is no list",
            message(expires=1000, params={"log": False}),
            answer=Answer(202, {"message_uuid": "P2"}),
            msgid="P2",
            json={
                "dst": "15551234567",
                "powerpack_uuid": "PP",
                "text": "hello",
                "type": "sms",
                "message_expiry": 10799,
                "log": False,
            },
            config={"sender": None, "powerpack": "PP"},
        ),
    ],
    refusals=[
        refused(400, exc.RequestError),
        refused(400, exc.RequestError, {"dst": "is invalid"}),
        refused(400, exc.CreditError, "Insufficient credit in your account"),
        refused(402, exc.CreditError),
        refused(403, exc.UnsupportedError, "SMS to this country is not enabled"),
        refused(403, exc.CreditError, {"reason": "not enough credits"}),
        refused(404, exc.RequestError),
        refused(405, exc.RequestError),
        refused(409, exc.RequestError),
        refused(422, exc.RequestError),
        refused(429, exc.LimitsError),
        refused(500, exc.ServerError, ambiguous=True),
        refused(503, exc.ServerError),
        refused(504, exc.ServerError, ambiguous=True),
        Refusal("401", Answer(401, "no"), exc.AuthError),
        Refusal("403 of somebody else", Answer(403, "<html>"), exc.AuthError),
        Refusal("no id", Answer(202, {"message_uuid": []}), exc.RequestError),
        Refusal("an empty id", Answer(202, {"message_uuid": ""}), exc.RequestError),
        Refusal(
            "a list of nothing", Answer(202, {"message_uuid": [""]}), exc.ServerError, None, True
        ),
        Refusal("202 with an error", Answer(202, {"error": "no"}), exc.RequestError),
        Refusal(
            "202 without credit",
            Answer(202, {"api_id": "A1", "error": "insufficient credit"}),
            exc.CreditError,
        ),
        Refusal("503 without api_id", Answer(503, {"error": "no"}), exc.ServerError, None, True),
        Refusal("403 of a gateway", Answer(403, {"error": "Forbidden"}), exc.AuthError),
    ],
    webhooks=[
        hook(
            "incoming",
            "/im",
            [Received("15551234567", "hi there & more", "15550009999", "P9")],
            form=INBOUND,
            answer=b"",
        ),
        hook(
            "incoming in the query",
            "/im",
            [Received("15551234567", "hi there & more", "15550009999", "P9")],
            method="GET",
            form=INBOUND,
        ),
        status("queued", State.ACCEPTED),
        status("sent", State.ACCEPTED, "000"),
        status("delivered", State.DELIVERED, "000"),
        status("delivered", State.DELIVERED, method="GET"),
        status("read", State.DELIVERED),
        status("undelivered", State.UNDELIVERED, "30"),
        status("failed", State.UNDELIVERED, "900"),
        status("rejected", State.UNDELIVERED, "200"),
        status("undelivered", State.EXPIRED, "420"),
        status("delivered", State.DELIVERED, "420"),
        status("never-heard-of", None),
    ],
    refused=[
        bad("no From", "/im", form={"MessageUUID": "P9"}),
        bad("no Status", "/status", form={"MessageUUID": "P1"}),
        bad("nothing", "/status"),
    ],
)


@pytest.mark.parametrize("check", checks(EXAMPLES), ids=str)
def test_contract(check: Check) -> None:
    check()


def test_the_balance() -> None:
    answers = [Answer(200, {"cash_credits": "4.88860", "auth_id": ID})]
    with account(EXAMPLES, *answers) as (provider, stub):
        balance = provider.balance()
    assert (str(balance.amount), balance.currency) == ("4.88860", None)
    assert (stub.seen[0].path, stub.seen[0].headers["Authorization"]) == (
        f"/v1/Account/{ID}/",
        BASIC["Authorization"],
    )


# --- signatures ---------------------------------------------------------------------------------

FORM = {"MessageUUID": "P1", "Status": "delivered"}
STATUS = f"{PUBLIC_URL}/{PREFIX}/main/status?ref={SEALED}"


def post(
    headers: dict[str, str], form: dict[str, str] = FORM, url: str = STATUS, **config: Any
) -> tuple[int, list[Any]]:
    client, heard = receiver(EXAMPLES, **config)
    target = urlsplit(url)._replace(scheme="", netloc="").geturl()
    return client.post(target, data=form, headers=headers).status_code, heard


def v3(form: dict[str, str] = FORM, url: str = STATUS, token: str = TOKEN) -> dict[str, str]:
    return signed("POST", url, {}, urlencode(form).encode(), token)


def test_the_published_example_of_version_2() -> None:
    """The one in the tests of Plivo's Python SDK."""
    assert signed_v2("https://answer.url", "my_auth_token")["X-Plivo-Signature-V2"] == (
        "ehV3IKhLysWBxC1sy8INm0qGoQYdYsHwuoKjsX7FsXc="
    )


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_a_captured_signature_is_invalid_for_another_method(method: str) -> None:
    """Of a GET only the query is signed, and Flask would answer HEAD with the same view."""
    client, heard = receiver(EXAMPLES)
    url = f"{PUBLIC_URL}/{PREFIX}/main/status?{urlencode(FORM)}"
    headers = signed("GET", url, {}, b"")
    target = urlsplit(url)._replace(scheme="", netloc="").geturl()
    assert client.get(target, headers=headers).status_code == 200
    assert heard.pop().msgid == "P1"
    forged = {"MessageUUID": "P2", "Status": "failed"}
    for address in (target, target.partition("?")[0]):
        answer = client.open(address, method=method, headers=headers, data=forged)
        wanted = (400 if "?" in address else 403) if method == "GET" else 405
        assert answer.status_code == wanted
        assert heard == []


def test_no_field_moves_over_the_border_between_query_and_form() -> None:
    """Both are signed as one text, and whoever sends an SMS writes a part of it."""
    client, heard = receiver(EXAMPLES)
    text = "x.From15550001111MessageUUIDP3TextpayTo15550009999Zz"
    told = {"From": "15551234567", "MessageUUID": "P9", "Text": text, "To": "15550009999"}
    headers = signed("GET", f"{PUBLIC_URL}/{PREFIX}/main/im?{urlencode(told)}", {}, b"")
    query = {"From": "15551234567", "MessageUUID": "P9", "Text": "x"}
    form = {"From": "15550001111", "MessageUUID": "P3", "Text": "pay", "To": "15550009999"}
    form["Zz"] = "&To=15550009999"
    answer = client.post(f"/{PREFIX}/main/im?{urlencode(query)}", headers=headers, data=form)
    assert (answer.status_code, heard) == (400, [])


#: Made with Plivo's Python SDK: method, address, form, signature.
MADE = [
    (
        "POST",
        "https://answer.url/x?q=1",
        {"To": "14150000002", "From": "14150000001", "MessageUUID": "u", "Text": "hi there"},
        "SHeKnpm3PdCyQ795e1ZJfcECv71pU387RDW5qPWKWh8=",
    ),
    (
        "POST",
        "https://answer.url/x",
        {"To": "14150000002", "From": "14150000001", "Text": "grüße & co"},
        "oCk5+1YUous6C/LioXLx7q/NYjHMdpxQUxQyPNniU5Q=",
    ),
    (
        "POST",
        "https://answer.url/x?b=2&a=1&a=0",
        {"Z": ["b", "a"], "A": ""},
        "1SzUQ+rSp0lzd0bOABZGYqPLL4tlNCtcDNxSwpmNkH4=",
    ),
    (
        "GET",
        "https://answer.url/x?To=2&From=1&Text=a%20b%26c",
        {},
        "Wszlm66d9GwPIkkUaU4A2IsxJTceQoyB0WuzoBHCN0g=",
    ),
    ("POST", "https://answer.url/x", {}, "l/m/aAl42odhVVQZwJ971QVpS7siLElyi8TkDS7bbyU="),
    ("POST", "https://answer.url/x?q=1", {}, "wQyixDvCeBKgwh/9CjJcAKJ/G6sSKfUmmRfBOuuZgXk="),
]


@pytest.mark.parametrize(("method", "url", "form", "signature"), MADE)
def test_examples_of_version_3(method: str, url: str, form: dict[str, Any], signature: str) -> None:
    body = urlencode(form, doseq=True).encode()
    headers = signed(method, url, {}, body, "my_auth_token")
    assert headers["X-Plivo-Signature-V3"] == signature


#: The same for addresses of ours.
OURS = [
    (
        "POST",
        "/im",
        {
            "To": "15550009999",
            "From": "15551234567",
            "MessageUUID": "P9",
            "Text": "grüße & co?=+ \N{GRINNING FACE}",
            "Type": "sms",
        },
        "/7N92NZ+SxxwAo36aqxiqs+mjfZZnQuuhEK18NDytJA=",
    ),
    (
        "POST",
        "/status?b=2&a=1&a=0",
        {"MessageUUID": "P1", "Status": "delivered", "X": ["b", "a"], "ErrorCode": ""},
        "epnPd5LtvnJJXjYJKduhrIW8LYzcJWVOfrWDvKA7v1Q=",
    ),
    (
        "GET",
        "/im?To=15550009999&From=15551234567&MessageUUID=P9&Text=a%20b%26c%2B",
        {},
        "hgENUTUvUe/2B4IQVK/bNKjQXD5OAxIYtlmk+hvoqdM=",
    ),
]


@pytest.mark.parametrize(("method", "path", "form", "signature"), OURS)
def test_what_plivos_sdk_signs_is_taken(
    method: str, path: str, form: dict[str, Any], signature: str
) -> None:
    client, heard = receiver(EXAMPLES)
    headers = {"X-Plivo-Signature-V3": signature, "X-Plivo-Signature-V3-Nonce": NONCE}
    fields = {"data": form} if form else {}

    def status(headers: dict[str, str]) -> int:
        url = f"/{PREFIX}/main{path}"
        return client.open(url, method=method, headers=headers, **fields).status_code

    assert status(headers) == 200
    assert status(headers | {"X-Plivo-Signature-V3-Nonce": "1"}) == 403
    assert len(heard) == 1
    if "Text" in form:
        assert heard[0].body == form["Text"]


def test_version_2() -> None:
    assert post(signed_v2(STATUS))[0] == 200
    assert post(signed_v2(STATUS, main=True))[0] == 200
    assert post(signed_v2(STATUS, "another")) == (403, [])
    assert post(signed_v2(STATUS.replace("status", "im"))) == (403, [])
    assert post(signed_v2(STATUS) | {"X-Plivo-Signature-V2-Nonce": "1"}) == (403, [])
    several = signed_v2(STATUS)["X-Plivo-Signature-V2"]
    headers = signed_v2(STATUS) | {"X-Plivo-Signature-V2": f"{'A' * 43}=, {several}"}
    assert post(headers)[0] == 200


def test_there_must_be_a_signature() -> None:
    nonce = {"X-Plivo-Signature-V2-Nonce": NONCE, "X-Plivo-Signature-V3-Nonce": NONCE}
    for headers in ({}, nonce, nonce | {"X-Plivo-Signature-V2": ""}):
        assert post(headers) == (403, [])
    assert post({"X-Plivo-Signature": signed_v2(STATUS)["X-Plivo-Signature-V2"]} | nonce)[0] == 403


def test_version_2_can_be_refused() -> None:
    """It signs no fields: who has seen one webhook could write any other."""
    assert post(signed_v2(STATUS), v2=False) == (403, [])
    assert post(v3(), v2=False)[0] == 200


def test_version_2_does_not_help_a_wrong_version_3() -> None:
    wrong = v3(token="another")
    assert post(signed_v2(STATUS) | wrong) == (403, [])
    tampered = FORM | {"Status": "failed"}
    assert post(signed_v2(STATUS) | v3(), tampered) == (403, [])


def test_version_2_does_not_move_a_report_to_another_message() -> None:
    """It does not sign the query."""
    moved = "1m842psghd5k1m5599r6.2"
    for ref, counts in (
        (moved, None),
        (f"{moved}&ref={SEALED}", None),
        (f"{SEALED}&ref={moved}", REF),
    ):
        answered, heard = post(signed_v2(STATUS), url=STATUS.replace(SEALED, ref))
        assert answered == 200
        assert [(each.msgid, each.reference) for each in heard] == [("P1", counts)]


def test_details_are_kept_without_numbers() -> None:
    form = FORM | {"PartInfo": "1 of 2", "TotalAmount": "0.1", "MCC": "310", "To": "15551234567"}
    _, [report] = post(v3(form), form)
    assert report.meta == {"PartInfo": "1 of 2", "TotalAmount": "0.1", "MCC": "310"}


def test_several_signatures_in_one_header_and_the_main_accounts() -> None:
    good = v3()
    value = good.pop("X-Plivo-Signature-V3")
    other = "A" * 43 + "="
    assert post(good | {"X-Plivo-Signature-V3": f"{other},{value}"})[0] == 200
    assert post(good | {"X-Plivo-Signature-V3": f"{other}, {value}"})[0] == 200
    assert post(good | {"X-Plivo-Signature-V3": other, "X-Plivo-Signature-MA-V3": value})[0] == 200
    assert post(good | {"X-Plivo-Signature-V3": other}) == (403, [])
    assert post(good | {"X-Plivo-Signature-V3": ","}) == (403, [])
    assert post(good | {"X-Plivo-Signature-V3": "żółć".encode().decode("latin-1")}) == (403, [])


def test_the_nonce_is_signed_too() -> None:
    assert post(v3() | {"X-Plivo-Signature-V3-Nonce": "1"}) == (403, [])


def test_the_query_is_signed_too() -> None:
    assert post(v3(), url=STATUS.replace(SEALED, "1m842psghd5k1m5599r6.2")) == (403, [])


def test_fields_in_the_query_of_a_post_are_not_the_messages() -> None:
    url = f"{STATUS}&Status=failed"
    answered, heard = post(v3(url=url), url=url)
    assert (answered, [each.status for each in heard]) == (200, ["delivered"])


def test_tokens_rotate() -> None:
    assert post(v3(), auth_token=["new", TOKEN])[0] == 200
    assert post(v3(token="new"), auth_token=["new", TOKEN])[0] == 200
    assert post(v3(), auth_token=["new"]) == (403, [])
    assert post(signed_v2(STATUS, "new"), auth_token=["new", TOKEN])[0] == 200
    with account(EXAMPLES, GOOD, auth_token=["new", TOKEN]) as (provider, stub):
        provider.send(message())
    assert stub.seen[0].headers["Authorization"] == basic(f"{ID}:new")["Authorization"]


def test_without_a_public_url_the_url_of_the_request_is_used() -> None:
    gateway = Gateway(Settings(receiver_prefix=(PREFIX,), eager=True))
    gateway.add_provider("main", PlivoProvider, auth_id=ID, auth_token=TOKEN)
    app = gateway.receiver_blueprints_register(Flask("plivo"), PREFIX)
    path = f"/{PREFIX}/main/status?ref={SEALED}"
    for url, status in ((f"http://localhost{path}", 200), (f"https://localhost{path}", 403)):
        answer = app.test_client().post(path, data=FORM, headers=v3(url=url))
        assert answer.status_code == status


def test_a_report_that_is_not_recorded_is_answered_503() -> None:
    client = client_of_failing_gateway(EXAMPLES)
    assert webhook_status(client, f"status?ref={SEALED}", data=FORM, headers=v3()) == 503
