"""Parameters of a message never replace its recipient, its reference or the URL of reports."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl

import pytest

from smsqueue.testing.contract import made
from smsqueue.testing.examples import message
from smsqueue.testing.stub import Stub
from tests.providers.test_forged_webhooks import ALL

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


def spellings(name: str) -> set[str]:
    """Those that one API or another takes for the same."""
    wide = "".join(chr(ord(c) + 0xFEE0) if c.isalnum() else c for c in name)
    return {
        *(name, name.upper(), name.lower(), name.capitalize(), f" {name}", f"{name}\t", wide),
        *(f"{name}[]", f"{name}[0]", f"{name}.0", f"{name}[0][to]", f"[{name}]", f"/{name}"),
        *(name.replace("_", "-"), name.replace("-", "_"), name.replace("_", "")),
        *("".join(f"%{ord(c):02x}" for c in name), f"%25{ord(name[0]):02x}{name[1:]}"),
    }


@contextmanager
def provider(name: str) -> Iterator[Callable[..., str]]:
    """Sends a message with these parameters; the body of the request that it becomes."""
    examples = ALL[name]
    with Stub(examples.good) as stub:
        _, provider, _ = made(examples, stub.url)

        def sent(**params: Any) -> str:
            stub.seen.clear()
            provider.send(message(src="15550007777", params=params, status_report=True))
            [seen] = stub.seen
            return seen.body.decode()

        yield sent


def values(text: str) -> list[str]:
    """Names and values of a request's body."""
    if text.startswith("{"):
        return [json.dumps(json.loads(text), sort_keys=True)]
    return sorted(f"{n}={v}" for n, v in parse_qsl(text, keep_blank_values=True))


@pytest.mark.parametrize("name", NAMES)
def test_no_spelling_of_a_parameter_replaces_what_is_ours(name: str) -> None:
    with provider(name) as sent:
        usual = values(sent())
        for ours in NAMES[name]:
            for spelling in sorted(spellings(ours)):
                for value in (THEIRS, [THEIRS], {"to": THEIRS}, [{"to": THEIRS}]):
                    body = sent(**{spelling: value})
                    assert THEIRS not in body, (spelling, value)
                    assert values(body) == usual, (spelling, value)


def test_the_address_of_infobips_reports_is_not_replaced_within_its_object() -> None:
    with provider("infobip") as sent:
        usual = values(sent())
        for name in ("delivery", "Delivery", "delivery[url]", "callbackData"):
            for value in ({"url": "https://evil.example"}, "https://evil.example"):
                body = sent(webhooks={name: value})
                assert "evil" not in body, (name, value)
                assert values(body) == usual, (name, value)
        assert "evil" not in sent(webhooks="https://evil.example")


@pytest.mark.parametrize("name", NAMES)
def test_other_parameters_are_sent(name: str) -> None:
    with provider(name) as sent:
        assert "of-another-kind" in sent(some_option="of-another-kind")
