"""Fields of signed webhooks must have the form that the provider documents."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from smsqueue import Settings
from smsqueue.providers.authentic import sha256_hex
from smsqueue.testing.contract import PREFIX, PUBLIC_URL
from smsqueue.testing.examples import Webhook
from smsqueue.testing.webhook_checks import client_of, post_webhook, receiver
from tests.ledger.bench import Bench
from tests.providers import test_clickatell as clickatell
from tests.providers import test_gatewayapi as gatewayapi
from tests.providers import test_infobip as infobip
from tests.providers import test_messagebird as messagebird
from tests.providers import test_vonage as vonage
from tests.providers import test_vonage_messages as vonage_messages
from tests.providers.test_incoming_senders import ALL, SIMULATOR, simulator_hook

#: No provider's senders look so.
NO_SENDERS = ["+1555\n1234567", "<b>15551234567</b>", "15551234567\x00", 'a"b', "a=b;c", "x" * 101]
#: No provider's ids look so.
NO_IDS = ["m1\nforged line", "m1 m2", "<b>", "\x1b[2J", 'a"b', "m1\u2028", "i" * 129, "a'b;c"]
#: What Twilio and Plivo do not write in From and To.
NOT_THEIRS = ["+1555 1234567", "jane@example.com", "+15551234567x", "+1234567890123456", "+", "-1"]
NOT_THEIRS += ["Shop\u00e9", "TwelveLetter", "whatsapp:", "whatsapp:+1 555", "+1555/1234567"]

#: Where the id of an incoming message is.
IDS = {
    "twilio": "MessageSid",
    "telnyx": "id",
    "vonage": "messageId",
    "vonage messages": "message_uuid",
    "infobip": "messageId",
    "messagebird": "id",
    "sinch": "id",
    "bird": "sms_id",
    "plivo": "MessageUUID",
    "clickatell": "messageId",
    "gatewayapi": "id",
    "africastalking": "id",
    "vianett": "refno",
    "simulator": "id",
}


def with_value(value: Any, name: str, new: str) -> Any:
    """The document with another value wherever this name stands."""
    if isinstance(value, list):
        return [with_value(each, name, new) for each in value]
    if isinstance(value, dict):
        return {k: new if k == name else with_value(v, name, new) for k, v in value.items()}
    return value


def refused(name: str, hook: Webhook, caplog: pytest.LogCaptureFixture, *hidden: str) -> str:
    """The line that a webhook leaves in the log that is answered 400 and reports nothing."""
    client, heard = receiver(ALL[name][0])
    with caplog.at_level(logging.WARNING):
        assert post_webhook(client, hook).status_code == 400
    assert heard == []
    [line] = [each.getMessage() for each in caplog.records if "refused" in each.getMessage()]
    assert not any(each in line for each in (*hidden, "hi there"))
    return line


@pytest.mark.parametrize("src", NO_SENDERS)
@pytest.mark.parametrize("name", ALL)
def test_what_cannot_be_a_sender_is_refused_with_the_reason(
    name: str, src: str, caplog: pytest.LogCaptureFixture
) -> None:
    line = refused(name, ALL[name][1](src), caplog, src, "5551234567")
    assert "address" in line or "'s form" in line


@pytest.mark.parametrize("msgid", NO_IDS)
@pytest.mark.parametrize("name", ALL)
def test_what_cannot_be_an_id_is_refused_with_the_reason(
    name: str, msgid: str, caplog: pytest.LogCaptureFixture
) -> None:
    hook = ALL[name][1]("15551234567")
    changed = {
        how: with_value(getattr(hook, how), IDS[name], msgid)
        for how in ("form", "json")
        if getattr(hook, how) is not None
    }
    line = refused(name, replace(hook, **changed), caplog, msgid, "5551234567")
    if name != "infobip":  # it takes the other entries of the same webhook
        assert "id" in line.lower()


@pytest.mark.parametrize("name", ["twilio", "plivo"])
@pytest.mark.parametrize("address", NOT_THEIRS)
@pytest.mark.parametrize("field", ["From", "To"])
def test_an_address_that_twilio_or_plivo_does_not_write_is_refused(
    name: str, address: str, field: str, caplog: pytest.LogCaptureFixture
) -> None:
    hook = ALL[name][1]("+15551234567")
    assert hook.form is not None
    line = refused(name, replace(hook, form={**hook.form, field: address}), caplog)
    assert f"{field} does not have {name.title()}'s form" in line
    assert address not in line.partition("'s form")[0] or len(address) < 3


@pytest.mark.parametrize(
    "address",
    ["+15551234567", "15551234567", "40404", "262", "My Shop", "AT&T", "T-Mobile", "INFO4242"],
)
@pytest.mark.parametrize("name", ["twilio", "plivo"])
def test_addresses_that_they_write_are_taken(name: str, address: str) -> None:
    client, heard = receiver(ALL[name][0])
    assert post_webhook(client, ALL[name][1](address)).status_code == 200
    assert heard[0].src == address.lstrip("+")


def test_a_field_that_is_missing_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    client, _ = receiver(messagebird.EXAMPLES)
    hook = messagebird.hook("", "/im", [], form={"originator": "15551234567", "body": "hi there"})
    with caplog.at_level(logging.WARNING):
        assert post_webhook(client, hook).status_code == 400
    [line] = [each.getMessage() for each in caplog.records if "refused" in each.getMessage()]
    assert line == "webhook of main refused: id is missing"


# --- The account -----------------------------------------------------------------------------


def test_vonage_takes_webhooks_of_its_own_account() -> None:
    key = vonage.EXAMPLES.config["api_key"]
    for given, code in ((key, 204), ("1234abcd", 403)):
        client, heard = receiver(vonage.EXAMPLES)
        hook = vonage.hook("", "/im", [], form=vonage.INCOMING | {"api-key": given})
        assert post_webhook(client, hook).status_code == code
        assert len(heard) == (code == 204)
    client, heard = receiver(vonage.EXAMPLES, subaccounts="1234abcd")
    assert post_webhook(client, hook).status_code == 204


@pytest.mark.parametrize(("claim", "code"), [("app-1", 200), ("app-2", 403)])
def test_vonage_messages_takes_tokens_of_its_own_application(claim: str, code: int) -> None:
    config = {"application_id": "app-1", "private_key": vonage_messages.PEM}
    client, heard = receiver(vonage_messages.EXAMPLES, **config)
    _, hook, _ = vonage_messages.with_token("", application_id=claim)
    assert post_webhook(client, hook).status_code == code
    assert len(heard) == (code == 200)


@pytest.mark.parametrize(("claim", "code"), [("", 200), ("other", 403)])
def test_vonage_messages_takes_tokens_of_its_own_account(claim: str, code: int) -> None:
    key = vonage_messages.EXAMPLES.config["api_key"]
    client, heard = receiver(vonage_messages.EXAMPLES)
    _, hook, _ = vonage_messages.with_token("", api_key=claim or key)
    assert post_webhook(client, hook).status_code == code
    assert len(heard) == (code == 200)


def test_clickatell_accepts_callbacks_with_its_own_key() -> None:
    hook = clickatell.reply("hi", "UTF-8", "hi")
    client, heard = receiver(clickatell.EXAMPLES)
    assert post_webhook(client, hook).status_code == 200
    for other in ("other", 5, None):
        changed = replace(hook, json={**hook.json, "apiKey": other})
        assert post_webhook(client, changed).status_code == 403
    assert len(heard) == 1


# --- Signatures ------------------------------------------------------------------------------


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    made = Bench(replace(settings, public_url=PUBLIC_URL, receiver_prefix=(PREFIX,)))
    yield made
    made.close()


def taken(bench: Bench, examples: Any, hook: Webhook) -> Any:
    """Let the bench take a webhook; the answer."""
    config = dict(examples.config) | {"url": "http://127.0.0.1:9"}
    bench.gateway.add_provider("main", examples.provider, **config)
    return post_webhook(client_of(bench.gateway), hook)


def use_of(bench: Bench, signature: str) -> str:
    """What the ledger says of a signature that another request comes with."""
    return bench.gateway.note_signature("main", signature, "another request", 60)


def test_infobips_signature_is_remembered(bench: Bench) -> None:
    hook = ALL["infobip"][1]("15551234567")
    assert taken(bench, infobip.EXAMPLES, hook).status_code == 200
    body = json.dumps(hook.json).encode()
    assert use_of(bench, f"hmac:{sha256_hex(body)}") == "other"
    assert len(bench.events()) == 1


def test_the_simulators_signature_is_remembered(bench: Bench) -> None:
    hook = simulator_hook("15551234567")
    assert hook.sign is not None
    headers = hook.sign("POST", "", {}, json.dumps(hook.json).encode())
    assert taken(bench, SIMULATOR, hook).status_code == 204
    assert use_of(bench, headers["X-Simulator-Signature"]) == "other"
    assert len(bench.events()) == 1


@pytest.mark.parametrize("name", ["gatewayapi", "messagebird", "vonage messages"])
def test_another_spelling_of_a_token_is_the_same_signature(bench: Bench, name: str) -> None:
    """The last letter of a signature in Base64 has bits that count for nothing."""
    examples = {
        "gatewayapi": gatewayapi.EXAMPLES,
        "messagebird": messagebird.EXAMPLES,
        "vonage messages": vonage_messages.EXAMPLES,
    }[name]
    hook, seen = ALL[name][1]("15551234567"), []
    sign = hook.sign

    def signed(*request: Any) -> Any:
        headers = sign(*request)
        header = next(k for k, v in headers.items() if v.count(".") == 2)
        seen.append(headers[header].split()[-1])
        return headers

    answer = taken(bench, examples, replace(hook, sign=signed))
    assert answer.status_code in (200, 204)
    assert use_of(bench, seen[0].rpartition(".")[0]) == "other"
    assert len(bench.events()) == 1
