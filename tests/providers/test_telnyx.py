"""Telnyx."""

from __future__ import annotations

import json
import logging
import sys
import time
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from smsqueue import exc
from smsqueue.message.messages import OutgoingMessage
from smsqueue.message.states import State
from smsqueue.providers.authentic import seal
from smsqueue.providers.capabilities import Can
from smsqueue.providers.telnyx import TelnyxProvider
from smsqueue.settings import Settings, SettingsError
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
from smsqueue.testing.stub import Answer, Seen, Stub
from smsqueue.testing.webhook_checks import receiver
from tests.providers.helpers import (
    account,
    client_of_failing_gateway,
    failure_of,
    malformed,
    webhook_status,
)

API_KEY = "KEY-of-telnyx"
PRIVATE, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
PUBLIC, OTHER_PUBLIC = (
    b64encode(each.public_key().public_bytes_raw()).decode() for each in (PRIVATE, OTHER)
)
#: As it stands in addresses.
SEALED = seal(REF, API_KEY, "main")
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


hook = partial(Webhook, sign=sign, status=204)
bad = partial(malformed, sign=sign)


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
    return hook(
        f"status {word} {code or ''}",
        f"/status?ref={SEALED}",
        [Reported(state, "T1", REF, code, word)],
        json=event(kind, outbound(word, code)),
    )


INBOUND = {
    "id": "T9",
    "direction": "inbound",
    "from": {"phone_number": "+15551234567", "carrier": "x"},
    "to": [{"phone_number": "+15550009999", "status": "webhook_delivered"}],
    "text": "hi there",
    "media": [],
}

sends = partial(Sending, answer=GOOD, msgid="T1", path="/messages")

