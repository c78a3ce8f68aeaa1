"""Vonage Messages, channel SMS."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from base64 import urlsafe_b64encode
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from smsqueue import Gateway, Settings, exc
from smsqueue.message.states import State
from smsqueue.providers.vonage_messages import VonageMessagesProvider
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
from smsqueue.testing.stub import Answer, Seen
from smsqueue.testing.webhook_checks import client_of, receiver
from tests.providers.helpers import (
    account,
    basic,
    malformed,
    refuses_without_sender,
    webhook_status,
)

KEY, SECRET = "abcd1234", "vonage-secret"
SIGNATURE = "vonage-signature-secret-that-is-long"
UUID = "aaaaaaaa-bbbb-4ccc-8ddd-0123456789ab"
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
GOOD = Answer(202, {"message_uuid": UUID})


def token(body: bytes, secret: str = SIGNATURE, **claims: Any) -> str:
    """As Vonage makes it; a claim that is None is left out."""
    told: dict[str, Any] = {"iat": int(time.time()), "jti": "c5ba8f24", "iss": "Vonage"}
    told |= {"payload_hash": hashlib.sha256(body).hexdigest(), "api_key": KEY}
    kept = {k: v for k, v in (told | claims).items() if v is not None}
    return jwt.encode(kept, secret, algorithm="HS256")


def sign(method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
    return headers | {"Authorization": f"Bearer {token(body)}"}


hook = partial(Webhook, sign=sign)
bad = partial(malformed, sign=sign)


def refused(code: str, status: int, error: type[exc.ProviderError]) -> Refusal:
    link = f"https://developer.vonage.com/api-errors/messages#{code}"
    told = {"type": link, "title": "no", "detail": "no", "instance": "bf0ca0bf"}
    return Refusal(f"{code}, {status}", Answer(status, told), error, code=code)


INCOMING = {
    "message_uuid": UUID,
    "to": "15550009999",
    "from": "15551234567",
    "timestamp": "2026-01-02T03:04:05.678Z",
    "channel": "sms",
    "message_type": "text",
    "text": "hi there ü€😀",
    "sms": {"num_messages": "1", "keyword": "HI"},
    "usage": {"currency": "EUR", "price": "0.0057"},
}
RECEIVED = Received("15551234567", "hi there ü€😀", "15550009999", UUID)


def status(word: str, state: State | None, error: Any = None, code: Any = None) -> Webhook:
    told = {"message_uuid": UUID, "to": "15551234567", "from": "15550009999", "status": word}
    told |= {"timestamp": "2026-01-02T03:04:05Z", "client_ref": REF, "channel": "sms"}
    told |= {"error": error} if error else {}
    reported = [Reported(state, UUID, REF, code, word)]
    return hook(f"status {word} {code}", "/status", reported, json=told)


def problem(code: int) -> dict[str, str]:
    return {"type": f"https://developer.vonage.com/api-errors/messages#{code}", "title": "no"}


def with_token(name: str, code: int = 403, path: str = "/im", **claims: Any) -> Any:
    """An incoming message whose token has other claims."""

    def made(method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        return headers | {"Authorization": f"Bearer {token(body, **claims)}"}

    return name, Webhook("", path, [], json=INCOMING, sign=made), code


def deep(levels: int) -> Any:
    return {"a": deep(levels - 1)} if levels else {}


def header(name: str, value: str) -> Any:
    hook = Webhook("", "/im", [], json=INCOMING, headers={"Authorization": value})
    return name, hook, 403


def without(*names: str) -> dict[str, Any]:
    return {k: v for k, v in INCOMING.items() if k not in names}


def unsigned_token(algorithm: str) -> str:
    body = json.dumps(INCOMING).encode()
    parts = [
        {"alg": algorithm, "typ": "JWT"},
        jwt.decode(token(body), options={"verify_signature": False}),
    ]
    texts = [urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=") for each in parts]
    return ".".join([*texts, ""])


def by_application(seen: Seen) -> None:
    kind, _, given = seen.headers["Authorization"].partition(" ")
    assert kind == "Bearer"
    public = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = jwt.decode(given, public, algorithms=["RS256"])
    assert claims["application_id"] == "app-1"
    assert claims["exp"] - claims["iat"] == 900
    assert abs(claims["iat"] - time.time()) < 3600
    assert claims["jti"]


PATH = "/v1/messages"
PLAIN = {"message_type": "text", "channel": "sms", "to": "15551234567", "from": "15550009999"}
PLAIN |= {"text": "hello", "client_ref": REF}
APPLICATION = {"application_id": "app-1", "private_key": PEM, "api_key": None, "api_secret": None}

sends = partial(Sending, answer=GOOD, msgid=UUID, path=PATH)

EXAMPLES = Examples(
    provider=VonageMessagesProvider,
    config={
        "api_key": KEY,
        "api_secret": SECRET,
        "signature_secret": SIGNATURE,
        "sender": "+1 555 000 9999",
    },
    good=GOOD,
    secrets=[SECRET, SIGNATURE],
    secret="signature_secret",
    sendings=[
        sends("a text", message(), json=PLAIN, headers=basic(f"{KEY}:{SECRET}")),
        sends(
            "with an application",
            message(body="שלום"),
            json=PLAIN | {"text": "שלום"},
            config=APPLICATION,
            check=by_application,
        ),
        sends(
            "report, validity, sender id",
            message(status_report=True, expires=5, senderId="My Shop"),
            json=PLAIN
            | {"from": "My Shop", "ttl": 300, "webhook_version": "v1"}
            | {"webhook_url": f"{PUBLIC_URL}/{PREFIX}/main/status"},
        ),
        sends("the longest validity", message(expires=100_000), json=PLAIN | {"ttl": 604_800}),
        sends(
            "parameters",
            message(params={"sms": {"entity_id": "7"}, "to": "1", "client_ref": "another"}),
            json=PLAIN | {"sms": {"entity_id": "7"}},
        ),
    ],
    refusals=[
        *[refused(str(code), 429, exc.LimitsError) for code in (1000, 1241)],
        *[refused(str(code), 422, exc.RequestError) for code in (1010, 1020, 1040, 1050, 1090)],
        *[refused(str(code), 422, exc.RequestError) for code in (1120, 1130, 1150, 1170, 1240)],
        *[refused(str(code), 400, exc.AuthError) for code in (1060, 1080, 1110, 1140, 1160)],
        *[refused(str(code), 500, exc.ServerError) for code in (1030, 1100, 1230)],
        refused("1070", 402, exc.CreditError),
        refused("low-balance", 403, exc.CreditError),
        refused("unauthorized", 401, exc.AuthError),
        refused("forbidden", 403, exc.AuthError),
        refused("account-suspended", 400, exc.AuthError),
        refused("invalid-params", 422, exc.RequestError),
        refused("never-heard-of", 422, exc.RequestError),
        refused("9999", 500, exc.ServerError),
        Refusal("no link", Answer(422, {"type": "about:blank"}), exc.RequestError),
        Refusal("no JSON object", Answer(401, ["type"]), exc.AuthError),
        Refusal("402", Answer(402, ""), exc.CreditError),
        Refusal("500, no link", Answer(500, {"title": "no"}), exc.ServerError, ambiguous=True),
        refused("1070", 202, exc.CreditError),
        refused("9999", 503, exc.ServerError),
        Refusal("202 without an id", Answer(202, {}), exc.ServerError, ambiguous=True),
    ],
    unsupported=[message(senderId="My_Shop")],
    webhooks=[
        hook("incoming", "/im", [RECEIVED], json=INCOMING),
        hook(
            "incoming, as older ones are",
            "/im",
            [RECEIVED],
            json=INCOMING
            | {"from": {"type": "sms", "id": 7, "number": "15551234567"}}
            | {"to": {"type": "sms", "number": "15550009999"}},
        ),
        hook(
            "incoming, a number for a number",
            "/im",
            [RECEIVED],
            json=INCOMING | {"from": 15551234567},
        ),
        hook(
            "incoming, without a text",
            "/im",
            [Received("15551234567", "", None, UUID)],
            json=without("text", "to", "timestamp") | {"timestamp": "never"},
        ),
        status("submitted", State.ACCEPTED),
        status("delivered", State.DELIVERED),
        status("read", State.DELIVERED),
        status("rejected", State.UNDELIVERED, problem(1210), "1210"),
        status("rejected", State.EXPIRED, problem(1360), "1360"),
        status("undeliverable", State.UNDELIVERED, {"title": 1260}, "1260"),
        status("undeliverable", State.UNDELIVERED, {"code": 1300, "reason": "no"}, "1300"),
        status("undeliverable", State.UNDELIVERED, "words"),
        status("never-heard-of", None),
    ],
    refused=[
        bad("no sender", "/im", json=without("from")),
        bad("no id", "/im", json=without("message_uuid")),
        bad("a report", "/im", json=INCOMING | {"status": "delivered"}),
        bad("no status", "/status", json={"message_uuid": UUID}),
        bad("a list", "/im", json=[INCOMING]),
        bad("a list for a sender", "/im", json=INCOMING | {"from": ["15551234567"]}),
        bad("an object for a sender", "/im", json=INCOMING | {"from": {"number": {}}}),
        bad("an object for an id", "/im", json=INCOMING | {"message_uuid": {"a": 1}}),
        bad("a list for a text", "/im", json=INCOMING | {"text": ["hi"]}),
        bad("a list for a status", "/status", json={"message_uuid": UUID, "status": ["x"]}),
        bad("nested deeply", "/im", json=INCOMING | {"usage": deep(30)}),
        with_token("another secret", secret="somebody-else's-secret-of-that-length"),
        with_token("no hash", payload_hash=None),
        with_token("an empty hash", payload_hash=""),
        with_token("the hash of another body", payload_hash=hashlib.sha256(b"{}").hexdigest()),
        with_token("no time", iat=None),
        with_token("too old", iat=int(time.time()) - 26 * 3600),
        with_token("from the future", iat=int(time.time()) + 3600),
        with_token("over", exp=int(time.time()) - 3600),
        header("no token", "Bearer "),
        header("rubbish", "Bearer a.b.c"),
        header("Basic", f"Basic {token(json.dumps(INCOMING).encode())}"),
        header("no algorithm", f"Bearer {unsigned_token('none')}"),
        header("another algorithm", f"Bearer {unsigned_token('HS512')}"),
    ],
)


@pytest.mark.parametrize("check", checks(EXAMPLES), ids=str)
def test_contract(check: Check) -> None:
    check()


def post(posts: Any, told: Any, view: str = "im", secret: str = SIGNATURE, **claims: Any) -> int:
    body = json.dumps(told).encode()
    headers = {"Authorization": f"bearer {token(body, secret, **claims)}"}
    headers["Content-Type"] = "application/json; charset=utf-8"
    return webhook_status(posts, view, data=body, headers=headers)


def test_a_token_of_another_library() -> None:
    """Made with nothing but HMAC, as RFC 7515 has it."""
    import hmac

    body = json.dumps(INCOMING).encode()
    claims = {"iat": int(time.time()), "payload_hash": hashlib.sha256(body).hexdigest().upper()}
    parts = [json.dumps(each).encode() for each in ({"typ": "JWT", "alg": "HS256"}, claims)]
    text = b".".join(urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    mac = hmac.new(SIGNATURE.encode(), text, "sha256").digest()
    given = (text + b"." + urlsafe_b64encode(mac).rstrip(b"=")).decode()
    posts, heard = receiver(EXAMPLES)
    headers = {"Authorization": f"Bearer {given}", "Content-Type": "application/json"}
    assert webhook_status(posts, "im", data=body, headers=headers) == 200
    assert len(heard) == 1


def test_while_a_secret_rotates_both_verify() -> None:
    new, old, other = ("secret-that-is-long-enough-" + each * 8 for each in ("1", "2", "3"))
    posts, heard = receiver(EXAMPLES, signature_secret=[new, old])
    found = [post(posts, INCOMING, secret=secret) for secret in (new, old, other)]
    assert found == [200, 200, 403]
    assert len(heard) == 2


def test_a_day_of_repetitions_is_taken() -> None:
    posts, _ = receiver(EXAMPLES)
    assert post(posts, INCOMING, iat=int(time.time()) - 24 * 3600) == 200
    posts, _ = receiver(EXAMPLES, window=60.0)
    assert post(posts, INCOMING, iat=int(time.time()) - 3600) == 403


def test_a_webhook_is_never_taken_when_the_ledger_has_forgotten_the_first_one() -> None:
    settings = Settings(receiver_prefix=(PREFIX,), report_wait=60.0)
    gateway = Gateway(settings, eager=True)
    gateway.add_provider("main", VonageMessagesProvider, **EXAMPLES.config)
    posts = client_of(gateway)
    assert post(posts, INCOMING, iat=int(time.time()) - 3600) == 403


def test_a_webhook_that_is_sent_again_counts_once(settings: Settings) -> None:
    """Also if it was signed anew, as a repetition may be."""
    with Gateway(settings) as gateway:
        gateway.add_provider("main", VonageMessagesProvider, **EXAMPLES.config)
        posts = client_of(gateway)
        report = {"message_uuid": UUID, "status": "delivered", "client_ref": REF}
        for iat in (0, 0, -3600):
            at = int(time.time()) + iat
            assert post(posts, INCOMING, iat=at) == post(posts, report, "status", iat=at) == 200
        assert gateway.ledger.redis.zcard(f"{settings.namespace}:due:hook") == 2


def test_without_redis_a_webhook_is_answered_503() -> None:
    gateway = Gateway(Settings(redis_url="redis://127.0.0.1:1/0"))
    gateway.add_provider("main", VonageMessagesProvider, **EXAMPLES.config)
    posts = client_of(gateway)
    assert post(posts, INCOMING) == 503


def test_the_address_of_a_report_does_not_say_which_message_it_is_for() -> None:
    """It is not signed: who repeats a genuine report could change it."""
    posts, heard = receiver(EXAMPLES)
    told = {"message_uuid": UUID, "status": "delivered"}
    assert post(posts, told, f"status?ref={REF}&client_ref={REF}") == 200
    assert heard[0].reference is None


def test_meta_of_reports_and_messages() -> None:
    posts, heard = receiver(EXAMPLES)
    post(posts, INCOMING)
    post(posts, INCOMING | {"status": "delivered"}, "status")
    for each in heard:
        assert each.rtime.isoformat() == "2026-01-02T03:04:05.678000+00:00"
        assert each.meta["usage"] == {"currency": "EUR", "price": "0.0057"}
        assert not {"from", "to", "text"} & each.meta.keys()


def test_the_key_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "private.key"
    path.write_text(PEM)
    for given in (path, str(path)):
        with account(EXAMPLES, GOOD, **APPLICATION | {"private_key": given}) as (provider, stub):
            provider.send(message())
        by_application(stub.seen[0])


def test_a_key_is_not_shown() -> None:
    _, provider, _ = made(EXAMPLES, "http://127.0.0.1:9", **APPLICATION)
    assert "BEGIN" not in repr(vars(provider))


@pytest.mark.parametrize(
    "key",
    [
        "no-such-file-" + SECRET,
        "-----BEGIN PRIVATE KEY-----\n" + SECRET,
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        .decode(),
    ],
    ids=["no file", "no key", "another kind"],
)
def test_a_key_that_cannot_be_used_is_refused_at_once(key: str) -> None:
    with pytest.raises(SettingsError, match="private_key") as caught:
        made(EXAMPLES, "http://127.0.0.1:9", **APPLICATION | {"private_key": key})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"api_secret": None},
        {"application_id": "app-1"},
        {"private_key": PEM},
        {"signature_secret": [""]},
    ],
)
def test_what_cannot_work_is_refused_when_the_provider_is_added(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="secret|application_id") as caught:  # noqa: RUF043
        made(EXAMPLES, "http://127.0.0.1:9", **config)
    assert "BEGIN" not in str(caught.value)


@pytest.mark.parametrize("missing", ["jwt", "cryptography.hazmat.primitives.serialization"])
def test_what_is_not_installed_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SettingsError, match="pip install"):
        made(EXAMPLES, "http://127.0.0.1:9", **APPLICATION)
    if missing == "jwt":
        with pytest.raises(SettingsError, match="pip install"):
            receiver(EXAMPLES)


def test_a_message_without_a_sender_is_unsupported() -> None:
    assert refuses_without_sender(EXAMPLES)
