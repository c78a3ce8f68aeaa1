"""Bird."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from smsqueue import exc
from smsqueue.message.states import State
from smsqueue.providers.authentic import hmac_base64
from smsqueue.providers.bird import BirdProvider
from smsqueue.testing.contract import Check, checks, made, seen_by
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
from tests.providers.helpers import account, client_of_failing_gateway, malformed, webhook_status

KEY = "bk_eu1_bird-api-key"
RAW, RAW_OLD = b"0123456789abcdef", b"fedcba9876543210"
SECRET, OLD = ("whsec_" + b64encode(raw).decode() for raw in (RAW, RAW_OLD))
PATH = "/v1/sms/messages"


def told(status: str = "accepted", **more: Any) -> dict[str, Any]:
    """A message as Bird tells it."""
    return {"id": "sms_1", "status": status, "metadata": {"smsqueue": REF}, **more}


GOOD = Answer(202, told())
SENT = {
    "to": "+15551234567",
    "text": "hello",
    "category": "transactional",
    "metadata": {"smsqueue": REF},
}


def signed(body: bytes, key: bytes = RAW, at: float = 0, id: str = "msg_1") -> dict[str, str]:
    sent_at = str(int(time.time() + at))
    signature = hmac_base64(key, f"{id}.{sent_at}.".encode() + body)
    return {
        "webhook-id": id,
        "webhook-timestamp": sent_at,
        "webhook-signature": f"v1,{signature}",
    }


def sign(method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
    return headers | signed(body)


bad = partial(malformed, sign=sign)


def errors(kind: Any, status: int, name: Any = "Name", code: Any = "E01234") -> Answer:
    error = {"type": kind, "code": code, "name": name, "message": "no", "request_id": "req_1"}
    return Answer(status, {"error": error})


def refused(kind: str, status: int, error: type[exc.ProviderError], **more: Any) -> Refusal:
    named = more.pop("name", "Name")
    name = f"{kind} in {status} {named}"
    return Refusal(name, errors(kind, status, named), error, code="E01234", **more)


def event(kind: str, **data: Any) -> dict[str, Any]:
    data = {"sms_id": "sms_1", "to": "+15551234567", "from": "Shop"} | data
    return {"type": kind, "timestamp": "2026-05-21T12:00:00Z", "data": data}


def status(word: str, state: State | None, code: str | None = None) -> Webhook:
    error = {"error": {"code": code, "description": "why"}} if code else {}
    reported = [Reported(state, "sms_1", REF, code, word)]
    told = event(f"sms.{word}", metadata={"smsqueue": REF}, **error)
    return hook(f"status {word}", "/status", reported, told)


RECEIVED = event(
    "sms.received", sms_id="sms_9", **{"from": "+15551234567", "to": "+15550009999"}, text="hi"
)


def hook(name: str, path: str, events: list[Any], json: Any, status: int = 204) -> Webhook:
    return Webhook(name, path, events, json=json, sign=sign, status=status)


sends = partial(Sending, answer=GOOD, msgid="sms_1", path=PATH)

EXAMPLES = Examples(
    provider=BirdProvider,
    config={"api_key": KEY, "secret": SECRET},
    good=GOOD,
    secrets=[KEY, SECRET],
    sendings=[
        sends(
            "a text",
            message(status_report=True),
            json=SENT,
            headers={"Authorization": f"Bearer {KEY}", "Idempotency-Key": REF},
        ),
        sends(
            "a number as the sender",
            message(src="1 555 000 9999"),
            json=SENT | {"from": "+15550009999"},
        ),
        sends(
            "a short code, of another category",
            message(senderId="12345"),
            json=SENT | {"from": "12345", "category": "marketing"},
            config={"category": "marketing"},
        ),
        sends(
            "a sender id, parameters",
            message(
                senderId="My-Shop_1",
                params={
                    "category": "authentication",
                    "metadata": {"reference": 5, "smsqueue": "no"},
                    "to": "+15550001111",
                },
            ),
            json=SENT
            | {"from": "My-Shop_1", "category": "authentication"}
            | {"metadata": {"smsqueue": REF, "reference": 5}},
        ),
        sends(
            "a template",
            message(params={"template": {"slug": "otp", "parameters": {"code": "1"}}}),
            json={"to": "+15551234567", "metadata": {"smsqueue": REF}}
            | {"template": {"slug": "otp", "parameters": {"code": "1"}}},
        ),
        sends(
            "the answer of before",
            message(),
            answer=Answer(202, told("sent"), {"Idempotency-Replay": "true"}),
            json=SENT,
        ),
    ],
    unsupported=[message(expires=5)],
    refusals=[
        refused("auth_error", 401, exc.AuthError),
        refused("permission_error", 403, exc.AuthError),
        refused("misdirected_error", 421, exc.AuthError),
        refused("billing_error", 402, exc.CreditError),
        refused("billing_error", 403, exc.CreditError),
        refused("rate_limit_error", 429, exc.LimitsError),
        refused("bad_request_error", 400, exc.RequestError),
        refused("validation_error", 422, exc.RequestError),
        refused("validation_error", 422, exc.UnsupportedError, name="SMSUnsupportedFeature"),
        refused("too_early_error", 425, exc.ServerError),
        refused("not_implemented_error", 501, exc.UnsupportedError),
        refused("service_unavailable_error", 503, exc.ServerError),
        refused("internal_error", 500, exc.ServerError, ambiguous=True),
        refused("never_seen_error", 418, exc.RequestError),
        # The first request of that key may have been taken, or may yet be.
        refused("conflict_error", 409, exc.RequestError, ambiguous=True, name="RequestInProgress"),
        refused(
            "conflict_error", 409, exc.RequestError, ambiguous=True, name="IdempotencyKeyReuse"
        ),
        Refusal("409 without a code", Answer(409, ""), exc.RequestError, ambiguous=True),
        Refusal(
            "a type without a code",
            errors("auth_error", 400, code=None),
            exc.AuthError,
            code="auth_error",
        ),
        Refusal("an odd error", errors(["x"], 400, {}, 5), exc.RequestError),
        Refusal("401 without a code", Answer(401, ""), exc.AuthError),
        Refusal("202 without an id", Answer(202, {}), exc.ServerError, ambiguous=True),
        Refusal("202 with an error", errors("billing_error", 202), exc.CreditError, "E01234"),
        Refusal("202, no id", Answer(202, {"status": "rejected"}), exc.RequestError),
        refused("server_error", 503, exc.ServerError, ambiguous=True),
        Refusal(
            "given up at once",
            Answer(202, told("rejected", last_error={"code": "recipient_opted_out"})),
            exc.RequestError,
            code="recipient_opted_out",
        ),
    ],
    webhooks=[
        hook("incoming", "/im", [Received("15551234567", "hi", "15550009999", "sms_9")], RECEIVED),
        hook(
            "incoming, where the reports come",
            "/status",
            [Received("15551234567", "hi", "15550009999", "sms_9")],
            RECEIVED,
        ),
        hook(
            "incoming, without a text",
            "/im",
            [Received("15551234567", "", "15550009999", "sms_9")],
            RECEIVED | {"data": {k: v for k, v in RECEIVED["data"].items() if k != "text"}},
        ),
        hook("of another channel", "/im", [], {"type": "email.delivered", "data": {"n": 15}}),
        hook(
            "a report without metadata",
            "/status",
            [Reported(State.DELIVERED, "sms_1")],
            event("sms.delivered", metadata=None),
        ),
        status("accepted", State.ACCEPTED),
        status("sent", State.ACCEPTED),
        status("delivered", State.DELIVERED),
        status("expired", State.EXPIRED, "unreachable"),
        status("failed", State.UNDELIVERED, "landline_unreachable"),
        status("rejected", State.UNDELIVERED, "recipient_opted_out"),
        status("undelivered", State.UNDELIVERED, "blocked_by_carrier"),
        status("canceled", State.UNDELIVERED),
        status("never_seen", None),
    ],
    refused=[
        ("a list", hook("", "/im", [], []), 400),
        ("no type", hook("", "/im", [], {"data": {}}), 400),
        ("no data", hook("", "/im", [], {"type": "sms.sent"}), 400),
        ("no id", hook("", "/im", [], {"type": "sms.sent", "data": {}}), 400),
        ("no sender", hook("", "/im", [], event("sms.received", **{"from": None})), 400),
        bad("nested too deeply", "/im", body=b"[" * 100_000),
    ],
)


@pytest.mark.parametrize("check", checks(EXAMPLES), ids=str)
def test_contract(check: Check) -> None:
    check()


def test_the_region_is_in_the_key() -> None:
    assert made(EXAMPLES, "")[1].url == "https://eu1.platform.bird.com"
    assert made(EXAMPLES, "", region="us1")[1].url == "https://us1.platform.bird.com"
    assert made(EXAMPLES, "https://example.org")[1].url == "https://example.org"
    with pytest.raises(ValueError, match="region"):
        made(EXAMPLES, "", api_key="secret")


def test_a_repeated_sending_is_the_same_request() -> None:
    """Bird would take a request that differs for another one."""
    first, second = (seen_by(EXAMPLES, message(params={"b": 1, "a": 2}))[0] for _ in range(2))
    assert first.body == second.body
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"] == REF
    pinned = message(reference=REF.replace(".1", ".2"))
    pinned.dedup_key = "the key of the first attempt"
    [seen] = seen_by(EXAMPLES, pinned)
    assert seen.headers["Idempotency-Key"] == "the key of the first attempt"
    assert BirdProvider.dedup_window <= 2.5 * 3600


# --- Looking up --------------------------------------------------------------------------------


def looked_up(*items: Any) -> Any:
    answers = [Answer(200, {"data": list(items), "next_cursor": None})]
    with account(EXAMPLES, *answers) as (provider, stub):
        found = provider.look_up(message(), datetime.now(UTC))
    assert (stub.seen[0].method, stub.seen[0].path) == ("GET", PATH)
    assert stub.seen[0].query == {"to": "+15551234567", "direction": "outbound"}
    return found


def test_look_up_finds_a_message_by_our_reference() -> None:
    other = told("delivered", id="sms_2", metadata={"smsqueue": REF.replace(".1", ".2")})
    failed = told("failed", last_error={"code": "unreachable"})
    found = looked_up("odd", {"metadata": []}, other, failed)
    assert (found.msgid, found.reference, found.state) == ("sms_1", REF, State.UNDELIVERED)
    assert (found.status, found.status_code) == ("failed", "unreachable")
    assert looked_up(other, told(metadata=None)) is None
    assert looked_up() is None


def test_a_look_up_that_fails() -> None:
    answers = [Answer(200, {}), Answer(409, ""), Answer(500, ""), Answer(cut=True)]
    with account(EXAMPLES, *answers) as (provider, _stub):
        for _ in range(4):
            with pytest.raises(exc.ProviderError) as caught:
                provider.look_up(message(), datetime.now(UTC))
            assert not caught.value.ambiguous


# --- The signature -----------------------------------------------------------------------------

Post = Callable[..., int]


def receiving(**config: Any) -> tuple[Post, list[Any]]:
    """What posts a body with headers and tells the answer's status."""
    client, heard = receiver(EXAMPLES, **config)

    def post(headers: dict[str, str], body: bytes) -> int:
        return webhook_status(client, "status", data=body, headers=headers)

    return post, heard


