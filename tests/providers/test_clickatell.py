"""Clickatell, One API."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from smsqueue import exc
from smsqueue.message.messages import IncomingMessage
from smsqueue.message.states import State
from smsqueue.message.statuses import MessageStatus
from smsqueue.providers.clickatell import ClickatellProvider
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
from smsqueue.testing.webhook_checks import client_of, receiver
from tests.providers.helpers import account, basic, failure_of, malformed, webhook_status

KEY = "clickatell-key=="
ENTRY = {"apiMessageId": "m1", "accepted": True, "to": "15551234567", "error": None}
GOOD = Answer(202, {"messages": [ENTRY], "error": None})
SENT = {"channel": "sms", "to": "15551234567", "content": "hello", "clientMessageId": REF}


def entry(code: Any, status: int = 207, **more: Any) -> Answer:
    """An answer that has an error with the message."""
    error = {"code": code, "description": "no"}
    refused = {"apiMessageId": None, "accepted": False, "to": "15551234567", "error": error}
    return Answer(status, {"messages": [refused | more], "error": None})


def refused(code: int, error: type[exc.ProviderError]) -> Refusal:
    return Refusal(f"{code}", entry(code), error, code=code)


def whole(code: Any, status: int) -> Answer:
    """An answer that has an error with the request."""
    return Answer(status, {"messages": [], "error": {"code": code, "description": "no"}})


def update(word: str, state: State | None, number: int = 2) -> Webhook:
    told: dict[str, Any] = {
        "channel": "sms",
        "timestamp": 1506607698000,
        "statusCode": number,
        "status": word,
    }
    told |= {"messageId": "m1", "clientMessageId": REF}
    event = {"integrationId": "i1", "event": {"messageStatusUpdate": [told]}}
    return Webhook(
        f"status {word}", "/status", [Reported(state, "m1", REF, number, word)], json=event
    )


def older(number: int, state: State | None) -> Webhook:
    told: dict[str, Any] = {
        "apiKey": KEY,
        "messageId": "m1",
        "statusCode": number,
        "clientMessageId": REF,
    }
    told |= {"status": "NEVER_SEEN", "to": "15551234567", "from": "15550009999"}
    event = Reported(state, "m1", REF, number, "NEVER_SEEN")
    return Webhook(f"older status {number}", "/status", [event], json=told)


def reply(text: str, charset: str, body: str) -> Webhook:
    told: dict[str, Any] = {
        "integrationId": "i1",
        "messageId": "m9",
        "apiKey": KEY,
        "fromNumber": "15551234567",
    }
    told |= {"toNumber": "15550009999", "timestamp": 1516217711000, "text": text}
    return Webhook(
        f"older incoming in {charset}",
        "/im",
        [Received("15551234567", body, "15550009999", "m9")],
        json=told | {"charset": charset},
    )


MO = {
    "channel": "sms",
    "messageId": "m9",
    "relatedMessageId": "m1",
    "from": "15551234567",
    "to": "15550009999",
    "timestamp": 1506607698000,
    "content": "hi + there",
    "charset": "UTF-8",
}
INCOMING = Received("15551234567", "hi + there", "15550009999", "m9")
UPDATE = {"status": "QUEUED", "statusCode": 2, "messageId": "m1"}

sends = partial(Sending, answer=GOOD, msgid="m1", path="/v1/message")

EXAMPLES = Examples(
    provider=ClickatellProvider,
    config={"api_key": KEY},
    good=GOOD,
    secrets=[KEY],
    secret=None,
    sendings=[
        sends("a text", message(), json={"messages": [SENT]}, headers={"Authorization": KEY}),
        sends(
            "with a sender",
            message(src="+1 555 000 9999"),
            json={"messages": [SENT | {"from": "15550009999"}]},
        ),
        sends(
            "a short code, a parameter that does not replace our reference",
            message(senderId="12345", params={"clientMessageId": "mine", "userPriorityQueue": 1}),
            json={"messages": [SENT | {"from": "12345", "userPriorityQueue": 1}]},
        ),
        sends(
            "without a reference",
            message(status_report=True),
            json={"messages": [{k: v for k, v in SENT.items() if k != "clientMessageId"}]},
            config={"reference_field": None},
        ),
        sends(
            "what it cannot do is ignored",
            message(senderId="Shop", expires=5),
            json={"messages": [SENT]},
            config={"ignore": ["alphanumeric", "validity"]},
        ),
    ],
    unsupported=[message(senderId="Shop"), message(expires=5)],
    refusals=[
        refused(1, exc.AuthError),
        refused(46, exc.AuthError),
        refused(18, exc.ServerError),
        refused(19, exc.ServerError),
        refused(20, exc.CreditError),
        refused(43, exc.LimitsError),
        refused(38, exc.UnsupportedError),
        refused(110, exc.UnsupportedError),
        refused(25, exc.RequestError),
        refused(26, exc.OptedOut),
        refused(45, exc.RequestError),
        refused(999, exc.RequestError),
        Refusal("a code that is a text", entry("20", 400), exc.CreditError, code=20),
        Refusal("a code that is none", entry({"a": 1}), exc.RequestError),
        Refusal("400 as a whole", whole(21, 400), exc.RequestError, code=21),
        Refusal("401 as a whole", whole(1, 401), exc.AuthError, code=1),
        Refusal("401 without a code", Answer(401, ""), exc.AuthError),
        Refusal("402", Answer(402, ""), exc.CreditError),
        Refusal("410, the recipient is blocked", Answer(410, ""), exc.RequestError),
        Refusal("500, please retry", whole(19, 500), exc.ServerError, code=19),
        Refusal("500, internal", whole(18, 500), exc.ServerError, code=18, ambiguous=True),
        Refusal("500, internal, refused", entry(18, 500), exc.ServerError, code=18),
        Refusal("202 and an error of the whole", whole(20, 202), exc.CreditError, code=20),
        Refusal("202, internal", whole(18, 202), exc.ServerError, code=18, ambiguous=True),
        Refusal("202 and no messages", Answer(202, {"messages": []}), exc.RequestError),
        Refusal("an error, no word on accepted", entry(20, accepted=None), exc.CreditError, 20),
        Refusal(
            "refused with an id", entry(20, apiMessageId="m1"), exc.CreditError, ambiguous=True
        ),
        Refusal(
            "accepted with an error", entry(20, accepted=True), exc.ServerError, ambiguous=True
        ),
        Refusal(
            "accepted with an error and an id",
            entry(43, accepted=True, apiMessageId="m1"),
            exc.LimitsError,
            ambiguous=True,
        ),
        Refusal(
            "neither accepted nor refused",
            Answer(202, {"messages": [{"apiMessageId": "m1"}]}),
            exc.RequestError,
            ambiguous=True,
        ),
        Refusal(
            "400, and yet accepted",
            Answer(400, {"messages": [ENTRY]}),
            exc.RequestError,
            ambiguous=True,
        ),
        Refusal("a list", Answer(202, [ENTRY]), exc.ServerError, ambiguous=True),
    ],
    webhooks=[
        Webhook(
            "incoming", "/im", [INCOMING], json={"integrationId": "i1", "event": {"moText": [MO]}}
        ),
        Webhook(
            "several of both",
            "/status",
            [INCOMING, Reported(State.ACCEPTED, "m1"), Reported(State.ACCEPTED, "m2")],
            json={
                "event": {
                    "moText": [MO],
                    "messageStatusUpdate": [UPDATE, UPDATE | {"messageId": "m2"}],
                }
            },
        ),
        Webhook("of another channel", "/im", [], json={"event": {"moMedia": [{}]}}),
        reply("hi there", "UTF-8", "hi there"),
        reply("h%E9+a%2Bb%21", "ISO-8859-1", "hé a+b!"),
        reply("%00h%00%ED%04%16+%AC", "UTF-16BE", "híЖ€"),
        update("QUEUED", State.ACCEPTED),
        update("SENT_TO_SUPPLIER", State.ACCEPTED, 3),
        update("DEVICE_ACK", State.DELIVERED, 4),
        update("READ", State.DELIVERED),
        update("EXPIRED", State.EXPIRED),
        update("DELIVERY_FAILURE", State.UNDELIVERED),
        update("STOPPED_BY_USER", State.UNDELIVERED),
        update("VOLUME_LIMIT_DAILY", State.UNDELIVERED),
        update("UNKNOWN", None),
        update("NEVER_SEEN", None, 4),  # of the One API the numbers are not known
        older(3, State.ACCEPTED),
        older(4, State.DELIVERED),
        older(7, State.UNDELIVERED),
        older(10, State.EXPIRED),
        older(1, None),
        older(77, None),
        Webhook(
            "older status, a name that is known",
            "/status",
            [Reported(State.ACCEPTED, "m1", None, 4, "QUEUED")],
            json=UPDATE | {"statusCode": 4},
        ),
        Webhook(
            "older status, a number alone",
            "/status",
            [Reported(State.DELIVERED, "m1", None, 4, "4")],
            json={"messageId": "m1", "statusCode": 4},
        ),
    ],
    refused=[
        malformed("no JSON", "/im", body=b"foo"),
        malformed("a list", "/im", json=[]),
        malformed("nested too deeply", "/im", body=b"[" * 100_000),
        malformed("nothing", "/status", json={}),
        malformed("no status", "/status", json={"messageId": "m1"}),
        malformed("a status that is no text", "/status", json={"status": []}),
        malformed("no id", "/status", json={"statusCode": 4}),
        malformed(
            "updates that are none", "/status", json={"event": {"messageStatusUpdate": ["x"]}}
        ),
        malformed(
            "one of two is malformed",
            "/status",
            json={"event": {"moText": [MO], "messageStatusUpdate": 1}},
        ),
        malformed("no text", "/im", json={"fromNumber": "1", "messageId": "m"}),
    ],
)


@pytest.mark.parametrize("check", checks(EXAMPLES), ids=str)
def test_contract(check: Check) -> None:
    check()


def test_the_balance() -> None:
    with account(EXAMPLES, Answer(200, {"balance": 12.5, "currency": "USD"})) as (provider, stub):
        balance = provider.balance()
    assert (str(balance.amount), balance.currency) == ("12.5", "USD")
    assert (stub.seen[0].path, stub.seen[0].headers["Authorization"]) == ("/v1/balance", KEY)


def test_a_missing_balance() -> None:
    error = failure_of(EXAMPLES, lambda provider: provider.balance(), Answer(500, "<html>"))
    assert (isinstance(error, exc.ServerError), error.ambiguous) == (True, False)


def receiving(**config: Any) -> tuple[Callable[..., int], list[Any]]:
    """What posts an update with headers and tells the answer's status."""
    client, heard = receiver(EXAMPLES, **config)

    def post(headers: dict[str, str] | None = None, body: Any = UPDATE) -> int:
        return webhook_status(client, "status", json=body, headers=headers)

    return post, heard


