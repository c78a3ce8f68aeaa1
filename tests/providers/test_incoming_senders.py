"""Senders that are not phone numbers are kept unchanged, for every provider."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from smsqueue import exc
from smsqueue.providers.simulator import SimulatorProvider, sign
from smsqueue.testing.examples import Examples, Webhook, message
from smsqueue.testing.stub import Answer
from smsqueue.testing.webhook_checks import post_webhook, receiver
from tests.providers import test_africastalking as africastalking
from tests.providers import test_aws_messaging as aws
from tests.providers import test_aws_sns as aws_sns
from tests.providers import test_bird as bird
from tests.providers import test_clickatell as clickatell
from tests.providers import test_gatewayapi as gatewayapi
from tests.providers import test_infobip as infobip
from tests.providers import test_messagebird as messagebird
from tests.providers import test_plivo as plivo
from tests.providers import test_sinch as sinch
from tests.providers import test_telnyx as telnyx
from tests.providers import test_twilio as twilio
from tests.providers import test_vianett as vianett
from tests.providers import test_vonage as vonage
from tests.providers import test_vonage_messages as vonage_messages
from tests.providers.helpers import account, failure_of

#: As they come, and as they are kept; can an SMS answer them?
SENDERS = [
    ("INFO4242", "INFO4242", False),
    ("SUPPORT", "SUPPORT", False),
    ("40404", "40404", True),
    ("jane1984@example.com", "jane1984@example.com", False),
    ("12345678901234567", "12345678901234567", False),
    ("+1 555 123 4567", "15551234567", True),
]

SIMULATOR = Examples(
    provider=SimulatorProvider,  # type: ignore[arg-type]  # it is no account of anybody's
    config={"token": "t"},
    good=Answer(202, {"id": "1"}),
)


def simulator_hook(src: str) -> Webhook:
    told = {"id": "1", "from": src, "to": "SHOP24", "text": "hi"}
    return Webhook(
        "",
        "/im",
        [],
        json=told,
        sign=lambda method, url, headers, body: (
            headers | {"X-Simulator-Signature": sign("t", body)}
        ),
    )


def telnyx_hook(src: str) -> Webhook:
    told = telnyx.INBOUND | {"from": {"phone_number": src}, "to": [{"phone_number": "SHOP24"}]}
    return telnyx.hook("", "/im", [], json=telnyx.event("message.received", told))


def infobip_hook(src: str) -> Webhook:
    told = infobip.INCOMING | {"from": src, "to": "SHOP24"}
    return infobip.hook("", "/im", [], json={"results": [told]})


def bird_hook(src: str) -> Webhook:
    data = bird.RECEIVED["data"] | {"from": src, "to": "SHOP24"}
    return bird.hook("", "/im", [], bird.RECEIVED | {"data": data})


def clickatell_hook(src: str) -> Webhook:
    told = clickatell.MO | {"from": src, "to": "SHOP24"}
    return Webhook("", "/im", [], json={"event": {"moText": [told]}})


def simple(module: Any, fields: dict[str, Any], names: tuple[str, str], how: str) -> Any:
    hook = getattr(module, "hook", Webhook)

    def made(src: str) -> Webhook:
        told = fields | {names[0]: src, names[1]: "SHOP24"}
        found: Webhook = hook("", "/im", [], **{how: told})
        return found

    return made


ALL: dict[str, tuple[Examples, Any]] = {
    "twilio": (twilio.EXAMPLES, simple(twilio, twilio.INCOMING, ("From", "To"), "form")),
    "telnyx": (telnyx.EXAMPLES, telnyx_hook),
    "vonage": (vonage.EXAMPLES, simple(vonage, vonage.INCOMING, ("msisdn", "to"), "form")),
    "vonage messages": (
        vonage_messages.EXAMPLES,
        simple(vonage_messages, vonage_messages.INCOMING, ("from", "to"), "json"),
    ),
    "infobip": (infobip.EXAMPLES, infobip_hook),
    "messagebird": (
        messagebird.EXAMPLES,
        simple(messagebird, messagebird.MO, ("originator", "recipient"), "form"),
    ),
    "sinch": (sinch.EXAMPLES, simple(sinch, sinch.INCOMING, ("from", "to"), "json")),
    "bird": (bird.EXAMPLES, bird_hook),
    "plivo": (plivo.EXAMPLES, simple(plivo, plivo.INBOUND, ("From", "To"), "form")),
    "clickatell": (clickatell.EXAMPLES, clickatell_hook),
    "gatewayapi": (
        gatewayapi.EXAMPLES,
        simple(gatewayapi, gatewayapi.MO, ("msisdn", "receiver"), "json"),
    ),
    "africastalking": (
        africastalking.EXAMPLES,
        simple(africastalking, africastalking.INCOMING, ("from", "to"), "form"),
    ),
    "vianett": (
        vianett.EXAMPLES,
        simple(vianett, vianett.INCOMING, ("sourceaddr", "destinationaddr"), "form"),
    ),
    "simulator": (SIMULATOR, simulator_hook),
}


#: These document how senders look, and sign fields as one text: nothing else is taken.
STRICT = {"twilio", "plivo"}
NOT_DOCUMENTED = {"jane1984@example.com", "12345678901234567", "+1 555 123 4567"}


@pytest.mark.parametrize(
    ("name", "src", "kept", "replyable"),
    [
        (name, *sender)
        for name in ALL
        for sender in SENDERS
        if not (name in STRICT and sender[0] in NOT_DOCUMENTED)
    ],
)
def test_a_sender_that_is_no_number_is_kept_as_it_came(
    name: str, src: str, kept: str, replyable: bool
) -> None:
    examples, hook = ALL[name]
    client, heard = receiver(examples)
    assert post_webhook(client, hook(src)).status_code in (200, 204)
    assert [(one.src, one.dst, one.replyable) for one in heard] == [(kept, "SHOP24", replyable)]


@pytest.mark.parametrize("src", [src for src, _, _ in SENDERS])
def test_aws_keeps_it_too(src: str) -> None:
    client, heard = receiver(aws.EXAMPLES, insecure=True)
    told = aws.INBOUND | {"originationNumber": src, "destinationNumber": "SHOP24"}
    assert post_webhook(client, aws.hook("", aws.delivery(told)), signed=False).status_code == 204
    assert (heard[0].src, heard[0].dst) == (
        next(kept for came, kept, _ in SENDERS if came == src),
        "SHOP24",
    )


@pytest.mark.parametrize("channel", ["whatsapp", "messenger", "rcs"])
def test_twilio_keeps_the_channel_of_an_address(channel: str) -> None:
    client, heard = receiver(twilio.EXAMPLES)
    told = twilio.INCOMING | {"From": f"{channel}:+15551234567", "To": f"{channel}:+15550009999"}
    assert post_webhook(client, twilio.hook("", "/im", [], form=told)).status_code == 200
    [one] = heard
    assert (one.src, one.dst) == (told["From"], told["To"])
    assert (one.channel, one.replyable) == (channel, False)


@pytest.mark.parametrize("source", ["9876543210", {"type": "messenger", "id": "9876543210"}])
def test_an_id_of_digits_in_another_channel_is_no_number(source: Any) -> None:
    client, heard = receiver(vonage_messages.EXAMPLES)
    told = vonage_messages.INCOMING | {"from": source, "channel": "messenger"}
    assert post_webhook(client, vonage_messages.hook("", "/im", [], json=told)).status_code == 200
    [one] = heard
    assert (one.src, one.channel, one.replyable) == ("9876543210", "messenger", False)


WITH_PLUS = {
    "twilio": (twilio.EXAMPLES, lambda seen: seen.form["To"]),
    "telnyx": (telnyx.EXAMPLES, lambda seen: seen.json["to"]),
    "sinch": (sinch.EXAMPLES, lambda seen: seen.json["to"][0]),
    "bird": (bird.EXAMPLES, lambda seen: seen.json["to"]),
    "africastalking": (africastalking.EXAMPLES, lambda seen: seen.form["to"]),
    "aws": (aws.EXAMPLES, lambda seen: seen.json["DestinationPhoneNumber"]),
    "sns": (aws_sns.EXAMPLES, lambda seen: seen.form["PhoneNumber"]),
}


@pytest.mark.parametrize("name", WITH_PLUS)
def test_an_answer_to_a_short_code_does_not_go_to_another_country(name: str) -> None:
    examples, to = WITH_PLUS[name]
    with account(examples, examples.good, examples.good) as (provider, stub):
        for dst in ("40404", "15551234567"):
            provider.send(message(dst))
    assert [to(seen) for seen in stub.seen] == ["40404", "+15551234567"]


@pytest.mark.parametrize("name", ALL)
def test_no_provider_is_called_for_a_sender_that_is_no_number(name: str) -> None:
    examples, _ = ALL[name]
    asked = replace(examples, config=dict(examples.config))
    error = failure_of(
        asked, lambda provider: provider.gateway.send(message("INFO4242")), examples.good
    )
    assert type(error) is exc.RequestError
