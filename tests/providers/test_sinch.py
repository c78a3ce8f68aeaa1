"""Sinch."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from smsqueue import exc
from smsqueue.message.states import State
from smsqueue.providers.authentic import hmac_base64
from smsqueue.providers.sinch import SinchProvider
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
from smsqueue.testing.stub import Answer, Stub
from smsqueue.testing.webhook_checks import receiver
from tests.providers.helpers import account, basic, failure_of, malformed, webhook_status

PLAN, TOKEN, KEY = "plan1", "sinch-api-token", "sinch-hmac-key"
PATH = f"/xms/v1/{PLAN}/batches"
GOOD = Answer(201, {"id": "01FC", "to": ["+15551234567"], "canceled": False, "type": "mt_text"})


def signed(
    body: bytes, *, key: str = KEY, nonce: str = "n1", at: float | str = ""
) -> dict[str, str]:
    stamp = str(at or int(time.time()))
    return {
        "X-Sinch-Webhook-Signature": hmac_base64(key, body + f".{nonce}.{stamp}".encode()),
        "X-Sinch-Webhook-Signature-Nonce": nonce,
        "X-Sinch-Webhook-Signature-Timestamp": stamp,
        "X-Sinch-Webhook-Signature-Algorithm": "HmacSHA256",
    }


def sign(method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
    return headers | signed(body)


hook = partial(Webhook, sign=sign, status=204)
bad = partial(malformed, sign=sign)


def ends_in(seconds: float) -> Any:
    """Judges a time: that long from now, as it is when it is judged."""

    def judge(text: str) -> bool:
        left = datetime.fromisoformat(text) - datetime.now(UTC)
        return text.endswith("Z") and timedelta(0) < timedelta(seconds=seconds) - left < timedelta(
            hours=1
        )

    return judge


def body(**more: Any) -> dict[str, Any]:
    return {
        "from": "+15550009999",
        "to": ["+15551234567"],
        "body": "hello",
        "type": "mt_text",
        "client_reference": REF,
    } | more


def refused(status: int, code: str, error: type[exc.ProviderError]) -> Refusal:
    return Refusal(f"{status} {code}", Answer(status, {"code": code, "text": "no"}), error, code)


def told(status: str, code: int, **more: Any) -> dict[str, Any]:
    return {
        "type": "recipient_delivery_report_sms",
        "batch_id": "01FC",
        "recipient": "15551234567",
        "code": code,
        "status": status,
        "at": "2022-08-30T08:16:08.930Z",
        "client_reference": REF,
    } | more


def reported(state: State | None, status: str, code: int) -> Webhook:
    return hook(
        f"{status} {code}",
        "/status",
        [Reported(state, "01FC", REF, code, status)],
        json=told(status, code),
    )


INCOMING = {
    "type": "mo_text",
    "id": "01XX",
    "from": "15551234567",
    "to": "15550009999",
    "body": "hi there",
    "received_at": "2022-08-24T14:15:22.000Z",
}

sends = partial(Sending, answer=GOOD, msgid="01FC", path=PATH)

EXAMPLES = Examples(
    provider=SinchProvider,
    config={
        "service_plan_id": PLAN,
        "api_token": TOKEN,
        "hmac_key": KEY,
        "sender": "15550009999",
    },
    good=GOOD,
    secrets=[TOKEN, KEY],
    secret="hmac_key",
    sendings=[
        sends("a text", message(), json=body(), headers={"Authorization": f"Bearer {TOKEN}"}),
        sends(
            "report, validity, sender id",
            message(status_report=True, expires=120, senderId="My Shop"),
            json=body(
                **{"from": "My Shop"},
                delivery_report="per_recipient",
                callback_url=f"{PUBLIC_URL}/{PREFIX}/main/status",
                expire_at=ends_in(7200),
            ),
        ),
        sends(
            "short code, longest validity",
            message(src="12345", expires=100_000),
            json=body(**{"from": "12345"}, expire_at=ends_in(3 * 86400)),
        ),
        sends(
            "no sender; no parameter replaces recipient and reference",
            message(params={"flash_message": True, "to": ["1", "2"], "client_reference": "x"}),
            json={k: v for k, v in body(flash_message=True).items() if k != "from"},
            config={"sender": None},
        ),
    ],
    refusals=[
        refused(400, "syntax_invalid_json", exc.RequestError),
        refused(400, "syntax_invalid_parameter_format", exc.RequestError),
        refused(400, "syntax_constraint_violation", exc.RequestError),
        refused(400, "something_new", exc.RequestError),
        refused(401, "unauthorized", exc.AuthError),
        refused(402, "payment_required", exc.CreditError),
        refused(403, "unknown_group", exc.RequestError),
        refused(403, "unknown_campaign", exc.RequestError),
        refused(403, "missing_callback_url", exc.RequestError),
        refused(403, "forbidden", exc.AuthError),
        refused(404, "not_found", exc.RequestError),
        refused(429, "too_many", exc.LimitsError),
        refused(500, "internal_error", exc.ServerError),
        Refusal("403 without a code", Answer(403, ""), exc.AuthError),
        Refusal("201 without an id", Answer(201, {"to": []}), exc.ServerError, ambiguous=True),
        refused(201, "syntax_constraint_violation", exc.RequestError),
        Refusal("201, to nobody", Answer(201, {"id": "01FC", "to": []}), exc.RequestError),
        Refusal("201, cancelled", Answer(201, {"id": "01FC", "canceled": True}), exc.RequestError),
        refused(503, "service_unavailable", exc.ServerError),
        Refusal("201 with a list", Answer(201, []), exc.ServerError, ambiguous=True),
    ],
    webhooks=[
        hook(
            "incoming",
            "/im",
            [Received("15551234567", "hi there", "15550009999", "01XX")],
            json=INCOMING,
        ),
        hook(
            "incoming, at the address of reports",
            "/status",
            [Received("15551234567", "hi there", "15550009999", "01XX")],
            json=INCOMING,
        ),
        hook(
            "incoming, binary",
            "/im",
            [Received("15551234567", "", "15550009999", "01XX")],
            json=INCOMING | {"type": "mo_binary", "body": "AAEC", "udh": "00"},
        ),
        hook(
            "incoming, media",
            "/im",
            [Received("15551234567", "look", "15550009999", "01XX")],
            json=INCOMING | {"type": "mo_media", "body": {"message": "look", "media": []}},
        ),
        reported(State.ACCEPTED, "Queued", 400),
        reported(State.ACCEPTED, "DISPATCHED", 401),
        reported(State.DELIVERED, "Delivered", 0),
        reported(State.DELIVERED, "DELIVERED", 0),
        reported(State.EXPIRED, "Expired", 406),
        reported(State.EXPIRED, "Failed", 406),
        reported(State.UNDELIVERED, "Aborted", 407),
        reported(State.UNDELIVERED, "Cancelled", 407),
        reported(State.UNDELIVERED, "Rejected", 402),
        reported(State.UNDELIVERED, "Deleted", 408),
        reported(State.UNDELIVERED, "Failed", 413),
        reported(State.ACCEPTED, "Unknown", 0),
        reported(None, "Teleported", 499),
        hook(
            "the report of a batch",
            "/status",
            [Reported(State.DELIVERED, "01FC", REF, 0), Reported(State.UNDELIVERED, "01FC", REF)],
            json={
                "type": "delivery_report_sms",
                "batch_id": "01FC",
                "client_reference": REF,
                "total_message_count": 2,
                "statuses": [
                    {"code": 0, "status": "Delivered", "count": 1},
                    {"code": 402, "status": "Rejected", "count": 1},
                ],
            },
        ),
        hook(
            "a report without our reference",
            "/im",
            [Reported(State.DELIVERED, "01FC", None)],
            json=told("Delivered", 0, client_reference=None),
        ),
    ],
    refused=[
        bad("no type", "/im", json={"id": "1"}),
        bad("no text", "/im", json=INCOMING | {"body": 1}),
        bad("another type", "/im", json={"type": "voice"}),
        bad("a list", "/im", json=[1]),
        bad("no JSON", "/im", body=b"x=y"),
        bad("nested too deeply", "/im", body=b"[" * 100_000),
        bad("no from", "/im", json={"type": "mo_text", "body": ""}),
        bad("no statuses", "/status", json={"type": "delivery_report_sms"}),
    ],
)


@pytest.mark.parametrize("check", checks(EXAMPLES), ids=str)
def test_contract(check: Check) -> None:
    check()


# --- where it is ---------------------------------------------------------------------------------


def test_the_region_is_in_the_address() -> None:
    provider = SinchProvider(None, "main", service_plan_id="p", api_token="t")
    assert provider.url == "https://us.sms.api.sinch.com"
    provider = SinchProvider(None, "main", service_plan_id="p", api_token="t", region="eu")
    assert provider.url == "https://eu.sms.api.sinch.com"


@pytest.mark.parametrize("region", ["", "evil.example.org/", "eu.x"])
def test_an_invalid_region_is_refused(region: str) -> None:
    with pytest.raises(SettingsError, match="region"):
        SinchProvider(None, "main", service_plan_id="p", api_token="t", region=region)


# --- a project's key ------------------------------------------------------------------------------

PROJECT: dict[str, Any] = {
    "service_plan_id": None,
    "api_token": None,
    "project_id": "pr/1",
    "key_id": "key-id",
    "key_secret": "key-secret",
}
TOKENS = "/oauth2/token"


def token(text: Any = "tok1", seconds: Any = 3600) -> Answer:
    return Answer(200, {"access_token": text, "expires_in": seconds, "token_type": "bearer"})


def project(stub: Stub, **config: Any) -> Any:
    return made(EXAMPLES, stub.url, **PROJECT | {"auth_url": f"{stub.url}{TOKENS}"} | config)[1]


def paths(stub: Stub) -> list[str]:
    return [each.path.rpartition("/")[2] for each in stub.seen]


def test_a_project_sends_with_a_token() -> None:
    with Stub(token(), GOOD) as stub:
        provider = project(stub)
        sent = provider.send(message())
        provider.send(message())
    asked, first, second = stub.seen
    assert sent.msgid == "01FC"
    assert (asked.method, asked.path) == ("POST", TOKENS)
    assert asked.form == {"grant_type": "client_credentials"}
    assert asked.headers["Authorization"] == basic("key-id:key-secret")["Authorization"]
    assert (first.path, first.json) == ("/xms/v1/pr%2F1/batches", body())
    assert [each.headers["Authorization"] for each in (first, second)] == ["Bearer tok1"] * 2


def test_where_a_project_is() -> None:
    provider = SinchProvider(None, "main", region="eu", **PROJECT)
    assert provider.url == "https://zt.eu.sms.api.sinch.com"


def test_a_token_is_renewed_before_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with Stub(token(), GOOD, GOOD, token("tok2"), GOOD) as stub:
        provider = project(stub)
        for later in (0, 3500, 3590):
            monkeypatch.setattr(time, "monotonic", lambda at=now + later: at)
            provider.send(message())
    assert paths(stub) == ["token", "batches", "batches", "token", "batches"]
    assert stub.seen[-1].headers["Authorization"] == "Bearer tok2"


def test_a_token_that_was_refused_is_not_used_again() -> None:
    with Stub(token(), Answer(401, ""), token("tok2"), GOOD) as stub:
        provider = project(stub)
        with pytest.raises(exc.AuthError):
            provider.send(message())
        provider.send(message())
    assert paths(stub) == ["token", "batches", "token", "batches"]
    assert stub.seen[-1].headers["Authorization"] == "Bearer tok2"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(401, {"error": "invalid_client"}), exc.AuthError),
        (Answer(400, {"error": "invalid_client"}), exc.AuthError),
        (Answer(302, "", {"Location": "https://example.org"}), exc.AuthError),
        (Answer(429, "", {"Retry-After": "7"}), exc.LimitsError),
        (Answer(500, "<html>"), exc.ServerError),
        (Answer(502, ""), exc.ServerError),
        (Answer(cut=True), exc.ConnectionError),
        (Answer(200, "<html>"), exc.ServerError),
        (token(None), exc.ServerError),
        (token(""), exc.ServerError),
        (token("two\r\nlines"), exc.ServerError),
        (token("żółć"), exc.ServerError),
    ],
)
def test_without_a_token_nothing_is_sent(answer: Answer, error: type[exc.ProviderError]) -> None:
    with Stub(answer) as stub, pytest.raises(error) as raised:
        project(stub).send(message())
    assert type(raised.value) is error
    assert (raised.value.ambiguous, raised.value.provider) == (False, "main")
    assert paths(stub) == ["token"]
    assert "key-secret" not in f"{raised.value!r}"


@pytest.mark.parametrize("seconds", [None, "3600", float("nan"), -5, 1e300, True])
def test_a_token_without_an_expiry_is_cached_briefly(seconds: Any) -> None:
    with Stub(token(seconds=seconds), GOOD) as stub:
        project(stub).send(message())
    assert paths(stub) == ["token", "batches"]


def test_threads_share_a_token() -> None:
    with Stub(token(), GOOD) as stub:
        provider = project(stub)
        with ThreadPoolExecutor(8) as threads:
            sent = list(threads.map(lambda n: provider.send(message()).msgid, range(8)))
    assert sent == ["01FC"] * 8
    assert paths(stub).count("token") == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"project_id": None},
        {"key_secret": None},
        {"key_id": ""},
        {"service_plan_id": PLAN},
        {"service_plan_id": PLAN, "api_token": TOKEN},
        dict.fromkeys(PROJECT),
    ],
)
def test_it_is_either_a_plan_or_a_project(changed: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="project_id, key_id and key_secret"):
        made(EXAMPLES, "http://127.0.0.1:9", **PROJECT | changed)


# --- looking up ----------------------------------------------------------------------------------

SINCE = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


def look_up(provider: Any) -> Any:
    return provider.look_up(message(), SINCE)


def looked_up(*batches: Any) -> Any:
    answers = [Answer(200, {"count": 1, "page": 0, "batches": list(batches)})]
    with account(EXAMPLES, *answers) as (provider, stub):
        report = look_up(provider)
    [seen] = stub.seen
    assert (seen.method, seen.path) == ("GET", PATH)
    assert seen.query == {"client_reference": REF, "start_date": "2026-01-02T02:04:05.678Z"}
    return report


def test_look_up_finds_a_batch_by_our_reference() -> None:
    report = looked_up({"id": "01FC", "client_reference": REF, "canceled": False})
    assert (report.state, report.msgid, report.reference) == (State.ACCEPTED, "01FC", REF)


def test_what_is_not_listed_is_not_known() -> None:
    assert looked_up() is None


def test_a_batch_of_another_message_is_not_taken_for_it() -> None:
    assert looked_up({"id": "01FD", "client_reference": REF[:-1] + "2"}) is None
    report = looked_up({"id": "x", "client_reference": "x"}, {"id": "y", "client_reference": REF})
    assert report.msgid == "y"
    assert looked_up({}, {"client_reference": REF}, {"id": "x", "client_reference": None}) is None


@pytest.mark.parametrize("text", ["", "[]", '{"batches": null}', '{"batches": [1]}', "<html>"])
def test_a_list_that_cannot_be_read_is_an_error(text: str) -> None:
    error = failure_of(EXAMPLES, look_up, Answer(200, text))
    assert (isinstance(error, exc.ServerError), error.ambiguous) == (True, False)


def test_an_error_while_looking_up_is_never_uncertain() -> None:
    for answer in (Answer(500, "<html>"), Answer(cut=True)):
        error = failure_of(EXAMPLES, look_up, answer)
        assert error.ambiguous is False


def test_there_is_no_balance() -> None:
    _, provider, _ = made(EXAMPLES, "http://127.0.0.1:9")
    with pytest.raises(exc.UnsupportedError):
        provider.balance()


# --- callbacks -----------------------------------------------------------------------------------

ONE = json.dumps(told("Delivered", 0)).encode()


def post(data: bytes, headers: dict[str, str], **config: Any) -> tuple[int, Any]:
    client, heard = receiver(EXAMPLES, **config)
    return webhook_status(client, "im", data=data, headers=headers), heard


#: Sinch's own, of its SDKs' tests.
PUBLISHED = (
    '{"app_id":"","accepted_time":"2021-10-18T17:49:13.813615Z",'
    '"project_id":"e2df3a34-a71b-4448-9db5-a8d2baad28e4","contact_create_notification":{"contact":'
    '{"id":"01FJA8B466Y0R2GNXD78MD9SM1","channel_identities":[{"channel":"SMS",'
    '"identity":"48123456789","app_id":""}],"display_name":"New Test Contact",'
    '"email":"new.contact@email.com","external_id":"","metadata":"","language":"EN_US"}},'
    '"message_metadata":""}'
)


def test_the_published_example_of_a_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = {
        "x-sinch-webhook-signature-nonce": "01FJA8B4A7BM43YGWSG9GBV067",
        "x-sinch-webhook-signature-timestamp": "1634579353",
        "x-sinch-webhook-signature": "6bpJoRmFoXVjfJIVglMoJzYXxnoxRujzR4k2GOXewOE=",
    }
    config = {"hmac_key": "foo_secret1234"}
    monkeypatch.setattr(time, "time", lambda: 1634579400.0)
    # It is genuine, but no SMS: not understood.
    assert post(PUBLISHED.encode(), headers, **config) == (400, [])
    assert post(PUBLISHED.encode() + b" ", headers, **config) == (403, [])
    monkeypatch.setattr(time, "time", lambda: 1634579353 + 86400 + 60.0)
    assert post(PUBLISHED.encode(), headers, **config) == (403, [])


@pytest.mark.parametrize("key", ["new", "old"])
def test_a_signature_of_all_keys_is_taken_while_they_change(key: str) -> None:
    code, heard = post(ONE, signed(ONE, key=key), hmac_key=["new", "old"])
    assert (code, len(heard)) == (204, 1)


@pytest.mark.parametrize("header", ["", "-Nonce", "-Timestamp"])
@pytest.mark.parametrize("value", [None, "1"])
def test_a_signature_with_a_part_changed_is_refused(header: str, value: str | None) -> None:
    headers = signed(ONE)
    del headers[f"X-Sinch-Webhook-Signature{header}"]
    if value:
        headers[f"X-Sinch-Webhook-Signature{header}"] = value
    assert post(ONE, headers) == (403, [])


@pytest.mark.parametrize("at", [-90_000, 90_000])
def test_a_signature_of_another_day_is_refused(at: int) -> None:
    assert post(ONE, signed(ONE, at=time.time() + at)) == (403, [])
    code, heard = post(ONE, signed(ONE, at=time.time() + at), replay_window=100_000)
    assert (code, len(heard)) == (204, 1)


def test_a_signature_without_a_time_is_refused() -> None:
    assert post(ONE, signed(ONE, at="tomorrow")) == (403, [])
    assert post(ONE, signed(ONE, at="nan")) == (403, [])


BASIC: dict[str, Any] = {"hmac_key": None, "secret": ["new:pass:word", "old:one"]}


@pytest.mark.parametrize("user", ["new:pass:word", "old:one"])
def test_basic_is_taken_from_all_users_while_they_change(user: str) -> None:
    code, heard = post(ONE, basic(user), **BASIC)
    assert (code, len(heard)) == (204, 1)


@pytest.mark.parametrize("user", ["new:pass", "old:two", ":", ""])
def test_basic_with_another_password_is_refused(user: str) -> None:
    assert post(ONE, basic(user), **BASIC) == (403, [])


def test_without_a_key_no_signature_counts() -> None:
    assert post(ONE, signed(ONE, key=""), **BASIC) == (403, [])
    assert post(ONE, {}, **BASIC) == (403, [])


@pytest.mark.parametrize("config", [{"secret": "no-colon"}, {"hmac_key": None, "secret": None}])
def test_settings_that_could_not_authenticate_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        post(ONE, {}, **config)


def test_if_one_event_is_not_recorded_the_response_is_503(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded: list[Any] = []

    def fail(self: Any, status: Any) -> None:
        if recorded:
            raise exc.QueueUnavailable("away")
        recorded.append(status)

    monkeypatch.setattr("smsqueue.gateway.Gateway.receive_status", fail)
    one = {"code": 0, "status": "Delivered"}
    batch = {"type": "delivery_report_sms", "batch_id": "01FC", "statuses": [one, one]}
    data = json.dumps(batch).encode()
    assert post(data, signed(data))[0] == 503
    assert len(recorded) == 1


def test_times_and_details_are_kept() -> None:
    details = {"operator": "35000", "applied_originator": "15550009999", "encoding": "GSM"}
    one = json.dumps(told("Delivered", 0, **details)).encode()
    _, [report] = post(one, signed(one))
    assert report.meta == details | {"at": "2022-08-30T08:16:08.930Z"}
    assert report.rtime == datetime(2022, 8, 30, 8, 16, 8, 930000, tzinfo=UTC)
    data = json.dumps(INCOMING | {"operator_id": "35000", "type": "mo_binary"}).encode()
    _, [received] = post(data, signed(data))
    assert received.rtime == datetime(2022, 8, 24, 14, 15, 22, tzinfo=UTC)
    assert (received.meta["operator_id"], received.meta["body"]) == ("35000", "hi there")


@pytest.mark.parametrize("at", ["yesterday", [], None, "2022-08-30T08:16:08"])
def test_a_time_that_cannot_be_read_is_now(at: Any) -> None:
    before = datetime.now(UTC)
    data = json.dumps(told("Delivered", 0, at=at)).encode()
    _, [report] = post(data, signed(data))
    assert before <= report.rtime <= datetime.now(UTC)


def test_a_status_never_heard_of_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    one = {"code": 499, "status": "Teleported"}
    batch = {"type": "delivery_report_sms", "batch_id": "01FC", "statuses": [one, one]}
    data = json.dumps(batch).encode()
    code, heard = post(data, signed(data))
    assert (code, [each.status for each in heard]) == (204, ["Teleported"] * 2)
    assert caplog.text.count("Teleported") == 1


def test_without_an_address_of_ours_the_plan_s_own_counts() -> None:
    with Stub(GOOD) as stub:
        gateway, provider, _ = made(EXAMPLES, stub.url)
        gateway.settings = Settings(eager=True)
        provider.send(message(status_report=True))
    assert stub.seen[0].json == body(delivery_report="per_recipient")