BODY = json.dumps(event("sms.delivered")).encode()


def test_the_published_example_of_a_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the Standard Webhooks specification. It is genuine, and no event: 400."""
    monkeypatch.setattr(time, "time", lambda: 1614265400.0)
    post, _ = receiving(secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    body = b'{"test": 2432232314}'
    assert post(headers, body) == 400
    assert post(headers, body + b" ") == 403
    assert post(headers | {"webhook-id": "msg_2"}, body) == 403
    assert post(headers | {"webhook-timestamp": "1614265331"}, body) == 403
    monkeypatch.setattr(time, "time", lambda: 1614265330.0 + 301)
    assert post(headers, body) == 403
    monkeypatch.setattr(time, "time", lambda: 1614265330.0 - 301)
    assert post(headers, body) == 403


def test_secrets_rotate() -> None:
    post, heard = receiving(secret=[SECRET, OLD.removeprefix("whsec_")])
    assert [post(signed(BODY, key), BODY) for key in (RAW, RAW_OLD)] == [204, 204]
    assert post(signed(BODY, b"another"), BODY) == 403
    assert len(heard) == 2


def test_bird_signs_with_both_secrets_while_it_rotates_them() -> None:
    post, heard = receiving()
    headers = signed(BODY)
    genuine = headers["webhook-signature"]
    for signatures in (f"v1,AAAA {genuine}", f"{genuine} v1a,AAAA"):
        assert post(headers | {"webhook-signature": signatures}, BODY) == 204
    for signatures in ("", " ", "v1,", "v1,AAAA", genuine.replace("v1", "v2"), genuine[3:]):
        assert post(headers | {"webhook-signature": signatures}, BODY) == 403
    assert len(heard) == 2
    assert heard[0].rtime.isoformat() == "2026-05-21T12:00:00+00:00"


def test_a_replay_is_refused() -> None:
    post, heard = receiving()
    assert post(signed(BODY, at=-400), BODY) == 403
    assert post(signed(BODY, at=400), BODY) == 403
    assert post(signed(BODY, at=-200), BODY) == 204
    assert len(heard) == 1


@pytest.mark.parametrize("sent_at", ["", "soon", "nan", "inf"])
def test_an_invalid_time_is_refused(sent_at: str) -> None:
    post, heard = receiving()
    signature = "v1," + hmac_base64(RAW, f"msg_1.{sent_at}.".encode() + BODY)
    headers = {"webhook-id": "msg_1", "webhook-timestamp": sent_at, "webhook-signature": signature}
    assert post(headers, BODY) == 403
    assert heard == []


@pytest.mark.parametrize(
    "secret", ["whsec_", "whsec_%%%", "whsec_AAA%A", "whsec_A", ["whsec_AAAA", ""]]
)
def test_an_invalid_secret_is_refused(secret: Any) -> None:
    with pytest.raises(ValueError, match="secret"):
        receiving(secret=secret)


def test_odd_times_are_no_reason_to_refuse() -> None:
    post, heard = receiving(insecure=True)
    for at in ("yesterday", None, "2026-05-21 12:00:00", "2026-05-21T12:00:00+00:00"):
        odd = json.dumps(event("sms.delivered") | {"timestamp": at}).encode()
        assert post({}, odd) == 204
    assert [each.rtime == datetime(2026, 5, 21, 12, tzinfo=UTC) for each in heard] == [
        False
    ] * 3 + [True]
    assert all(each.rtime.tzinfo for each in heard)


def test_a_webhook_that_was_not_recorded_is_to_be_repeated() -> None:
    client = client_of_failing_gateway(EXAMPLES)
    assert webhook_status(client, "status", data=BODY, headers=signed(BODY)) == 503
