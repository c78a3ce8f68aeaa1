"""Telnyx."""

from __future__ import annotations

import json
import logging
import sys
import time
from base64 import b64decode, b64encode
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from smsqueue import exc
from smsqueue.messages import OutgoingMessage
from smsqueue.providers.capabilities import Can
from smsqueue.providers.telnyx import TelnyxProvider
from smsqueue.settings import SettingsError
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
from smsqueue.testing.stub import Answer, Seen, Stub

API_KEY = "KEY-of-telnyx"
PRIVATE, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
PUBLIC, OTHER_PUBLIC = (
    b64encode(each.public_key().public_bytes_raw()).decode() for each in (PRIVATE, OTHER)
)
REF = "1m842psghd5k1m5599r6.1"
PARTS = {"parts": 1, "encoding": "GSM-7", "cost": None}
GOOD = Answer(200, {"data": {"id": "T1", "to": [{"status": "queued"}], "errors": []} | PARTS})


def signed(
    headers: dict[str, str],
    body: bytes,
    at: float | str | None = None,
    key: Ed25519PrivateKey = PRIVATE,
) -> dict[str, str]:
    stamp = str(int(time.time()) if at is None else at)
    signature = b64encode(key.sign(stamp.encode() + b"|" + body)).decode()
    return headers | {"telnyx-timestamp": stamp, "telnyx-signature-ed25519": signature}


