"""Twilio."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64encode
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from smsqueue import Gateway, Settings, exc
from smsqueue.message.states import State
from smsqueue.providers.twilio import TwilioProvider, signature
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
from smsqueue.testing.stub import Answer
from smsqueue.testing.webhook_checks import client_of, receiver
from tests.providers.helpers import account, basic, malformed, refuses_without_sender, same

SID, TOKEN = "AC" + "0" * 32, "twilio-token"
SM1, SM9 = "SM" + "1" * 32, "SM" + "9" * 32
PATH = f"/2010-04-01/Accounts/{SID}/Messages.json"
GOOD = Answer(201, {"sid": SM1, "status": "queued", "num_segments": "1", "price": None})


def sign(method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
    return headers | {"X-Twilio-Signature": signed(url, body)}


hook = partial(Webhook, sign=sign)
bad = partial(malformed, sign=sign)


def signed(url: str, body: bytes, key: str = TOKEN, digest: str = "sha1") -> str:
    """As Twilio describes it, with nothing but HMAC."""
    told = body.decode() if body.isascii() else ""  # others are escaped, or no form at all
    pairs = sorted(set(parse_qsl(told, keep_blank_values=True)))
    text = url + "".join(name + value for name, value in pairs)
    return b64encode(hmac.new(key.encode(), text.encode(), digest).digest()).decode()


def refused(code: int, status: int, error: type[exc.ProviderError]) -> Refusal:
    answer = Answer(status, {"code": code, "message": "no", "status": status})
    return Refusal(f"{code}, {status}", answer, error, code=code)


def status(word: str, state: State | None, **more: Any) -> Webhook:
    form = {
        "AccountSid": SID,
        "MessageSid": SM1,
        "MessageStatus": word,
        "To": "+15551234567",
    } | more
    code = more.get("ErrorCode")
    return hook(
        f"status {word} {code or ''}",
        f"/status?ref={REF}",
        [Reported(state, SM1, REF, code, word)],
        form=form,
        status=204,
    )


RECIPIENT = [21211, 21214, 21217, 21219, 21608, 21265, 21266, 21604, 21614, 21635]
SENDER = [21212, 21603, 21606, 21616, 21659, 21660, 21701, 21705, 21709]
CONTENT = [20001, 20422, 21601, 21602, 21605, 21609, 21617, 21618, 21619, 21620, 21623, 21624]
CONTENT += [21656, 35111, 35114, 35118, 20404]


INCOMING = {
    "AccountSid": SID,
    "MessageSid": SM9,
    "From": "+15551234567",
    "To": "+15550009999",
    "Body": "hi there",
}
REPORT = {"AccountSid": SID, "MessageSid": SM1, "MessageStatus": "delivered", "To": "+15551234567"}

sends = partial(Sending, answer=GOOD, msgid=SM1, path=PATH)

EXAMPLES = Examples(
    provider=TwilioProvider,
    config={"account_sid": SID, "auth_token": TOKEN, "sender": "15550009999"},
    good=GOOD,
    secrets=[TOKEN],
    secret="auth_token",
    config_without_secret={"api_key": ("SK1", "its-secret")},
    sendings=[
        sends(
            "a text",
            message(),
            form={"To": "+15551234567", "From": "+15550009999", "Body": "hello"},
            headers=basic(f"{SID}:{TOKEN}"),
        ),
        sends(
            "report, validity, sender id",
            message(status_report=True, expires=5, senderId="Shop"),
            form={
                "To": "+15551234567",
                "From": "Shop",
                "Body": "hello",
                "ValidityPeriod": "300",
                "StatusCallback": f"{PUBLIC_URL}/{PREFIX}/main/status?ref={REF}#rc=3&rp=all",
            },
        ),
        sends(
            "messaging service, parameter",
            message(params={"SmartEncoded": "true"}),
            form={
                "To": "+15551234567",
                "MessagingServiceSid": "MG1",
                "Body": "hello",
                "SmartEncoded": "true",
            },
            config={"sender": None, "service": "MG1"},
        ),
        sends(
            "parameters as Twilio writes them",
            message(
                senderId="My Shop",
                params={"SmartEncoded": True, "ProvideFeedback": False, "SendAt": None}
                | {
                    "To": "+1",
                    "MediaUrl": ["https://a.example/1", "https://a.example/2"],
                    "Attempt": 2,
                },
            ),
            check=lambda seen: same(
                parse_qsl(seen.body.decode()),
                [
                    ("Body", "hello"),
                    ("From", "My Shop"),
                    ("SmartEncoded", "true"),
                    ("ProvideFeedback", "false"),
                    ("MediaUrl", "https://a.example/1"),
                    ("MediaUrl", "https://a.example/2"),
                    ("Attempt", "2"),
                    ("To", "+15551234567"),
                ],
            ),
        ),
        sends(
            "a service in the parameters, the longest validity",
            message(expires=100_000, params={"MessagingServiceSid": "MG2"}),
            form={"To": "+15551234567", "Body": "hello", "MessagingServiceSid": "MG2"}
            | {"ValidityPeriod": "36000"},
            config={"sender": None},
        ),
        sends(
            "how reports are repeated can be set",
            message(status_report=True),
            form={"To": "+15551234567", "Body": "hello", "From": "+15550009999"}
            | {"StatusCallback": f"{PUBLIC_URL}/{PREFIX}/main/status?ref={REF}"},
            config={"repeat": ""},
        ),
    ],
    refusals=[
        *(refused(code, 403, exc.AuthError) for code in (20003, 20006, 20008, 20403, 10002)),
        *(refused(code, 403, exc.AuthError) for code in range(20101, 20108)),
        *(refused(code, 403, exc.CreditError) for code in (10001, 20005)),
        *(refused(code, 429, exc.LimitsError) for code in (20429, 14107, 21611)),
        *(refused(code, 400, exc.LimitsError) for code in (63018, 63038, 35125)),
        *(refused(code, 500, exc.ServerError) for code in (20500, 20501, 20503, 20504)),
        *(refused(code, 403, exc.UnsupportedError) for code in (21407, 21408, 21612, 21621)),
        *(refused(code, 400, exc.UnsupportedError) for code in (21622, 21703, 21704, 30011)),
        *(refused(code, 400, exc.RequestError) for code in RECIPIENT + SENDER + CONTENT),
        refused(99999, 400, exc.RequestError),
        refused(21610, 400, exc.OptedOut),
        refused(99999, 429, exc.LimitsError),
        refused(99999, 503, exc.ServerError),
        Refusal("401 without a code", Answer(401, ""), exc.AuthError),
        refused(20005, 200, exc.CreditError),
        Refusal(
            "201, failed at once",
            Answer(201, {"sid": SM1, "status": "failed", "error_code": 21610}),
            exc.OptedOut,
            code=21610,
        ),
        Refusal("201 without a sid", Answer(201, {}), exc.ServerError, ambiguous=True),
    ],
    webhooks=[
        hook(
            "incoming",
            "/im",
            [Received("15551234567", "hi there", "15550009999", SM9)],
            form=INCOMING | {"NumMedia": "0", "SomethingNew": ["b", "a", "a"]},
            answer=b"<Response/>",
        ),
        hook(
            "incoming, GET, a picture",
            "/im",
            [Received("15551234567", "", "15550009999", SM9)],
            "GET",
            form=INCOMING | {"Body": "", "MediaUrl0": "https://a.example/1"},
            answer=b"<Response/>",
        ),
        *(status(word, State.ACCEPTED) for word in ("queued", "sending", "sent", "accepted")),
        *(status(word, State.ACCEPTED) for word in ("scheduled", "partially_delivered")),
        *(status(word, State.DELIVERED) for word in ("delivered", "read")),
        status("delivered", State.DELIVERED, ErrorCode="30036"),
        status("undelivered", State.EXPIRED, ErrorCode="30036"),
        hook(
            "status of one that came in",
            "/status",
            [],
            form=REPORT | {"MessageStatus": "received"},
            status=204,
        ),
        status("undelivered", State.UNDELIVERED, ErrorCode="30003"),
        status("failed", State.EXPIRED, ErrorCode="30036"),
        status("canceled", State.UNDELIVERED),
        status("never-heard-of", None),
    ],
    refused=[
        bad("no From", "/im", form=INCOMING | {"From": ""}),
        bad("no id", "/im", form=INCOMING | {"MessageSid": ""}),
        bad("a report at the address of messages", "/im", form=INCOMING | REPORT),
        bad("two senders", "/im", form=INCOMING | {"From": ["+15551234567", "+15551234568"]}),
        bad("two texts", "/im", form=INCOMING | {"Body": ["a", "b"]}),
        bad("no status", "/status", form={"AccountSid": SID, "MessageSid": SM1}),
        bad("two states", "/status", form=REPORT | {"MessageStatus": ["delivered", "failed"]}),
        bad("a message at the address of reports", "/status", form=INCOMING),
    ],
)


@pytest.mark.parametrize("check", checks(EXAMPLES), ids=str)
def test_contract(check: Check) -> None:
    check()


def test_the_balance() -> None:
    with account(EXAMPLES, Answer(200, {"balance": "12.50", "currency": "USD"})) as (provider, _):
        balance = provider.balance()
    assert (str(balance.amount), balance.currency) == ("12.50", "USD")


def test_a_message_without_any_sender_is_unsupported() -> None:
    assert refuses_without_sender(EXAMPLES)


# --- Signatures ------------------------------------------------------------------------------


def test_the_published_example_of_a_signature() -> None:
    """Twilio's own: a call's webhook with five parameters."""
    form = {"CallSid": ["CA1234567890ABCDE"], "Caller": ["+14158675309"], "Digits": ["1234"]}
    form |= {"From": ["+14158675309"], "To": ["+18005551212"]}
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    assert signature(url, form, "12345") == "RSOYDt4T1cUTdK1PDd93/VVr8B8="


def post(
    url: str = f"{PUBLIC_URL}/{PREFIX}/main/im",
    headers: dict[str, str] | None = None,
    body: bytes = urlencode(INCOMING).encode(),
    public_url: str = PUBLIC_URL,
    kind: str = "application/x-www-form-urlencoded",
    **config: Any,
) -> tuple[int, int]:
    """The answer to a webhook that is signed for ``url``, and the number of its events."""
    gateway = Gateway(Settings(public_url=public_url, receiver_prefix=(PREFIX,)), eager=True)
    gateway.add_provider("main", TwilioProvider, **dict(EXAMPLES.config) | config)
    heard: list[Any] = []
    gateway.onReceive += heard.append
    client = client_of(gateway)
    given = {"Content-Type": kind, "X-Twilio-Signature": signed(url, body)} | (headers or {})
    path = f"/{PREFIX}/main/im" + ("?" + url.partition("?")[2] if "?" in url else "")
    answer = client.post(path, data=body, headers=given)
    return answer.status_code, len(heard)


@pytest.mark.parametrize(
    ("public", "signs", "taken"),
    [
        ("https://a.example", "https://a.example", True),
        ("https://a.example", "https://a.example:443", True),
        ("https://a.example:443", "https://a.example", True),
        ("http://a.example", "http://a.example:80", True),
        ("https://a.example:8443", "https://a.example:8443", True),
        ("https://a.example:8443", "https://a.example", True),
        ("https://a.example:8443", "https://a.example:443", False),
        ("https://a.example", "https://a.example:80", False),
        ("https://a.example", "http://a.example", False),
        ("https://a.example", "https://b.example", False),
        ("https://[::1]:8443", "https://[::1]", True),
    ],
)
def test_the_address_is_signed_with_its_port_or_without(
    public: str, signs: str, taken: bool
) -> None:
    url = f"{signs}/{PREFIX}/main/im"
    assert post(url, public_url=public) == ((200, 1) if taken else (403, 0))


SETTINGS = "X-Twilio-Webhooks-Signature-Settings"
URL = f"{PUBLIC_URL}/{PREFIX}/main/im"
BODY = urlencode(INCOMING).encode()


@pytest.mark.parametrize(
    ("named", "digest", "key", "taken"),
    [
        ("key=webhooks_sharedkey_1,algorithm=HMAC_SHA256", "sha256", "shared", True),
        ("key=webhooks_sharedkey_0, algorithm=HMAC_SHA256", "sha256", "older", True),
        ("algorithm=hmac_sha1,key=webhooks_sharedkey_1", "sha1", "shared", True),
        ("key=webhooks_sharedkey_1", "sha1", "shared", True),
        # The header itself is not signed. It cannot make another key or algorithm do.
        ("key=webhooks_sharedkey_1,algorithm=HMAC_SHA256", "sha1", "shared", False),
        ("key=webhooks_sharedkey_1,algorithm=HMAC_SHA1", "sha1", TOKEN, False),
        ("key=webhooks_sharedkey_1,algorithm=HMAC_SHA256", "sha256", TOKEN, False),
        ("key=webhooks_sharedkey_1,algorithm=HMAC_MD5", "md5", "shared", False),
        ("algorithm=", "sha1", "shared", False),
        ("", "sha256", "shared", False),
        ("", "sha1", "shared", False),
        ("", "sha1", TOKEN, True),
        ("rubbish", "sha1", "other", False),
    ],
)
def test_a_webhook_that_a_shared_key_signs(named: str, digest: str, key: str, taken: bool) -> None:
    headers = {SETTINGS: named, "X-Twilio-Signature": signed(URL, BODY, key, digest)}
    found = post(headers=headers, shared_key=["shared", "older"])
    assert found == ((200, 1) if taken else (403, 0))


def test_without_the_shared_key_what_it_signs_is_refused() -> None:
    for key in (TOKEN, ""):
        headers = {SETTINGS: "key=k,algorithm=HMAC_SHA256"}
        headers["X-Twilio-Signature"] = signed(URL, BODY, key, "sha256")
        assert post(headers=headers) == (403, 0)


def test_a_shared_key_does_without_the_token() -> None:
    config: dict[str, Any] = {
        "auth_token": None,
        "api_key": ("SK1", "its-secret"),
        "shared_key": "shared",
    }
    headers = {SETTINGS: "key=k,algorithm=HMAC_SHA256"}
    headers["X-Twilio-Signature"] = signed(URL, BODY, "shared", "sha256")
    assert post(headers=headers, **config) == (200, 1)
    assert post(headers={"X-Twilio-Signature": signed(URL, BODY, "")}, **config) == (403, 0)


def test_while_the_token_rotates_both_verify() -> None:
    for key, taken in (("new", True), ("old", True), ("older", False)):
        headers = {"X-Twilio-Signature": signed(URL, BODY, key)}
        found = post(headers=headers, auth_token=["new", "old"])
        assert found == ((200, 1) if taken else (403, 0))


def test_a_body_that_is_no_form_is_signed_by_its_hash() -> None:
    body = json.dumps(INCOMING).encode()
    for told, status in ((hashlib.sha256(body).hexdigest(), 400), ("0" * 64, 403), ("", 403)):
        url = f"{URL}?bodySHA256={told}"
        headers = {"X-Twilio-Signature": signed(url, b"")}
        # It is genuine; but Twilio's messages are forms.
        assert post(url, headers, body, kind="application/json") == (status, 0)


def test_a_body_hash_added_to_a_form_is_refused() -> None:
    other = BODY.replace(b"hi", b"ho")
    url = f"{URL}?bodySHA256={hashlib.sha256(other).hexdigest()}"
    for given in (signed(URL, BODY), signed(url, BODY), signed(URL, b"")):
        assert post(url, {"X-Twilio-Signature": given}, other) == (403, 0)


def test_meta_of_reports_and_messages() -> None:
    client, heard = receiver(EXAMPLES, insecure=True)
    client.post(f"/{PREFIX}/main/im", data=INCOMING | {"OptOutType": "STOP"})
    client.post(f"/{PREFIX}/main/status", data=REPORT | {"RawDlrDoneDate": "2601020304"})
    assert heard[0].meta == {"OptOutType": "STOP"}
    assert heard[1].meta == {"RawDlrDoneDate": "2601020304"}


def test_a_webhook_that_is_sent_again_counts_once(settings: Settings) -> None:
    """Also if somebody writes its fields in another order, which is signed the same."""
    with Gateway(settings) as gateway:
        gateway.add_provider("main", TwilioProvider, **EXAMPLES.config)
        client = client_of(gateway)
        url = f"http://localhost/{PREFIX}/main"
        for path, form in (("im", INCOMING), (f"status?ref={REF}", REPORT)):
            for pairs in (list(form.items()), list(form.items()), list(form.items())[::-1]):
                body = urlencode(pairs).encode()
                headers = {"X-Twilio-Signature": signed(f"{url}/{path}", body)}
                found = client.post(f"/{PREFIX}/main/{path}", data=dict(pairs), headers=headers)
                assert found.status_code < 300
        events = gateway.ledger.redis.zcard(f"{settings.namespace}:due:hook")
        assert events == 2


def divided(form: dict[str, str], limit: int = 40) -> list[dict[str, str]]:
    """Other forms that have the signature of this one, in which a border was moved."""
    text = "".join(name + form[name] for name in sorted(form))
    found = []
    for moved in sorted(form):
        before = "".join(n + form[n] for n in sorted(form) if n < moved)
        rest = text[len(before) + len(moved) :]
        later = [n for n in sorted(form) if n > moved]
        for n in range(len(later) + 1):  # it swallows n of the fields behind it
            end = rest.index(later[n]) if n < len(later) else len(rest)
            other = {k: form[k] for k in form if k < moved} | {moved: rest[:end]}
            found.append(other | {k: form[k] for k in later[n:]})
        for at in range(1, min(len(form[moved]), limit)):  # a name of its own for its end
            other = form | {moved: form[moved][:at]}
            names = [form[moved][at : at + size] for size in (1, 2, 5)]
            found += [other | {name: form[moved][at + len(name) :]} for name in names if name]
    signature_ = signed(URL, urlencode(form).encode())
    return [f for f in found if f != form and signed(URL, urlencode(f).encode()) == signature_]


GENUINE = INCOMING | {"NumMedia": "0", "SmsSid": SM9, "ApiVersion": "2010-04-01"}
GENUINE |= {"FromCity": "NYC", "FromZip": "10001", "ToCity": "TORONTO", "NumSegments": "1"}
GENUINE |= {"Body": "pay BobFrom+15550001111FromCity"}


def test_another_division_of_what_was_signed_is_no_other_message() -> None:
    """Names and values are signed without anything between them."""
    variants = divided(GENUINE)
    swallowed = GENUINE | {"Body": "pay Bob", "From": "+15550001111"}
    swallowed["FromCity"] = "From+15551234567FromCityNYC"
    variants += [swallowed, {k: v for k, v in GENUINE.items() if k != "NumMedia"}]
    variants[-1]["MessageSid"] = SM9 + "NumMedia0"
    headers = {"X-Twilio-Signature": signed(URL, urlencode(GENUINE).encode())}
    assert len(variants) > 50
    client, heard = receiver(EXAMPLES)
    path = f"/{PREFIX}/main/im"
    assert client.post(path, data=GENUINE, headers=headers).status_code == 200
    for each in variants:
        assert client.post(path, data=each, headers=headers).status_code in (400, 403)
    assert client.post(path, data=GENUINE, headers=headers).status_code == 200  # repeated
    assert [(m.src, m.body, m.msgid) for m in heard] == [("15551234567", GENUINE["Body"], SM9)]


def test_the_sender_and_the_id_cannot_be_changed_even_before_the_genuine_webhook_came() -> None:
    headers = {"X-Twilio-Signature": signed(URL, urlencode(GENUINE).encode())}
    for each in divided(GENUINE):
        client, heard = receiver(EXAMPLES)
        client.post(f"/{PREFIX}/main/im", data=each, headers=headers)
        for message_ in heard:
            assert (message_.src, message_.msgid) == ("15551234567", SM9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"AccountSid": "AC" + "1" * 32},
        {"AccountSid": ""},
        {"MessageSid": "SM9"},
        {"MessageSid": SM9 + "0"},
        {"NumMedia": "1e3"},
        {"From": "+15551234567FromCityNYC"},
        {"To": "\x00"},
    ],
)
def test_fields_are_as_twilio_writes_them_and_of_our_account(wrong: dict[str, str]) -> None:
    body = urlencode(INCOMING | wrong).encode()
    code, heard = post(URL, {"X-Twilio-Signature": signed(URL, body)}, body)
    assert (code in (400, 403), heard) == (True, 0)


def test_a_webhook_that_was_not_recorded_may_be_repeated() -> None:
    headers = {"X-Twilio-Signature": signed(URL, urlencode(INCOMING).encode())}

    def fail(event: Any) -> None:
        provider.gateway.onReceive -= fail
        raise exc.QueueUnavailable("away")

    gateway, provider, heard = made(EXAMPLES, "http://127.0.0.1:9")
    gateway.onReceive += fail
    client = client_of(gateway)
    codes = [
        client.post(f"/{PREFIX}/main/im", data=INCOMING, headers=headers).status_code
        for _ in range(3)
    ]
    assert codes == [503, 200, 200]
    assert [each.msgid for each in heard][-1] == SM9


def test_the_log_says_why_a_webhook_was_refused(caplog: pytest.LogCaptureFixture) -> None:
    client, heard = receiver(EXAMPLES)
    assert client.post(f"/{PREFIX}/main/im", data=INCOMING).status_code == 403
    assert "webhook of main refused: the signature is not by Twilio: " in caplog.text
    assert INCOMING["From"].strip("+") not in caplog.text
    assert heard == []
