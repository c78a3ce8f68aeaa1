"""Published plugins, as they come from the package index, send through the queue."""

from __future__ import annotations

import json
from typing import Any

import pytest
from smsframework_africastalking import AfricasTalkingProvider
from smsframework_amazon_sns import AmazonSNSProvider
from smsframework_clickatell import ClickatellProvider
from smsframework_gatewayapi import GatewayAPIProvider
from smsframework_pswin import PswinProvider
from smsframework_vianett import VianettProvider

from smsqueue import OutgoingMessage
from tests.compat.carrier import HANG_UP, Answer, Carrier
from tests.conftest import free_port
from tests.ledger.bench import Bench

GATEWAYAPI = {"key": "k", "secret": "s"}
AMAZON = {"access_key": "AK", "secret_access_key": "SK", "region_name": "eu-west-1"}
AFRICA = {"username": "shop", "api_key": "a-key"}
PUBLISHED = """<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult>
<MessageId>m-17</MessageId></PublishResult></PublishResponse>"""
THROTTLED = """<ErrorResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><Error>
<Type>Sender</Type><Code>Throttling</Code><Message>Rate exceeded</Message></Error>
</ErrorResponse>"""


def send(bench: Bench, message: OutgoingMessage) -> str:
    """Take a message in, have a worker deliver it; its id."""
    id = bench.gateway.send(message).id
    assert id is not None
    bench.deliver(id)
    return id


def refused(code: str, status: int) -> Answer:
    return Answer(json.dumps({"code": code, "message": "no", "variables": None}), status)


def told_africa(**recipient: str) -> str:
    return json.dumps({"SMSMessageData": {"Recipients": [recipient]}})


def test_pswin_sends_to_the_host_that_it_was_configured_with(
    bench: Bench, carrier: Carrier
) -> None:
    bench.gateway.add_provider(
        "main", PswinProvider, user="u", password="p", hostname=carrier.address
    )
    message = OutgoingMessage("+47 555 00 001", "blåbær", src="Shop").options(status_report=True)
    id = send(bench, message)
    record = bench.record(id)
    assert (record.state, record.provider, record.msgid) == ("sent", "main", None)
    [asked] = carrier.asked
    assert asked.form == {
        **{"USER": "u", "PW": "p", "SND": "Shop", "RCPREQ": "Y", "RCV": "4755500001"},
        **{"TXT": "blåbær", "CT": "1"},
    }


def test_pswin_sets_parameters_of_the_message_and_the_next_attempt_does_not_see_them(
    bench: Bench, carrier: Carrier
) -> None:
    bench.gateway.add_provider("a", PswinProvider, user="u", password="p", hostname=carrier.address)
    bench.gateway.add_provider("b", PswinProvider, user="u", password="p", hostname=carrier.address)
    carrier.then(Answer(status=403))
    bench.gateway.router = lambda message: ["a", "b"]
    id = send(bench, OutgoingMessage("4755500001", "Ж").params(OPERATION="7").route())
    assert bench.record(id).provider == "b"
    first, second = (asked.form for asked in carrier.asked)
    assert first["HEX"] == second["HEX"] == "0416"
    # Its params() replaces what the sender gave: the second attempt has it all the same.
    assert (first["is_hex"], second["is_hex"]) == ("True", "True")


def test_gatewayapi_sends_over_tls_and_its_id_is_kept_as_it_is(
    bench: Bench, carrier: Carrier
) -> None:
    bench.gateway.add_provider("main", GatewayAPIProvider, **GATEWAYAPI)
    carrier.then(Answer('{"ids": [421332671]}'))
    message = OutgoingMessage("+45 55 50 00 01", "hi").options(escalate=True, senderId="Shop")
    id = send(bench, message)
    assert (bench.state(id), bench.record(id).msgid) == ("sent", "421332671")
    [asked] = carrier.asked
    assert asked.url == "https://gatewayapi.com/rest/mtsms"
    assert asked.json["recipients"] == [{"msisdn": 4555500001}]
    assert (asked.json["class"], asked.json["sender"]) == ("premium", "Shop")


@pytest.mark.parametrize(
    ("answer", "state", "error", "code"),
    [
        (refused("0x0213", 422), "failed", "RequestError", "531"),
        (refused("0x0216", 403), "retrying", "CreditError", "534"),
        (refused("0x9999", 500), "retrying", "ProviderError", "39321"),
        (HANG_UP, "unknown", "ConnectionError", "0"),
        (Answer("<h1>Bad gateway</h1>", 502, "text/html"), "unknown", "JSONDecodeError", None),
        (Answer("{}"), "unknown", "KeyError", None),
    ],
    ids=["refused", "no credit", "another code", "hung up", "bad gateway", "no id"],
)
def test_what_gatewayapi_raises_is_judged(
    bench: Bench, carrier: Carrier, answer: Any, state: str, error: str, code: str | None
) -> None:
    bench.gateway.add_provider("main", GatewayAPIProvider, **GATEWAYAPI)
    carrier.then(answer)
    id = send(bench, OutgoingMessage("4555500001", "hi"))
    record = bench.record(id)
    assert (record.state, record.error, record.code) == (state, error, code)