def test_a_secret_is_required_and_may_rotate() -> None:
    post, heard = receiving(secret=["user:new:one", "user:old"])
    assert [post(basic(s)) for s in ("user:new:one", "user:old")] == [200, 200]
    for headers in (None, {"Authorization": "user:old"}, basic("user:"), basic("user:ol")):
        assert post(headers) == 403
    assert len(heard) == 2


@pytest.mark.parametrize("secret", ["word", ["user:word", "word"], ""])
def test_an_invalid_secret_is_refused(secret: Any) -> None:
    with pytest.raises(ValueError, match="secret"):
        receiving(secret=secret)


def test_an_unknown_status_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    post, heard = receiving()
    strange = {"event": {"messageStatusUpdate": [UPDATE | {"status": "STRANGE"}]}}
    assert [post(body=strange), post(body=strange)] == [200, 200]
    assert [each.status for each in heard] == ["STRANGE", "STRANGE"]
    assert caplog.text.count("STRANGE") == 1


def test_a_callback_that_is_not_recorded_is_answered_503() -> None:
    gateway, _, heard = made(EXAMPLES, "http://127.0.0.1:9")
    client = client_of(gateway)

    def record(status: MessageStatus) -> None:
        if len(heard) == 1:
            raise exc.QueueUnavailable("away")
        heard.append(status)

    gateway.receive_status = record  # type: ignore[method-assign]
    both = {"event": {"messageStatusUpdate": [UPDATE, UPDATE | {"messageId": "m2"}]}}
    assert webhook_status(client, "status", json=both) == 503
    assert [each.msgid for each in heard] == ["m1"]
    heard.append("Redis is back")
    assert webhook_status(client, "status", json=both) == 200
    assert [each.msgid for each in heard[2:]] == ["m1", "m2"]


def test_times_and_meta() -> None:
    client, heard = receiver(EXAMPLES)
    client.post(f"/{PREFIX}/main/im", json={"event": {"moText": [MO]}})
    odd = {"event": {"moText": [MO | {"timestamp": 10**30}]}}
    assert webhook_status(client, "im", json=odd) == 200
    first = heard[0]
    assert isinstance(first, IncomingMessage)
    assert first.rtime.isoformat() == "2017-09-28T14:08:18+00:00"
    assert first.meta["relatedMessageId"] == "m1"
    assert "15551234567" not in json.dumps(first.meta)


def test_a_repeated_sending_is_the_same_request() -> None:
    first, second = (seen_by(EXAMPLES, message())[0].body for _ in range(2))
    assert first == second