def sign(method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
    return signed(headers, body)


def keyed(seen: Seen) -> None:
    assert seen.headers["Idempotency-Key"] == "1m842psghd5k1m5599r6:1"
    assert list(seen.json) == sorted(seen.json)


def refused(
    code: str, status: int, error: type[exc.ProviderError], *, ambiguous: bool = False
) -> Refusal:
    body = {"errors": [{"code": code, "title": "no", "detail": "+15551234567"}]}
    return Refusal(f"{code} {status}", Answer(status, body), error, code, ambiguous)


def event(kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    data = {"event_type": kind, "id": "E1", "record_type": "event", "payload": payload}
    return {"data": data, "meta": {"attempt": 1, "delivered_to": "https://x"}}


def outbound(status: str, code: str | None = None) -> dict[str, Any]:
    errors = [{"code": code, "title": "no"}] if code else []
    to = [{"phone_number": "+15551234567", "status": status}]
    return {"id": "T1", "to": to, "from": {"phone_number": "+1555"}, "errors": errors} | PARTS


def status(
    word: str, state: State | None, code: str | None = None, kind: str = "message.finalized"
) -> Webhook:
    return Webhook(
        f"status {word} {code or ''}",
        f"/status?ref={REF}",
        [Reported(state, "T1", REF, code, word)],
        json=event(kind, outbound(word, code)),
        sign=sign,
        status=204,
    )


INBOUND = {
    "id": "T9",
    "direction": "inbound",
    "from": {"phone_number": "+15551234567", "carrier": "x"},
    "to": [{"phone_number": "+15550009999", "status": "webhook_delivered"}],
    "text": "hi there",
    "media": [],
}

EXAMPLES = Examples(
    provider=TelnyxProvider,
    config={"api_key": API_KEY, "public_key": PUBLIC, "sender": "15550009999"},
    good=GOOD,
    secrets=[API_KEY],
    secret="public_key",
    sendings=[
        Sending(
            "a text",
            message(),
            GOOD,
            "T1",
            "/messages",
            json={"to": "+15551234567", "from": "+15550009999", "text": "hello", "type": "SMS"},
            headers={"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"},
            check=keyed,
        ),
        Sending(
            "report, sender id, profile",
            message(status_report=True, senderId="Shop", body="żółć"),
            GOOD,
            "T1",
            "/messages",
            json={
                "to": "+15551234567",
                "from": "Shop",
                "text": "żółć",
                "type": "SMS",
                "messaging_profile_id": "P1",
                "webhook_url": f"{PUBLIC_URL}/{PREFIX}/main/status?ref={REF}",
            },
            config={"profile": "P1"},
        ),
        Sending(
            "number pool, short code, parameter",
            message(params={"encoding": "ucs2"}, src="12345"),
            GOOD,
            "T1",
            "/messages",
            json={
                "to": "+15551234567",
                "from": "12345",
                "text": "hello",
                "type": "SMS",
                "messaging_profile_id": "P1",
                "encoding": "ucs2",
            },
            config={"profile": "P1", "sender": None},
        ),
    ],
    refusals=[
        refused("10009", 401, exc.AuthError),
        refused("40312", 403, exc.AuthError),
        refused("20100", 403, exc.CreditError),
        refused("40333", 400, exc.CreditError),
        refused("10011", 429, exc.LimitsError),
        refused("40318", 400, exc.LimitsError),
        refused("10015", 400, exc.RequestError),
        refused("10015", 422, exc.RequestError),
        refused("40300", 400, exc.RequestError),
        refused("40331", 400, exc.UnsupportedError),
        refused("10007", 500, exc.ServerError),
        refused("99999", 400, exc.RequestError),
        refused("99999", 422, exc.RequestError),
        refused("99999", 504, exc.ServerError, ambiguous=True),
        Refusal("401 without a code", Answer(401, ""), exc.AuthError),
        Refusal("errors of another shape", Answer(400, {"errors": ["no"]}), exc.RequestError),
        Refusal(
            "the known code counts",
            Answer(400, {"errors": [{"code": "99999"}, {"code": 20100}]}),
            exc.CreditError,
            "20100",
        ),
        Refusal(
            "the limit's end",
            Answer(429, {"errors": [{"code": "10011"}]}, {"x-ratelimit-reset": "12"}),
            exc.LimitsError,
            "10011",
            retry_after=12.0,
        ),
        Refusal("200 without an id", Answer(200, {"data": {}}), exc.ServerError, ambiguous=True),
        Refusal(
            "200 with errors only",
            Answer(200, {"errors": [{"code": "10015"}]}),
            exc.ServerError,
            ambiguous=True,
        ),
    ],
    unsupported=[message(expires=5), message(senderId="Shop")],
    webhooks=[
        Webhook(
            "incoming",
            "/im",
            [Received("15551234567", "hi there", "15550009999", "T9")],
            json=event("message.received", INBOUND),
            sign=sign,
            status=204,
        ),
        Webhook(
            "incoming without a text, at the other address",
            "/status",
            [Received("15551234567", "", "15550009999", "T9")],
            json=event("message.received", INBOUND | {"text": None}),
            sign=sign,
            status=204,
        ),
        status("queued", State.ACCEPTED, kind="message.sent"),
        status("sending", State.ACCEPTED, kind="message.sent"),
        status("sent", State.ACCEPTED, kind="message.sent"),
        status("delivered", State.DELIVERED),
        status("read", State.DELIVERED, kind="message.read"),
        status("expired", State.EXPIRED),
        status("delivery_failed", State.EXPIRED, "40005"),
        status("sending_failed", State.EXPIRED, "40014"),
        status("sending_failed", State.UNDELIVERED, "40012"),
        status("delivery_failed", State.UNDELIVERED, "40003"),
        status("delivered", State.DELIVERED, "40005"),
        status("delivery_unconfirmed", State.ACCEPTED),
        status("never-heard-of", None),
        Webhook(
            "a report at the profile's address",
            "/im",
            [Reported(State.DELIVERED, "T1", None)],
            json=event("message.finalized", outbound("delivered")),
            sign=sign,
            status=204,
        ),
        Webhook(
            "another event",
            "/im",
            [],
            json=event("10dlc.campaign.update", {"campaignId": "1"}),
            sign=sign,
            status=204,
        ),
    ],
    refused=[
        ("no JSON", Webhook("", "/im", [], body=b"text=hi", sign=sign), 400),
        ("a list", Webhook("", "/im", [], json=[1], sign=sign), 400),
        ("no sender", Webhook("", "/im", [], json=event("message.received", {}), sign=sign), 400),
        (
            "no recipient",
            Webhook("", "/im", [], json=event("message.sent", {"id": "1", "to": []}), sign=sign),
            400,
        ),
    ],
)


@pytest.mark.parametrize("check", checks(EXAMPLES), ids=str)
def test_contract(check: Check) -> None:
    check()


def test_the_balance() -> None:
    body = {"data": {"balance": "300.00", "available_credit": "400.00", "currency": "USD"}}
    with Stub(Answer(200, body)) as stub:
        _, provider, _ = made(EXAMPLES, stub.url)
        balance = provider.balance()
    assert (str(balance.amount), balance.currency) == ("400.00", "USD")
    assert stub.seen[0].path == "/balance"


# --- sending once -------------------------------------------------------------------------------


def again(reference: str) -> OutgoingMessage:
    asked = message(reference=reference, status_report=True, idempotency_key="mine")
    asked.dedup_key = REF
    return asked


def test_a_repetition_is_the_same_byte_for_byte() -> None:
    with Stub(GOOD) as stub:
        _, provider, _ = made(EXAMPLES, stub.url)
        provider.send(again("1m842psghd5k1m5599r6.1"))
        provider.send(again("1m842psghd5k1m5599r6.2"))
    first, second = stub.seen
    assert first.body == second.body
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]


@pytest.mark.parametrize(
    "key", ["a.b", "x" * 256, "with a space", "żółć", "1m842psghd5k1m5599r6.12"]
)
def test_keys_are_what_telnyx_takes(key: str) -> None:
    asked = message()
    asked.dedup_key = key
    with Stub(GOOD) as stub:
        _, provider, _ = made(EXAMPLES, stub.url)
        provider.send(asked)
    sent = stub.seen[0].headers["Idempotency-Key"]
    assert 0 < len(sent) < 256
    assert set(sent) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:-")


@pytest.mark.parametrize("status", [409, 422])
def test_a_known_key_with_another_body_leaves_it_open_what_became_of_the_first(status: int) -> None:
    with Stub(Answer(status, {"errors": [{"code": "10015"}]})) as stub:
        _, provider, _ = made(EXAMPLES, stub.url)
        with pytest.raises(exc.RequestError) as first:
            provider.send(again("1m842psghd5k1m5599r6.1"))
        with pytest.raises(exc.RequestError) as second:
            provider.send(again("1m842psghd5k1m5599r6.2"))
    assert (first.value.ambiguous, second.value.ambiguous) == (False, True)


def test_a_message_without_a_reference_goes_without_a_key() -> None:
    with Stub(GOOD) as stub:
        _, provider, _ = made(EXAMPLES, stub.url)
        provider.send(OutgoingMessage("15551234567", "hello"))
    assert "Idempotency-Key" not in stub.seen[0].headers


def test_telnyx_is_trusted_with_repetitions_only_if_that_is_said() -> None:
    _, careful, _ = made(EXAMPLES, "http://127.0.0.1:9")
    _, trusting, _ = made(EXAMPLES, "http://127.0.0.1:9", dedup_window=86400)
    assert (careful.dedup_window, trusting.dedup_window) == (0, 86400)
    assert Can.DEDUPLICATION not in careful.capabilities
    assert Can.DEDUPLICATION in trusting.capabilities
    with pytest.raises(ValueError, match="dedup_window"):
        made(EXAMPLES, "http://127.0.0.1:9", dedup_window=86401)


# --- signatures ---------------------------------------------------------------------------------

BODY = json.dumps(event("message.finalized", outbound("delivered"))).encode()


def post(headers: dict[str, str], body: bytes = BODY, **config: Any) -> tuple[int, list[Any]]:
    from flask import Flask

    gateway, _, heard = made(EXAMPLES, "http://127.0.0.1:9", **config)
    app = gateway.receiver_blueprints_register(Flask("telnyx"), PREFIX)
    answer = app.test_client().post(f"/{PREFIX}/main/status", data=body, headers=headers)
    return answer.status_code, heard


@pytest.mark.parametrize(
    ("late", "taken"), [(-400, False), (-200, True), (0, True), (200, True), (400, False)]
)
def test_replays(late: int, taken: bool) -> None:
    answered, heard = post(signed({}, BODY, int(time.time()) + late))
    assert (answered, len(heard)) == ((204, 1) if taken else (403, 0))


def test_the_window_of_replays() -> None:
    assert post(signed({}, BODY, int(time.time()) - 400), replay_window=600.0)[0] == 204


@pytest.mark.parametrize("stamp", ["", "soon", "nan", "inf", "-1"])
def test_times_that_are_none(stamp: str) -> None:
    assert post(signed({}, BODY, stamp)) == (403, [])


def test_the_time_is_signed_too() -> None:
    headers = signed({}, BODY, int(time.time()) - 400)
    assert post(headers | {"telnyx-timestamp": str(int(time.time()))}) == (403, [])


@pytest.mark.parametrize("signature", ["", "!", "A", "AAAA", b64encode(bytes(64)).decode()])
def test_signatures_that_are_none(signature: str) -> None:
    assert post(signed({}, BODY) | {"telnyx-signature-ed25519": signature}) == (403, [])


def test_keys_change() -> None:
    both = [OTHER_PUBLIC, PUBLIC]
    assert post(signed({}, BODY), public_key=both)[0] == 204
    assert post(signed({}, BODY, key=OTHER), public_key=both)[0] == 204
    assert post(signed({}, BODY), public_key=[OTHER_PUBLIC]) == (403, [])


def test_a_key_that_is_none() -> None:
    with pytest.raises(SettingsError, match="public_key"):
        post({}, public_key="AAAA")
    assert len(b64decode(PUBLIC)) == 32


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    with pytest.raises(SettingsError, match=r"smsqueue-gateway\[signatures\]"):
        post({})


def test_a_new_status_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    from flask import Flask

    body = json.dumps(event("message.sent", outbound("teleported"))).encode()
    gateway, _, heard = made(EXAMPLES, "http://127.0.0.1:9")
    client = gateway.receiver_blueprints_register(Flask("telnyx"), PREFIX).test_client()
    with caplog.at_level(logging.WARNING, "smsqueue.providers.account"):
        for _ in range(2):
            client.post(f"/{PREFIX}/main/status", data=body, headers=signed({}, body))
    assert [each.status for each in heard] == ["teleported"] * 2
    assert len([r for r in caplog.records if "teleported" in r.getMessage()]) == 1


def test_a_report_that_is_not_recorded_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from flask import Flask

    gateway, _, _ = made(EXAMPLES, "http://127.0.0.1:9")

    def away(_: Any) -> None:
        raise exc.QueueUnavailable("away")

    monkeypatch.setattr(gateway, "receive_status", away)
    client = gateway.receiver_blueprints_register(Flask("telnyx"), PREFIX).test_client()
    answer = client.post(f"/{PREFIX}/main/status", data=BODY, headers=signed({}, BODY))
    assert answer.status_code == 503