def test_amazon_sends_and_takes_its_parameters_out_of_the_message(
    bench: Bench, carrier: Carrier
) -> None:
    bench.gateway.add_provider("main", AmazonSNSProvider, **AMAZON)
    carrier.then(Answer(PUBLISHED, type="text/xml"))
    message = OutgoingMessage("+1 555 000 1", "hi").options(senderId="Shop", escalate=True)
    id = send(bench, message.params(MaxPrice=0.5))
    assert (bench.state(id), bench.record(id).msgid) == ("sent", "m-17")
    told = carrier.asked[0].form
    assert (told["PhoneNumber"], told["Message"]) == ("+15550001", "hi")
    assert {"AWS.SNS.SMS.MaxPrice", "AWS.SNS.SMS.SenderID"} <= set(told.values())


@pytest.mark.parametrize(
    ("answer", "state", "error", "code"),
    [
        (Answer(THROTTLED, 400, "text/xml"), "retrying", "ProviderError", "Throttling"),
        (HANG_UP, "unknown", "ConnectionError", "ConnectionClosedError"),
        # What AWS did not write itself has the status in the place of its code.
        (Answer("<html>", 503, "text/html"), "unknown", "ServerError", "503"),
    ],
    ids=["throttled", "hung up", "a proxy"],
)
def test_what_amazon_raises_is_judged(
    bench: Bench, carrier: Carrier, answer: Any, state: str, error: str, code: str
) -> None:
    bench.gateway.add_provider("main", AmazonSNSProvider, **AMAZON)
    carrier.then(answer)
    record = bench.record(send(bench, OutgoingMessage("15550001", "hi")))
    assert (record.state, record.error, record.code) == (state, error, code)


def test_africastalking_sends(bench: Bench, carrier: Carrier) -> None:
    bench.gateway.add_provider("main", AfricasTalkingProvider, **AFRICA)
    carrier.then(Answer(told_africa(messageId="ATXid_1", status="Success"), 201))
    message = OutgoingMessage("+254 711 123456", "habari").params(target_country="KE")
    id = send(bench, message.options(senderId="Shop"))
    assert (bench.state(id), bench.record(id).msgid) == ("sent", "ATXid_1")
    [asked] = carrier.asked
    assert asked.url == "https://api.africastalking.com/version1/messaging"
    assert (asked.form["to"], asked.form["message"]) == ("+254711123456", "habari")


def test_what_africastalking_raises_is_judged(bench: Bench, carrier: Carrier) -> None:
    bench.gateway.add_provider("main", AfricasTalkingProvider, **AFRICA)
    carrier.then(Answer(told_africa(status="InsufficientBalance"), 400), HANG_UP)
    states = []
    for params in ({"target_country": "KE"}, {"target_country": "KE"}, {}):
        id = send(bench, OutgoingMessage("254711123456", "x").params(**params))
        states.append((bench.state(id), bench.record(id).error))
    # It takes the text of every error for JSON, and asks for a country without saying so.
    assert states == [
        ("retrying", "ProviderError"),
        ("unknown", "TypeError"),
        ("unknown", "KeyError"),
    ]


@pytest.mark.parametrize(
    ("provider", "config"),
    [
        (ClickatellProvider, {"api_id": "1", "user": "u", "password": "p"}),
        (VianettProvider, {"user": "u", "password": "p"}),
    ],
    ids=["clickatell", "vianett"],
)
def test_two_plugins_cannot_send_on_python_3_and_the_record_says_so(
    bench: Bench, carrier: Carrier, provider: Any, config: dict[str, str]
) -> None:
    bench.gateway.add_provider("old", provider, **config)
    record = bench.record(send(bench, OutgoingMessage("15550001", "hi")))
    assert (record.state, record.error) == ("failed", "UnsupportedError")
    assert record.code == "cannot send on Python 3"
    assert carrier.asked == []


def test_what_they_cannot_send_the_next_provider_of_the_route_sends(
    bench: Bench, carrier: Carrier
) -> None:
    bench.gateway.add_provider("old", VianettProvider, user="u", password="p")
    bench.gateway.add_provider("new", GatewayAPIProvider, **GATEWAYAPI)
    bench.gateway.router = lambda message: ["old", "new"]
    carrier.then(Answer('{"ids": [1]}'))
    record = bench.record(send(bench, OutgoingMessage("4555500001", "hi").route()))
    assert (record.state, record.provider) == ("sent", "new")


@pytest.mark.parametrize("name", ["pswin", "gatewayapi", "amazon"])
def test_where_nobody_listens_nothing_was_sent_so_it_is_repeated(
    bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, f"http://{nowhere}")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", f"http://{nowhere}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    provider: tuple[Any, dict[str, str]] = {
        "pswin": (PswinProvider, {"user": "u", "password": "p", "hostname": nowhere}),
        "gatewayapi": (GatewayAPIProvider, GATEWAYAPI),
        "amazon": (AmazonSNSProvider, AMAZON),
    }[name]
    bench.gateway.add_provider("main", provider[0], **provider[1])
    id = send(bench, OutgoingMessage("15550001", "hi"))
    record = bench.record(id)
    assert (record.state, record.error) == ("retrying", "ConnectionError")
    for _ in range(4):
        send(bench, OutgoingMessage("15550001", "hi"))
    assert [pause.error for pause in bench.ledger.pauses()] == ["ConnectionError"]


def test_pswin_hung_up_is_unknown_and_nobody_sends_again(bench: Bench, carrier: Carrier) -> None:
    bench.gateway.add_provider(
        "main", PswinProvider, user="u", password="p", hostname=carrier.address
    )
    carrier.then(HANG_UP)
    id = send(bench, OutgoingMessage("15550001", "hi"))
    assert (bench.state(id), bench.record(id).error) == ("unknown", "ConnectionError")
    bench.deliver(id)
    assert len(carrier.asked) == 1