EXAMPLES = Examples(
    provider=TelnyxProvider,
    config={"api_key": API_KEY, "public_key": PUBLIC, "sender": "15550009999"},
    good=GOOD,
    secrets=[API_KEY],
    secret="public_key",
    sendings=[
        sends(
            "a text",
            message(),
            json={"to": "+15551234567", "from": "+15550009999", "text": "hello", "type": "SMS"},
            headers={"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"},
            check=keyed,
        ),
        sends(
            "report, sender id, profile",
            message(status_report=True, senderId="Shop", body="żółć"),
            json={
                "to": "+15551234567",
                "from": "Shop",
                "text": "żółć",
                "type": "SMS",
                "messaging_profile_id": "P1",
                "webhook_url": f"{PUBLIC_URL}/{PREFIX}/main/status?ref={SEALED}",
            },
            config={"profile": "P1"},
        ),
        sends(
            "other receivers, a sender with a blank",
            message(status_report=True, senderId="My Shop"),
            json={
                "to": "+15551234567",
                "from": "My Shop",
                "text": "hello",
                "type": "SMS",
                "messaging_profile_id": "P1",
                "webhook_url": f"{PUBLIC_URL}/{PREFIX}/main/status?ref={SEALED}",
                "webhook_failover_url": f"https://b.example.org/{PREFIX}/main/status?ref={SEALED}",
            },
            config={"profile": "P1", "failover": "https://b.example.org/"},
        ),
        sends(
            "a number as people write it, other receivers, no report",
            message(src="+1 (555) 000-9999"),
            json={"to": "+15551234567", "from": "+15550009999", "text": "hello", "type": "SMS"},
            config={"failover": "https://b.example.org"},
        ),
        sends(
            "number pool, short code, parameter",
            message(params={"encoding": "ucs2"}, src="12345"),
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
        refused("40300", 400, exc.OptedOut),
        refused("40331", 400, exc.UnsupportedError),
        refused("10007", 500, exc.ServerError),
        refused("40011", 400, exc.LimitsError),
        refused("40006", 400, exc.ServerError),
        refused("40008", 400, exc.ServerError),
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
        Refusal(
            "the limit's end in milliseconds",
            Answer(429, {}, {"retry-after-ms": "1500", "x-ratelimit-reset": "12"}),
            exc.LimitsError,
            retry_after=1.5,
        ),
        Refusal(
            "a limit that ends in 1970",
            Answer(429, {}, {"x-ratelimit-reset": "1450000000"}),
            exc.LimitsError,
        ),
        Refusal("errors that are none", Answer(400, {"errors": 5}), exc.RequestError),
        Refusal(
            "an error that is a text",
            Answer(500, {"errors": ["+1555"]}),
            exc.ServerError,
            ambiguous=True,
        ),
        Refusal("200 without an id", Answer(200, {"data": {}}), exc.ServerError, ambiguous=True),
        Refusal(
            "200 with errors only",
            Answer(200, {"errors": [{"code": "10015"}]}),
            exc.RequestError,
            "10015",
        ),
        Refusal(
            "200, given up at once",
            Answer(
                200,
                {
                    "data": {"id": "T1", "to": [{"status": "sending_failed"}]}
                    | {"errors": [{"code": "40333"}]}
                },
            ),
            exc.CreditError,
            "40333",
        ),
        Refusal("200, to nobody", Answer(200, {"data": {"id": "T1", "to": []}}), exc.RequestError),
    ],
    unsupported=[message(expires=5), message(senderId="Shop"), message(senderId="A_B")],
    webhooks=[
        hook(
            "incoming",
            "/im",
            [Received("15551234567", "hi there", "15550009999", "T9")],
            json=event("message.received", INBOUND),
        ),
        hook(
            "incoming without a text, at the other address",
            "/status",
            [Received("15551234567", "", "15550009999", "T9")],
            json=event("message.received", INBOUND | {"text": None}),
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
        hook(
            "of an incoming message",
            "/status",
            [],
            json=event("message.finalized", outbound("webhook_delivered")),
        ),
        hook(
            "an error without a code",
            "/status",
            [Reported(State.UNDELIVERED, "T1", None, None, "delivery_failed")],
            json=event(
                "message.finalized", outbound("delivery_failed") | {"errors": [{"title": "x"}]}
            ),
        ),
        hook(
            "a reference that is not sealed",
            f"/status?ref={REF}",
            [Reported(State.DELIVERED, "T1", None)],
            json=event("message.finalized", outbound("delivered")),
        ),
        hook(
            "a report at the profile's address",
            "/im",
            [Reported(State.DELIVERED, "T1", None)],
            json=event("message.finalized", outbound("delivered")),
        ),
        hook("another event", "/im", [], json=event("10dlc.campaign.update", {"campaignId": "1"})),
    ],
    refused=[
        bad("no JSON", "/im", body=b"text=hi"),
        bad("a list", "/im", json=[1]),
        bad("no sender", "/im", json=event("message.received", {})),
        bad("no recipient", "/im", json=event("message.sent", {"id": "1", "to": []})),
        bad("no text of a text", "/im", json=event("message.received", INBOUND | {"text": 5})),
        bad("an id that is none", "/im", json=event("message.received", INBOUND | {"id": {}})),
        bad(
            "a number that is none",
            "/im",
            json=event("message.received", INBOUND | {"from": {"phone_number": 1}}),
        ),
        bad(
            "a status that is a list",
            "/status",
            json=event("message.sent", {"id": "1", "to": [{"status": []}]}),
        ),
        bad("nested too deeply", "/im", body=b"[" * 100_000),
    ],
)


@pytest.mark.parametrize("check", checks(EXAMPLES), ids=str)
def test_contract(check: Check) -> None:
    check()


def test_the_balance() -> None:
    body = {"data": {"balance": "300.00", "available_credit": "400.00", "currency": "USD"}}
    with account(EXAMPLES, Answer(200, body)) as (provider, stub):
        balance = provider.balance()
    assert (str(balance.amount), balance.currency) == ("400.00", "USD")
    assert stub.seen[0].path == "/balance"


# --- sending once -------------------------------------------------------------------------------


def again(reference: str, *, repeated: bool = False) -> OutgoingMessage:
    asked = message(reference=reference, status_report=True, idempotency_key="mine")
    asked.dedup_key, asked.repeated = REF, repeated
    return asked


def test_a_repetition_is_the_same_byte_for_byte() -> None:
    with account(EXAMPLES, GOOD) as (provider, stub):
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
    with account(EXAMPLES, GOOD) as (provider, stub):
        provider.send(asked)
    sent = stub.seen[0].headers["Idempotency-Key"]
    assert 0 < len(sent) < 256
    assert set(sent) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:-")


@pytest.mark.parametrize("status", [409, 422])
def test_a_known_key_with_another_body_leaves_it_open_what_became_of_the_first(status: int) -> None:
    with account(EXAMPLES, Answer(status, {"errors": [{"code": "10015"}]})) as (provider, _):
        for repeated in (False, True):
            with pytest.raises(exc.RequestError) as raised:
                provider.send(again(REF, repeated=repeated))
            assert raised.value.ambiguous is repeated


def test_a_key_that_is_empty_would_seal_nothing() -> None:
    with pytest.raises(ValueError, match="empty"):
        made(EXAMPLES, "http://127.0.0.1:9", api_key="")


def test_a_message_without_a_reference_has_no_key() -> None:
    with account(EXAMPLES, GOOD) as (provider, stub):
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


# --- looking up ---------------------------------------------------------------------------------

SINCE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
URL = f"{PUBLIC_URL}/{PREFIX}/main/status?ref={SEALED}"


def record(**more: Any) -> dict[str, Any]:
    return {
        "record_type": "message_detail_record",
        "uuid": "T1",
        "cld": "+15551234567",
        "direction": "outbound",
        "delivery_status_webhook_url": URL,
        "status": "delivered",
    } | more


def look_up(provider: Any) -> Any:
    return provider.look_up(message(status_report=True), SINCE)


def looked_up(*records: Any) -> Any:
    with account(EXAMPLES, Answer(200, {"data": list(records), "meta": {}})) as (provider, stub):
        report = look_up(provider)
    [seen] = stub.seen
    assert (seen.method, seen.path) == ("GET", "/detail_records")
    assert seen.headers["Authorization"] == f"Bearer {API_KEY}"
    assert seen.query == {
        "filter[record_type]": "messaging",
        "filter[direction]": "outbound",
        "filter[created_at][gte]": "2026-01-01",
        "filter[cld][ends_with]": "15551234567",
    }
    return report


@pytest.mark.parametrize(
    ("told", "state", "code"),
    [
        ({}, State.DELIVERED, None),
        ({"status": "failed", "errors": ["40001"]}, State.UNDELIVERED, "40001"),
        ({"status": "gw_reject"}, State.UNDELIVERED, None),
        ({"status": "failed", "errors": ["40005"]}, State.EXPIRED, "40005"),
        ({"status": "dlr_unconfirmed"}, State.ACCEPTED, None),
        ({"status": "gw_timeout", "errors": "x"}, State.ACCEPTED, None),
        ({"status": None, "errors": [None]}, State.ACCEPTED, None),
    ],
)
def test_look_up_finds_a_message_by_its_callback_url(
    told: dict[str, Any], state: State, code: str | None
) -> None:
    other = record(uuid="T0", delivery_status_webhook_url=URL.replace(".1.", ".2."))
    report = looked_up(other, record(**told))
    assert (report.state, report.msgid, report.status_code) == (state, "T1", code)


def test_what_has_another_address_is_another_message() -> None:
    others = [None, "", URL[:-1], URL.replace(SEALED, REF), 5]
    assert looked_up(*(record(delivery_status_webhook_url=url) for url in others)) is None
    assert looked_up({}) is None
    assert looked_up() is None


@pytest.mark.parametrize("body", ["", "[]", {"data": None}, {"data": [1]}, "<html>"])
def test_records_that_cannot_be_read_are_an_error(body: Any) -> None:
    error = failure_of(EXAMPLES, look_up, Answer(200, body))
    assert (isinstance(error, exc.ServerError), error.ambiguous) == (True, False)


def test_without_an_address_there_is_nothing_to_look_for() -> None:
    with Stub() as stub:
        gateway, provider, _ = made(EXAMPLES, stub.url)
        with pytest.raises(NotImplementedError):
            provider.look_up(message(), SINCE)
        gateway.settings = Settings(eager=True)
        with pytest.raises(NotImplementedError):
            provider.look_up(message(status_report=True), SINCE)
    assert stub.seen == []


# --- signatures ---------------------------------------------------------------------------------

BODY = json.dumps(event("message.finalized", outbound("delivered"))).encode()


def post(headers: dict[str, str], body: bytes = BODY, **config: Any) -> tuple[int, list[Any]]:
    client, heard = receiver(EXAMPLES, **config)
    return webhook_status(client, "status", data=body, headers=headers), heard


@pytest.mark.parametrize(
    ("late", "taken"), [(-400, False), (-200, True), (0, True), (200, True), (400, False)]
)
def test_replays(late: int, taken: bool) -> None:
    answered, heard = post(signed({}, BODY, int(time.time()) + late))
    assert (answered, len(heard)) == ((204, 1) if taken else (403, 0))


def test_the_window_of_replays() -> None:
    assert post(signed({}, BODY, int(time.time()) - 400), replay_window=600.0)[0] == 204


@pytest.mark.parametrize("stamp", ["", "soon", "nan", "inf", "-1"])
def test_invalid_times(stamp: str) -> None:
    assert post(signed({}, BODY, stamp)) == (403, [])


def test_the_time_is_signed_too() -> None:
    headers = signed({}, BODY, int(time.time()) - 400)
    assert post(headers | {"telnyx-timestamp": str(int(time.time()))}) == (403, [])


@pytest.mark.parametrize("signature", ["", "!", "A", "AAAA", b64encode(bytes(64)).decode()])
def test_invalid_signatures(signature: str) -> None:
    assert post(signed({}, BODY) | {"telnyx-signature-ed25519": signature}) == (403, [])


def test_keys_change() -> None:
    both = [OTHER_PUBLIC, PUBLIC]
    assert post(signed({}, BODY), public_key=both)[0] == 204
    assert post(signed({}, BODY, key=OTHER), public_key=both)[0] == 204
    assert post(signed({}, BODY), public_key=[OTHER_PUBLIC]) == (403, [])


def test_an_invalid_key() -> None:
    with pytest.raises(SettingsError, match="public_key"):
        post({}, public_key="AAAA")
    assert len(b64decode(PUBLIC)) == 32


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    with pytest.raises(SettingsError, match=r"smsqueue-gateway\[signatures\]"):
        post({})


def test_times_and_the_events_id_are_kept() -> None:
    told = event("message.finalized", outbound("delivered"))
    told["data"]["occurred_at"] = "2019-12-09T21:32:14.148+00:00"
    body = json.dumps(told).encode()
    _, [report] = post(signed({}, body), body)
    assert (report.rtime.isoformat(), report.event_id) == ("2019-12-09T21:32:14.148000+00:00", "E1")
    body = json.dumps(event("message.received", INBOUND | {"received_at": "2019-12-09T21:32:14Z"}))
    _, [received] = post(signed({}, body.encode()), body.encode())
    assert received.rtime.isoformat() == "2019-12-09T21:32:14+00:00"


def test_a_new_status_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:

    body = json.dumps(event("message.sent", outbound("teleported"))).encode()
    client, heard = receiver(EXAMPLES)
    with caplog.at_level(logging.WARNING, "smsqueue.providers.account"):
        for _ in range(2):
            client.post(f"/{PREFIX}/main/status", data=body, headers=signed({}, body))
    assert [each.status for each in heard] == ["teleported"] * 2
    assert len([r for r in caplog.records if "teleported" in r.getMessage()]) == 1


def test_a_report_that_is_not_recorded_is_answered_503() -> None:
    client = client_of_failing_gateway(EXAMPLES)
    assert webhook_status(client, "status", data=BODY, headers=signed({}, BODY)) == 503
