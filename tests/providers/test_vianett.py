"""Vianett."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import urlencode

import pytest

from smsqueue import exc
from smsqueue.message.messages import OutgoingMessage
from smsqueue.message.states import State
from smsqueue.providers.vianett import VianettProvider
from smsqueue.settings import SettingsError
from smsqueue.testing.contract import PREFIX, Check, checks, made, seen_by
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

USER, PASSWORD = "vianett-user", "vianett-password"
PATH = "/V3/CPA/MT/MT.ashx"
#: The number that stands for it.
NUMBER = "799008940251057"


def ack(code: str | None, refno: str = NUMBER, text: str = "OK") -> Answer:
    errorcode = "" if code is None else f' errorcode="{code}"'
    return Answer(200, f'<?xml version="1.0"?><ack refno="{refno}"{errorcode}>{text}</ack>')


GOOD = ack("200")


def form(**more: str) -> dict[str, str]:
    return {
        "username": USER,
        "password": PASSWORD,
        "msgid": NUMBER,
        "Tel": "15551234567",
        "msg": "hello",
        "SenderAddress": "15550009999",
        "SenderAddressType": "1",
        "ReplyPathValue": "1440",
    } | more


def unreadable(name: str, body: Any) -> Refusal:
    return Refusal(name, Answer(200, body), exc.ServerError, ambiguous=True)


INCOMING = {
    "sourceaddr": "15551234567",
    "destinationaddr": "1963",
    "prefix": "QUIZ",
    "message": "hi there",
    "refno": "4711",
    "retrycount": "1",
    "operator": "1",
    "replypathid": "0",
    "requesttype": "mo",
    "username": "",
    "password": "",
}
TAKEN = b'<?xml version="1.0"?><ack refno="4711" errorcode="0"/>'


def reported(name: str, state: State | None, code: str, word: str, **fields: str) -> Webhook:
    return Webhook(
        name,
        "/status",
        [Reported(state, "4711", None, code, word)],
        method="GET",
        form={"refno": "4711", "now": "06.10.2005 11:24:07"} | fields,
        answer=TAKEN,
    )


def phone(state: State | None, word: str) -> Webhook:
    fields = {"Status": word, "StatusDescription": "said", "StatusCode": "7"}
    return reported(f"phone {word}", state, "7", word, requesttype="notificationstatus", **fields)


def operator(name: str, state: State | None, code: str, **fields: str) -> Webhook:
    return reported(f"operator, {name}", state, code, "mtstatus", requesttype="mtstatus", **fields)


sends = partial(Sending, answer=GOOD, msgid=NUMBER, path=PATH)

EXAMPLES = Examples(
    provider=VianettProvider,
    config={"user": USER, "password": PASSWORD, "sender": "+15550009999"},
    good=GOOD,
    secrets=[PASSWORD],
    secret=None,
    sendings=[
        sends("a text", message(), form=form()),
        sends(
            "report, priority, sender id, no reply",
            message(status_report=True, escalate=True, senderId="My Shop", allow_reply=False),
            form={
                name: value
                for name, value in form(
                    SenderAddress="My Shop", SenderAddressType="5", Priority="1", nrq="1"
                ).items()
                if name != "ReplyPathValue"
            },
        ),
        sends(
            "short code; the acknowledgement has a number of its own",
            message(src="1963"),
            answer=ack("200", "99"),
            msgid="99",
            form=form(SenderAddress="1963", SenderAddressType="2"),
        ),
        sends(
            "no sender; no parameter replaces the recipient, the id or the account",
            message(
                params={"ScheduledDate": "2026", "Tel": "1;2", "msgid": "1", "username": "other"}
            ),
            form={
                name: value
                for name, value in form(ScheduledDate="2026").items()
                if not name.startswith("Sender")
            },
            config={"sender": None},
        ),
        sends(
            "our reference as id, replies as the account has it",
            message(),
            answer=ack("200", REF),
            msgid=REF,
            form={k: v for k, v in form(msgid=REF).items() if k != "ReplyPathValue"},
            config={"numeric_ids": False, "reply_minutes": 0},
        ),
        sends(
            "an acknowledgement without a number",
            message(),
            answer=Answer(200, b"<ack errorcode=' 200 '/>"),
            form=form(),
        ),
    ],
    refusals=[
        Refusal("100", ack("100", text="Login failed"), exc.AuthError, code="100"),
        Refusal("of our own", ack("123"), exc.CreditError, code="123"),
        Refusal("never heard of", ack("999"), exc.RequestError, code="999"),
        Refusal("500 of its own", Answer(500, GOOD.body.replace("200", "100")), exc.AuthError),
        Refusal("400", Answer(400, "no"), exc.RequestError),
        Refusal("401", Answer(401, "no"), exc.AuthError),
        Refusal("402", Answer(402, "no"), exc.CreditError),
        Refusal("400, and yet 200", Answer(400, GOOD.body), exc.RequestError, ambiguous=True),
        Refusal("503, and yet 200", Answer(503, GOOD.body), exc.ServerError, ambiguous=True),
        Refusal("503 of its own", Answer(503, ack("999").body), exc.ServerError, code="999"),
        Refusal("0", ack("0"), exc.ServerError, ambiguous=True),
        Refusal("no code", ack(None), exc.ServerError, ambiguous=True),
        Refusal("an empty code", ack(""), exc.ServerError, ambiguous=True),
        unreadable("another element", '<nak refno="1" errorcode="200"/>'),
        unreadable("cut off", '<ack refno="1" errorcode="200"'),
        unreadable("two", '<ack refno="1" errorcode="200"/><ack refno="1" errorcode="100"/>'),
        unreadable("text", "200|OK"),
        unreadable("a DOCTYPE", '<!DOCTYPE ack><ack refno="1" errorcode="200"/>'),
        unreadable("entities", '<!DOCTYPE a [<!ENTITY b "200">]><ack errorcode="&b;"/>'),
        unreadable(
            "a DOCTYPE in UTF-16",
            '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY b "200">]>'
            '<ack errorcode="&b;"/>'.encode("utf-16"),
        ),
        unreadable("too long", f'<ack refno="1" errorcode="200">{"x" * 5000}</ack>'),
        unreadable("nested", "<a>" * 1000),
    ],
    unsupported=[
        message(expires=5),
        message(body="Привет"),
        message(body="5 €"),
    ],
    webhooks=[
        Webhook(
            "incoming",
            "/im",
            [Received("15551234567", "QUIZ hi there", "1963", "4711")],
            method="GET",
            form=INCOMING,
            answer=TAKEN,
        ),
        Webhook(
            "incoming, by POST",
            "/im",
            [Received("15551234567", "QUIZ hi there", "1963", "4711")],
            form=INCOMING,
            answer=TAKEN,
        ),
        Webhook(
            "incoming, one word",
            "/im",
            [Received("15551234567", "STOP", "1963", "4711")],
            method="GET",
            form=INCOMING | {"prefix": "STOP", "message": ""},
        ),
        phone(State.ACCEPTED, "ACCEPTD"),
        phone(State.ACCEPTED, "BUFFERD"),
        phone(State.ACCEPTED, "ENROUTE"),
        phone(State.DELIVERED, "DELIVRD"),
        phone(State.EXPIRED, "EXPIRED"),
        phone(State.UNDELIVERED, "UNDELIV"),
        phone(State.UNDELIVERED, "REJECTD"),
        phone(State.UNDELIVERED, "DELETED"),
        phone(None, "UNKNOWN"),
        phone(None, "TELEPORTED"),
        operator("taken", State.ACCEPTED, "0", errorcode="0"),
        operator("taken and ok", State.ACCEPTED, "0", errorcode="0", msgok="True"),
        operator("pending", State.ACCEPTED, "0", errorcode="0", msgok="-1"),
        operator("not ok", None, "0", errorcode="0", msgok="False"),
        operator("refused", State.UNDELIVERED, "5", errorcode="5"),
        operator("200 in the short dialect", State.UNDELIVERED, "200", errorcode="200"),
        operator("taken, long", State.ACCEPTED, "200", ErrorCode="200", ErrorDescription="OK"),
        operator("refused, long", State.UNDELIVERED, "310", ErrorCode="310", Status="x"),
        operator("0 in the long dialect", State.UNDELIVERED, "0", ErrorCode="0"),
        Webhook(
            "our reference comes back",
            "/status",
            [Reported(State.DELIVERED, REF, REF)],
            form={"requesttype": "notificationstatus", "Status": "DELIVRD", "refno": REF},
        ),
    ],
    refused=[
        malformed("no number", "/im", form={"message": "x", "refno": "1"}),
        malformed("no id", "/im", form={"sourceaddr": "1", "message": "x"}),
        malformed("no text", "/im", form={"sourceaddr": "1", "refno": "1"}),
        malformed("no kind", "/status", form={"refno": "1", "Status": "DELIVRD"}),
        malformed(
            "another kind", "/status", form={"refno": "1", "requesttype": "x", "errorcode": "0"}
        ),
        malformed("no code", "/status", form={"refno": "1", "requesttype": "mtstatus"}),
        malformed(
            "a report without an id", "/status", form={"requesttype": "mtstatus", "errorcode": "0"}
        ),
    ],
)
CODES = {"codes": {"123": exc.CreditError}}
EXAMPLES = Examples(**vars(EXAMPLES) | {"config": {**EXAMPLES.config, **CODES}})


@pytest.mark.parametrize("check", checks(EXAMPLES), ids=str)
def test_contract(check: Check) -> None:
    check()


# --- what is sent --------------------------------------------------------------------------------


def test_the_number_is_the_same_for_the_same_reference_only() -> None:
    first, again = seen_by(EXAMPLES, message()), seen_by(EXAMPLES, message())
    assert first[0].body == again[0].body
    [other] = seen_by(EXAMPLES, message(reference=REF[:-1] + "2"))
    assert other.form["msgid"] != NUMBER
    assert len(other.form["msgid"]) == 15
    assert other.form["msgid"].isdecimal()


def test_the_number_is_known_even_if_the_answer_is_lost() -> None:
    with account(EXAMPLES, Answer(cut=True)) as (provider, _):
        asked = message()
        with pytest.raises(exc.ConnectionError) as caught:
            provider.send(asked)
    assert (asked.msgid, caught.value.ambiguous) == (NUMBER, True)


def test_a_message_without_a_reference_has_a_number_of_its_own() -> None:
    with account(EXAMPLES, Answer(200, '<ack errorcode="200"/>')) as (provider, stub):
        sent = [provider.send(OutgoingMessage("15551234567", "x")).msgid for _ in range(2)]
    assert [seen.form["msgid"] for seen in stub.seen] == sent
    assert len(set(sent)) == 2


def test_the_text_is_written_in_the_documented_character_set() -> None:
    [seen] = seen_by(EXAMPLES, message(body="blåbær & ø"))
    assert b"msg=bl%E5b%E6r+%26+%F8&" in seen.body
    assert seen.headers["Content-Type"] == "application/x-www-form-urlencoded"


def test_another_character_set_can_be_used() -> None:
    with account(EXAMPLES, GOOD, charset="utf-8") as (provider, stub):
        provider.send(message(body="5 € Привет"))
    assert stub.seen[0].form["msg"] == "5 € Привет"
    with pytest.raises(SettingsError, match="charset"):
        made(EXAMPLES, "http://127.0.0.1:9", charset="klingon")


def test_an_error_does_not_hold_the_text() -> None:
    _, provider, _ = made(EXAMPLES, "http://127.0.0.1:9")
    with pytest.raises(exc.UnsupportedError) as raised:
        provider.send(message(body="geheim: Привет"))
    assert "geheim" not in f"{raised.value!r}{raised.value.__cause__!r}"
    assert raised.value.__suppress_context__


def test_there_is_neither_balance_nor_look_up() -> None:
    _, provider, _ = made(EXAMPLES, "http://127.0.0.1:9")
    with pytest.raises(exc.UnsupportedError):
        provider.balance()
    with pytest.raises(NotImplementedError):
        provider.look_up(message(), None)


# --- webhooks ------------------------------------------------------------------------------------


def get(query: str, path: str = "im", **config: Any) -> tuple[int, Any]:
    client, heard = receiver(EXAMPLES, **config)
    return webhook_status(client, f"{path}?{query}", "GET"), heard


DELIVERED = urlencode({"requesttype": "notificationstatus", "Status": "DELIVRD", "refno": "1"})


@pytest.mark.parametrize("path", ["im", "status"])
@pytest.mark.parametrize("user", [("new", "pass:word"), ("old", "one")])
def test_a_configured_secret_is_required(path: str, user: tuple[str, str]) -> None:
    query = urlencode(INCOMING) if path == "im" else DELIVERED
    shown = f"{query}&{urlencode({'username': user[0], 'password': user[1]})}"
    code, heard = get(shown, path, secret=["new:pass:word", "old:one"])
    assert (code, len(heard)) == (200, 1)


@pytest.mark.parametrize("shown", ["", "username=new", "password=one", "username=new&password=one"])
@pytest.mark.parametrize("path", ["im", "status"])
def test_without_the_secret_a_webhook_is_refused(path: str, shown: str) -> None:
    query = urlencode(INCOMING) if path == "im" else DELIVERED
    config: dict[str, Any] = {"secret": ["new:pass:word", "old:one"]}
    assert get(f"{query}&{shown}", path, **config) == (403, [])


def test_a_secret_without_a_colon_is_refused() -> None:
    with pytest.raises(SettingsError, match="user:password"):
        get("", secret="word")


@pytest.mark.parametrize("text", ["bl%E5b%E6r", "bl%C3%A5b%C3%A6r"])
def test_a_text_is_read_in_both_character_sets(text: str) -> None:
    code, [heard] = get(f"sourceaddr=15551234567&refno=1&message={text}")
    assert (code, heard.body) == (200, "blåbær")


def test_the_first_word_can_be_left_out() -> None:
    code, [heard] = get(urlencode(INCOMING), use_prefix=True)
    assert (code, heard.body, heard.meta["prefix"]) == (200, "hi there", "QUIZ")
    assert "password" not in heard.meta


def test_markup_in_a_refno_is_escaped() -> None:
    client, heard = receiver(EXAMPLES)
    query = urlencode({"sourceaddr": "1", "message": "x", "refno": '"/><b a="&'})
    response = client.get(f"/{PREFIX}/main/im?{query}")
    assert response.status_code == 400
    assert b"<b" not in response.data
    assert heard == []


def test_a_webhook_that_is_not_recorded_is_to_be_repeated() -> None:
    client = client_of_failing_gateway(EXAMPLES)
    assert webhook_status(client, f"status?{DELIVERED}", "GET") == 503
    assert webhook_status(client, f"im?{urlencode(INCOMING)}", "GET") == 503


def test_a_status_never_heard_of_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    code, [heard] = get(DELIVERED.replace("DELIVRD", "TELEPORTED"), "status")
    assert (code, heard.status, heard.state) == (200, "TELEPORTED", None)
    assert caplog.text.count("TELEPORTED") == 1
