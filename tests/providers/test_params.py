"""Parameters of a message never replace its recipient, its reference and the address of reports."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

import pytest

from smsqueue.testing.contract import made
from smsqueue.testing.examples import message
from smsqueue.testing.stub import Stub
from tests.providers.test_hostile import ALL

THEIRS = "15559998888"
NAMES = {
    "twilio": ["To", "StatusCallback", "ApplicationSid"],
    "vonage": ["to", "callback", "client-ref", "status-report-req"],
    "vonage_messages": ["to", "webhook_url", "client_ref", "failover"],
    "infobip": ["to", "destinations", "messageId", "callbackData", "notifyUrl"],
    "telnyx": ["to", "cc", "webhook_url", "webhook_failover_url", "use_profile_webhooks"],
    "plivo": ["dst", "url", "method"],
    "sinch": ["to", "callback_url", "client_reference", "delivery_report"],
    "clickatell": ["to", "clientMessageId"],
    "gatewayapi": ["recipients", "userref", "callback_url"],
    "messagebird": ["recipients", "groupIds", "reference", "reportUrl"],
    "bird": ["to"],
    "aws-messaging": ["DestinationPhoneNumber"],
    "africastalking": ["to", "username"],
    "vianett": ["Tel", "msgid", "nrq"],
}


def spellings(name: str) -> list[str]:
    """Those that one API or another takes for the same."""
    wide = "".join(chr(ord(c) + 0xFEE0) if c.isalnum() else c for c in name)
    return [
        *(name, name.upper(), name.lower(), name.capitalize(), f" {name}", f"{name}\t", wide),
        *(f"{name}[]", f"{name}[0]", f"{name}.0", f"{name}[0][to]", f"[{name}]", f"/{name}"),
        *(name.replace("_", "-"), name.replace("-", "_"), name.replace("_", "")),
        *("".join(f"%{ord(c):02x}" for c in name), f"%25{ord(name[0]):02x}{name[1:]}"),
    ]


def sent(name: str, **params: Any) -> tuple[str, str, dict[str, str]]:
    """The request that a message with these parameters becomes: address, body, headers."""
    examples = ALL[name]
    with Stub(examples.good) as stub:
        _, provider, _ = made(examples, stub.url)
        provider.send(message(src="15550007777", params=params, status_report=True))
    [seen] = stub.seen
    return seen.target, seen.body.decode(), dict(seen.headers)


def values(text: str) -> list[str]:
    """Names and values of a request's body."""
    if text.startswith("{"):
        return [json.dumps(json.loads(text), sort_keys=True)]
    return sorted(f"{n}={v}" for n, v in parse_qsl(text, keep_blank_values=True))


@pytest.mark.parametrize("name", NAMES)
def test_no_spelling_of_a_parameter_replaces_what_is_ours(name: str) -> None:
    usual = values(sent(name)[1])
    for ours in NAMES[name]:
        for spelling in spellings(ours):
            for value in (THEIRS, [THEIRS], {"to": THEIRS}, [{"to": THEIRS}]):
                body = sent(name, **{spelling: value})[1]
                assert THEIRS not in body, (spelling, value)
                assert values(body) == usual, (spelling, value)


def test_the_address_of_infobips_reports_is_not_replaced_within_its_object() -> None:
    usual = values(sent("infobip")[1])
    for name in ("delivery", "Delivery", "delivery[url]", "callbackData"):
        for value in ({"url": "https://evil.example"}, "https://evil.example"):
            body = sent("infobip", webhooks={name: value})[1]
            assert "evil" not in body
            assert values(body) == usual
    assert "evil" not in sent("infobip", webhooks="https://evil.example")[1]


@pytest.mark.parametrize("name", NAMES)
def test_other_parameters_are_sent(name: str) -> None:
    assert "of-another-kind" in sent(name, **{"some_option": "of-another-kind"})[1]
