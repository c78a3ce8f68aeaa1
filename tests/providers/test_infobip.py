"""Infobip."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from smsqueue import Gateway, Settings, exc
from smsqueue.message.messages import OutgoingMessage
from smsqueue.message.states import State
from smsqueue.providers.authentic import hmac_base64, hmac_hex
from smsqueue.providers.capabilities import Can
from smsqueue.providers.infobip import InfobipProvider
from smsqueue.settings import SettingsError
from smsqueue.testing.contract import PREFIX, PUBLIC_URL, Check, checks, made, seen_by
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
from tests.providers.helpers import account, basic, failure_of, malformed, webhook_status

KEY, HMAC, HEADER = "infobip-api-key", "infobip-hmac-key", "X-Signature"
PATH = "/sms/3/messages"
GROUPS = ["ACCEPTED", "PENDING", "UNDELIVERABLE", "DELIVERED", "EXPIRED", "REJECTED"]


def status(group: int, id: int, name: str) -> dict[str, Any]:
    return {"groupId": group, "groupName": GROUPS[group], "id": id, "name": name}


def answered(group: int, id: int, name: str, msgid: str = REF) -> Answer:
    told = {"messageId": msgid, "status": status(group, id, name), "destination": "15551234567"}
    return Answer(200, {"bulkId": "B1", "messages": [told | {"details": {"messageCount": 1}}]})


GOOD = answered(1, 26, "PENDING_ACCEPTED")
DUPLICATE = answered(5, 23, "REJECTED_DUPLICATE_MESSAGE_ID")


def entry(**more: Any) -> dict[str, Any]:
    told = {
        "sender": "15550009999",
        "destinations": [{"to": "15551234567", "messageId": REF}],
        "content": {"text": "hello"},
        "webhooks": {"contentType": "application/json", "callbackData": REF},
    }
    return {"messages": [told | more], "options": {"includeSmsCountInResponse": True}}


def sign(method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
    return headers | {HEADER: hmac_hex(HMAC, body)}


hook = partial(Webhook, sign=sign)
bad = partial(malformed, sign=sign)


def rejected(id: int, error: type[exc.ProviderError]) -> Refusal:
    return Refusal(f"200, status {id}", answered(5, id, "REJECTED_WHATEVER"), error, code=id)


def told(group: int, id: int, name: str, **more: Any) -> dict[str, Any]:
    return {
        "messageId": REF,
        "to": "15551234567",
        "doneAt": "2019-11-09T16:00:00.000+0100",
        "callbackData": REF,
        "status": status(group, id, name),
        "error": {"id": 0, "name": "NO_ERROR", "permanent": False},
    } | more


def reported(state: State | None, group: int, id: int, name: str) -> Webhook:
    return hook(
        f"{group} {name}",
        "/status",
        [Reported(state, REF, REF, id, name)],
        json={"results": [told(group, id, name)]},
    )


INCOMING = {
    "messageId": "817790313235066447",
    "from": "15551234567",
    "to": "15550009999",
    "text": "QUIZ hi there",
    "cleanText": "hi there",
    "keyword": "QUIZ",
    "receivedAt": "2019-11-09T16:00:00.000+0000",
}
DELIVERED = told(3, 5, "DELIVERED_TO_HANDSET")

sends = partial(Sending, answer=GOOD, msgid=REF, path=PATH)

EXAMPLES = Examples(
    provider=InfobipProvider,
    config={"api_key": KEY, "hmac_key": HMAC, "hmac_header": HEADER, "sender": "+15550009999"},
    good=GOOD,
    secrets=[KEY, HMAC],
    secret="hmac_key",
    sendings=[
        sends("a text", message(), json=entry(), headers={"Authorization": f"App {KEY}"}),
        sends(
            "report, validity, sender id",
            message(status_report=True, expires=5, senderId="My Shop"),
            json=entry(
                sender="My Shop",
                options={"validityPeriod": {"amount": 300, "timeUnit": "SECONDS"}},
                webhooks={
                    "contentType": "application/json",
                    "callbackData": REF,
                    "delivery": {"notify": True, "url": f"{PUBLIC_URL}/{PREFIX}/main/status"},
                },
            ),
        ),
        sends(
            "parameters, no sender, longest validity",
            message(
                expires=100_000,
                params={"options": {"flash": True}, "content": {"transliteration": "GREEK"}},
            ),
            answer=answered(3, 2, "DELIVERED_TO_OPERATOR", "its-own-id"),
            msgid="its-own-id",
            json={
                "messages": [
                    {
                        "destinations": [{"to": "15551234567", "messageId": REF}],
                        "content": {"text": "hello", "transliteration": "GREEK"},
                        "webhooks": {"contentType": "application/json", "callbackData": REF},
                        "options": {
                            "validityPeriod": {"amount": 172800, "timeUnit": "SECONDS"},
                            "flash": True,
                        },
                    }
                ],
                "options": {"includeSmsCountInResponse": True},
            },
            config={"sender": None},
        ),
        sends(
            "parameters that are the request's",
            message(
                params={
                    "schedule": {"sendAt": "2030-01-01T00:00:00.000+0000"},
                    "tracking": {"shortenUrl": True},
                    "includeSmsCountInResponse": False,
                }
            ),
            json=entry()
            | {
                "options": {
                    "schedule": {"sendAt": "2030-01-01T00:00:00.000+0000"},
                    "tracking": {"shortenUrl": True},
                    "includeSmsCountInResponse": False,
                }
            },
        ),
        sends(
            "no parameter replaces the id that prevents doubles",
            message(
                params={"destinations": [{"to": "1", "messageId": "another"}]}
                | {"webhooks": {"callbackData": "another"}}
            ),
            json=entry(),
        ),
    ],
    refusals=[
        *(rejected(id, exc.CreditError) for id in (12, 17)),
        *(rejected(id, exc.ServerError) for id in (21, 100)),
        *(rejected(id, exc.UnsupportedError) for id in (6, 19)),
        *(rejected(id, exc.RequestError) for id in (8, 10, 11, 13, 14, 18, 20, 24, 25, 51, 52)),
        *(rejected(id, exc.RequestError) for id in (87, 99, 4711)),
        Refusal("a duplicate", DUPLICATE, exc.RequestError, code=23, ambiguous=True),
        Refusal(
            "a duplicate that is called pending",
            answered(1, 23, "PENDING"),
            exc.RequestError,
            code=23,
            ambiguous=True,
        ),
        Refusal(
            "undeliverable", answered(2, 9, "UNDELIVERABLE"), exc.ServerError, 9, ambiguous=True
        ),
        Refusal("expired", answered(4, 29, "EXPIRED"), exc.ServerError, 29, ambiguous=True),
        Refusal(
            "a group never heard of",
            Answer(200, {"messages": [{"messageId": REF, "status": {"groupName": "NEW"}}]}),
            exc.ServerError,
            ambiguous=True,
        ),
        Refusal(
            "a status that is none",
            Answer(200, {"messages": [{"messageId": REF, "status": "PENDING"}]}),
            exc.ServerError,
            ambiguous=True,
        ),
        Refusal("no messages", Answer(200, {"messages": []}), exc.RequestError),
        Refusal("200 with an error", Answer(200, {"errorCode": "E400"}), exc.RequestError, "E400"),
        Refusal("not sent", answered(2, 31, "UNDELIVERABLE_NOT_SENT"), exc.RequestError, 31),
        Refusal("blocked", answered(4, 87, "EXPIRED_SIGNALS_BLOCKED"), exc.RequestError, 87),
        Refusal(
            "rejected, by the group's id",
            Answer(200, {"messages": [{"status": {"groupId": 5, "id": 12}}]}),
            exc.CreditError,
            12,
        ),
        Refusal("400", Answer(400, {"errorCode": "E400"}), exc.RequestError, code="E400"),
        Refusal("401", Answer(401, {"errorCode": "E401"}), exc.AuthError, code="E401"),
        Refusal(
            "401 in the older form",
            Answer(401, {"requestError": {"serviceException": {"messageId": "UNAUTHORIZED"}}}),
            exc.AuthError,
            code="UNAUTHORIZED",
        ),
        Refusal("403", Answer(403, {"errorCode": "E403"}), exc.AuthError, code="E403"),
        Refusal("429 of its own", Answer(429, {"errorCode": "E429"}), exc.LimitsError, code="E429"),
        Refusal("500 of its own", Answer(500, {"errorCode": "E500"}), exc.ServerError),
    ],
    unsupported=[],
    webhooks=[
        hook(
            "incoming",
            "/im",
            [Received("15551234567", "QUIZ hi there", "15550009999", "817790313235066447")],
            json={"results": [INCOMING], "messageCount": 1, "pendingMessageCount": 0},
        ),
        hook(
            "two incoming",
            "/im",
            [
                Received("15551234567", "", None, "1"),
                Received("15551234567", "b", "15550009999", "2"),
            ],
            json={
                "results": [
                    {"messageId": "1", "from": "15551234567"},
                    {"messageId": "2", "from": "+15551234567", "to": "15550009999", "text": "b"},
                ]
            },
        ),
        reported(State.ACCEPTED, 1, 3, "PENDING_WAITING_DELIVERY"),
        reported(State.ACCEPTED, 1, 7, "PENDING_ENROUTE"),
        reported(State.ACCEPTED, 1, 26, "PENDING_ACCEPTED"),
        reported(State.ACCEPTED, 3, 2, "DELIVERED_TO_OPERATOR"),
        reported(State.DELIVERED, 3, 5, "DELIVERED_TO_HANDSET"),
        reported(State.UNDELIVERED, 2, 4, "UNDELIVERABLE_REJECTED_OPERATOR"),
        reported(State.UNDELIVERED, 2, 9, "UNDELIVERABLE_NOT_DELIVERED"),
        reported(State.UNDELIVERED, 2, 31, "UNDELIVERABLE_NOT_SENT"),
        reported(State.EXPIRED, 4, 15, "EXPIRED_EXPIRED"),
        reported(State.EXPIRED, 4, 29, "EXPIRED_DLR_UNKNOWN"),
        reported(State.UNDELIVERED, 4, 87, "SIGNALS_BLOCKED"),
        reported(State.UNDELIVERED, 5, 12, "REJECTED_NOT_ENOUGH_CREDITS"),
        reported(State.UNDELIVERED, 5, 4711, "REJECTED_FOR_A_NEW_REASON"),
        reported(None, 5, 23, "REJECTED_DUPLICATE_MESSAGE_ID"),
        reported(None, 3, 4711, "DELIVERED_SOMEHOW"),
        hook(
            "two reports, one without our reference",
            "/status",
            [
                Reported(State.DELIVERED, REF, REF, 5),
                Reported(State.UNDELIVERED, "theirs", None, 9),
            ],
            json={
                "results": [
                    DELIVERED,
                    {"messageId": "theirs", "status": status(2, 9, "UNDELIVERABLE_NOT_DELIVERED")},
                ]
            },
        ),
    ],
    refused=[
        bad("no results", "/status", json={"result": []}),
        bad("no JSON", "/status", body=b"<xml/>"),
        bad("a list", "/im", json=[]),
        bad("nested too deeply", "/im", body=b"[" * 100_000),
        bad("no from", "/im", json={"results": [{"messageId": "1"}]}),
        bad("a status that is none", "/status", json={"results": [{"status": "x"}]}),
        bad("a text", "/status", json={"results": "abc"}),
        bad("an object", "/status", json={"results": {}}),
        bad("nothing", "/status", json={"results": None}),
    ],
)


@pytest.mark.parametrize("check", checks(EXAMPLES), ids=str)
def test_contract(check: Check) -> None:
    check()


# --- sending once --------------------------------------------------------------------------------


def repeated(key: str = f"{REF[:-2]}.7") -> OutgoingMessage:
    asked = message(reference=f"{REF[:-2]}.2")
    asked.dedup_key = key
    asked.repeated = True
    return asked


def test_the_key_is_the_message_id_and_a_repetition_is_the_same_request() -> None:
    first, second = (seen_by(EXAMPLES, repeated()), seen_by(EXAMPLES, repeated()))
    assert first[0].body == second[0].body
    [to] = first[0].json["messages"][0]["destinations"]
    assert to["messageId"] == f"{REF[:-2]}.7"
    assert first[0].json["messages"][0]["webhooks"]["callbackData"] == f"{REF[:-2]}.2"


def test_a_duplicate_is_success_if_this_sending_was_repeated() -> None:
    answer = answered(5, 23, "REJECTED_DUPLICATE_MESSAGE_ID", f"{REF[:-2]}.7")
    with account(EXAMPLES, answer) as (provider, _):
        asked = provider.send(repeated())
    assert asked.msgid == f"{REF[:-2]}.7"


def test_another_refusal_of_a_repetition_is_no_success() -> None:
    with (
        account(EXAMPLES, answered(5, 12, "REJECTED_NOT_ENOUGH_CREDITS")) as (provider, _),
        pytest.raises(exc.CreditError),
    ):
        provider.send(repeated())


def test_the_number_of_parts_is_in_meta() -> None:
    with account(EXAMPLES, GOOD) as (provider, _):
        assert provider.send(message()).meta == {"parts": 1}


def test_how_long_infobip_is_trusted_can_be_set() -> None:
    _, provider, _ = made(EXAMPLES, "http://127.0.0.1:9", dedup_window=60)
    assert provider.dedup_window == 60
    assert Can.DEDUPLICATION in provider.capabilities
    _, provider, _ = made(EXAMPLES, "http://127.0.0.1:9", dedup_window=0)
    assert Can.DEDUPLICATION not in provider.capabilities
    with pytest.raises(SettingsError, match="dedup_window"):
        made(EXAMPLES, "http://127.0.0.1:9", dedup_window=10**6)


# --- looking up ----------------------------------------------------------------------------------

SINCE = datetime(2026, 1, 1, tzinfo=UTC)


def look_up(provider: Any) -> Any:
    return provider.look_up(message(), SINCE)


def looked_up(*entries: Any) -> Any:
    with account(EXAMPLES, Answer(200, {"results": list(entries)})) as (provider, stub):
        report = look_up(provider)
    [seen] = stub.seen
    assert (seen.method, seen.path, seen.query) == ("GET", "/sms/3/logs", {"messageId": REF})
    return report


def test_look_up_reads_the_state_from_the_log() -> None:
    entry = told(1, 7, "PENDING_ENROUTE", destination="15551234567")
    del entry["callbackData"]
    report = looked_up(entry)
    assert (report.state, report.msgid, report.reference) == (State.ACCEPTED, REF, REF)
    assert report.rtime == datetime.fromisoformat("2019-11-09T16:00:00+01:00")


def test_a_message_that_is_not_in_the_log_is_not_known() -> None:
    assert looked_up() is None
    assert looked_up(told(3, 5, "DELIVERED_TO_HANDSET", messageId="another")) is None


def test_a_refused_repetition_in_the_log_says_nothing() -> None:
    duplicate = told(5, 23, "REJECTED_DUPLICATE_MESSAGE_ID")
    assert looked_up(duplicate) is None
    assert looked_up(duplicate, DELIVERED).state == State.DELIVERED


def test_a_repetition_that_was_taken_counts() -> None:
    refused, taken = told(5, 12, "REJECTED_NOT_ENOUGH_CREDITS"), told(1, 7, "PENDING_ENROUTE")
    assert looked_up(refused, taken).state == State.ACCEPTED
    assert looked_up(taken, refused, DELIVERED).state == State.DELIVERED
    assert looked_up(refused).state == State.UNDELIVERED


@pytest.mark.parametrize("body", ["", "[]", '{"results": null}', '{"results": [{}]}', "<html>"])
def test_a_log_that_cannot_be_read_is_an_error(body: str) -> None:
    error = failure_of(EXAMPLES, look_up, Answer(200, body))
    assert (isinstance(error, exc.ServerError), error.ambiguous) == (True, False)


def test_an_error_while_looking_up_is_never_uncertain() -> None:
    for answer in (Answer(500, "<html>"), Answer(cut=True)):
        error = failure_of(EXAMPLES, look_up, answer)
        assert error.ambiguous is False


# --- the balance ---------------------------------------------------------------------------------


def test_the_balance() -> None:
    answers = [Answer(200, {"balance": 47.79134, "currency": "EUR"})]
    with account(EXAMPLES, *answers) as (provider, stub):
        balance = provider.balance()
    assert (str(balance.amount), balance.currency) == ("47.79134", "EUR")
    assert stub.seen[0].path == "/account/1/balance"


# --- webhooks ------------------------------------------------------------------------------------


def post(
    body: Any, headers: dict[str, str], path: str = "status", **config: Any
) -> tuple[int, Any]:
    client, heard = receiver(EXAMPLES, **config)
    data = json.dumps(body)
    return webhook_status(client, path, data=data, headers=headers), heard


def raw(body: bytes, path: str) -> tuple[int, Any]:
    """The answer to a body, and its events."""
    client, heard = receiver(EXAMPLES, insecure=True)
    return webhook_status(client, path, data=body), heard


ONE = {"results": [DELIVERED]}
BASIC: dict[str, Any] = {
    "hmac_key": None,
    "hmac_header": None,
    "secret": ["new:pass:word", "old:one"],
}


@pytest.mark.parametrize("user", ["new:pass:word", "old:one"])
def test_basic_is_taken_from_all_users_while_they_change(user: str) -> None:
    code, heard = post(ONE, basic(user), **BASIC)
    assert (code, len(heard)) == (200, 1)


@pytest.mark.parametrize("user", ["new:pass", "old:two", ":", "new:pass:word ", ""])
def test_basic_with_another_password_is_refused(user: str) -> None:
    assert post(ONE, basic(user), **BASIC) == (403, [])


def test_nothing_is_refused_with_basic() -> None:
    assert post(ONE, {}, **BASIC) == (403, [])


def test_a_signature_of_all_keys_is_taken_while_they_change() -> None:
    body = json.dumps(ONE).encode()
    for key in ("new", "old"):
        for text in (hmac_hex(key, body), hmac_base64(key, body)):
            code, heard = post(ONE, {HEADER: text}, hmac_key=["new", "old"])
            assert (code, len(heard)) == (200, 1)
    assert post(ONE, {HEADER: hmac_hex("other", body)}, hmac_key=["new", "old"]) == (403, [])


def test_a_signature_in_another_header_is_refused() -> None:
    assert post(ONE, {"X-Other": hmac_hex(HMAC, json.dumps(ONE).encode())}) == (403, [])


@pytest.mark.parametrize("digest", ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"])
def test_the_algorithm_of_the_signature_can_be_set(digest: str) -> None:
    body = json.dumps(ONE).encode()
    for text in (hmac_hex(HMAC, body, digest), hmac_base64(HMAC, body, digest)):
        assert post(ONE, {HEADER: text}, hmac_digest=digest)[0] == 200
        other = "sha1" if digest == "sha256" else "sha256"
        assert post(ONE, {HEADER: text}, hmac_digest=other) == (403, [])


@pytest.mark.parametrize(
    "config",
    [
        {"hmac_header": None},
        {"hmac_digest": "crc32"},
        {"secret": "no-colon"},
        {"hmac_key": None, "secret": None},
    ],
)
def test_settings_that_could_not_authenticate_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        post(ONE, {}, **config)


def test_a_message_was_received_when_infobip_says() -> None:
    _, [heard] = post({"results": [INCOMING]}, basic("a:b"), "im", secret="a:b")
    assert heard.rtime == datetime(2019, 11, 9, 16, tzinfo=UTC)
    assert heard.meta["keyword"] == "QUIZ"


@pytest.mark.parametrize("time", ["yesterday", {}, None, "2019-11-09T16:00:00"])
def test_a_time_that_cannot_be_read_is_now(time: Any) -> None:
    before = datetime.now(UTC)
    body = {"results": [DELIVERED | {"doneAt": time}]}
    _, [heard] = post(body, basic("a:b"), secret="a:b")
    assert before <= heard.rtime <= datetime.now(UTC)


def deep(levels: int) -> Any:
    return [deep(levels - 1)] if levels else []


MALFORMED: dict[str, Any] = {
    "nothing": None,
    "a text": "rubbish",
    "a list": [DELIVERED],
    "empty": {},
    "no status": {"messageId": "x"},
    "a status of a text": DELIVERED | {"status": "DELIVERED"},
    "a status without a name": DELIVERED | {"status": {"id": 5}},
    "a status called by a list": DELIVERED | {"status": status(3, 5, "X") | {"name": ["X"]}},
    "an object for a code": DELIVERED | {"status": status(3, 5, "X") | {"id": {}}},
    "no id": {k: v for k, v in DELIVERED.items() if k != "messageId"},
    "an id that is none": DELIVERED | {"messageId": {"a": 1}},
    "a truth value for an id": DELIVERED | {"messageId": True},
    "an empty id": DELIVERED | {"messageId": ""},
    "a list for our reference": DELIVERED | {"callbackData": [REF]},
    "nested deeply": DELIVERED | {"error": deep(30)},
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_report_does_not_affect_others(name: str) -> None:
    good = [DELIVERED | {"messageId": str(n)} for n in range(100)]
    for index in (0, 50, 99):
        body = {"results": [*good[:index], MALFORMED[name], *good[index + 1 :]]}
        code, heard = post(body, basic("a:b"), secret="a:b")
        assert code == 400
        assert [each.msgid for each in heard] == [str(n) for n in range(100) if n != index]
        assert {each.state for each in heard} == {State.DELIVERED}


@pytest.mark.parametrize("part", [b"\xff", b"\\ud800", b"\\u0000"])
def test_invalid_utf8_loses_no_message(part: bytes) -> None:
    entries = [INCOMING | {"messageId": str(n)} for n in range(3)]
    body = json.dumps({"results": entries}).encode().replace(b"QUIZ hi", b"QUIZ " + part, 1)
    code, heard = raw(body, "im")
    assert code == 200
    assert [each.msgid for each in heard] == ["0", "1", "2"]


def test_a_price_that_is_no_number_loses_no_report() -> None:
    text = json.dumps({"results": [DELIVERED | {"price": "?"}, DELIVERED]})
    code, heard = raw(text.replace('"?"', "NaN").encode(), "status")
    assert (code, [each.state for each in heard]) == (200, [State.DELIVERED] * 2)


def test_what_can_be_understood_is_recorded_beside_what_cannot() -> None:
    body = {"results": ["rubbish", DELIVERED, {"messageId": "x"}]}
    code, heard = post(body, basic("a:b"), secret="a:b")
    assert (code, [each.state for each in heard]) == (400, [State.DELIVERED])


def test_2000_reports_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMSQUEUE_MAX_WEBHOOK", str(2**21))
    body = {"results": [told(3, 5, "DELIVERED_TO_HANDSET", messageId=str(n)) for n in range(2000)]}
    code, heard = post(body, basic("a:b"), secret="a:b")
    assert (code, len(heard)) == (200, 2000)


def test_if_one_event_is_not_recorded_the_response_is_503(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded: list[Any] = []

    def fail(self: Any, status: Any) -> None:
        if len(recorded) == 1:
            raise exc.QueueUnavailable("away")
        recorded.append(status)

    monkeypatch.setattr("smsqueue.gateway.Gateway.receive_status", fail)
    code, _ = post({"results": [DELIVERED] * 3}, basic("a:b"), secret="a:b")
    assert (code, len(recorded)) == (503, 1)


def test_what_was_recorded_of_a_refused_webhook_counts_once(settings: Settings) -> None:
    """Infobip repeats a webhook of which a part was malformed."""
    results = [INCOMING, "rubbish", INCOMING | {"messageId": "2"}]
    with Gateway(settings) as gateway:
        gateway.add_provider("main", InfobipProvider, **EXAMPLES.config, secret="a:b")
        client = client_of(gateway)
        for _ in range(3):
            sent = client.post(
                f"/{PREFIX}/main/im", json={"results": results}, headers=basic("a:b")
            )
            assert sent.status_code == 400
        assert gateway.ledger.redis.zcard(f"{settings.namespace}:due:hook") == 2


def test_a_status_never_heard_of_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    new = told(3, 4711, "DELIVERED_SOMEHOW")
    code, heard = post({"results": [new, new]}, basic("a:b"), secret="a:b")
    assert (code, [each.status for each in heard]) == (200, ["DELIVERED_SOMEHOW"] * 2)
    assert caplog.text.count("DELIVERED_SOMEHOW") == 1
