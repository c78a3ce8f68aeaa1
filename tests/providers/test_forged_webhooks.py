"""Webhooks with one thing wrong are refused or recorded, and never answered 500."""

from __future__ import annotations

import itertools
import logging
import string
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from smsqueue import Settings
from smsqueue.testing.examples import PREFIX, PUBLIC_URL, Examples, Webhook
from smsqueue.testing.webhook_checks import client_of, distorted_webhooks, post_webhook
from tests.ledger.bench import Bench
from tests.providers import test_africastalking as africastalking
from tests.providers import test_aws_messaging as aws_messaging
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

ALL = {
    "twilio": twilio.EXAMPLES,
    "vonage": vonage.EXAMPLES,
    "vonage_messages": vonage_messages.EXAMPLES,
    "infobip": infobip.EXAMPLES,
    "telnyx": telnyx.EXAMPLES,
    "plivo": plivo.EXAMPLES,
    "sinch": sinch.EXAMPLES,
    "clickatell": clickatell.EXAMPLES,
    "gatewayapi": gatewayapi.EXAMPLES,
    "messagebird": messagebird.EXAMPLES,
    "bird": bird.EXAMPLES,
    "aws-messaging": aws_messaging.EXAMPLES,
    "africastalking": africastalking.EXAMPLES,
    "vianett": vianett.EXAMPLES,
}
#: What else is answered: to who posts where GET is wanted, or whose signature is in the body.
ALSO = {"messagebird": {405}, "vonage": {400}, "aws-messaging": {400}}


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    made = Bench(replace(settings, public_url=PUBLIC_URL, receiver_prefix=(PREFIX,)))
    yield made
    made.close()


def receiving(bench: Bench, examples: Examples, **config: Any) -> Any:
    """A client of the bench's receivers, to which the provider is added."""
    config = dict(examples.config) | {"url": "http://127.0.0.1:9"} | config
    bench.gateway.add_provider("main", examples.provider, **config)
    return client_of(bench.gateway)


def some(examples: Examples) -> list[Webhook]:
    """One webhook of each kind and address."""
    kinds = {(h.path.partition("?")[0], h.method, str(h.events)[:8]): h for h in examples.webhooks}
    return list(kinds.values())


@pytest.mark.parametrize("name", ALL)
def test_signed_changes_are_never_answered_500(
    bench: Bench, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    examples = ALL[name]
    client = receiving(bench, examples)
    heard: list[Any] = []
    bench.gateway.onStatus.connect(heard.append, name="status")
    bench.gateway.onReceive.connect(heard.append, name="receive")
    answers: Counter[int] = Counter()
    with caplog.at_level(logging.DEBUG):
        for hook in some(examples):
            for each in distorted_webhooks(hook):
                answers[post_webhook(client, each).status_code] += 1
        bench.run_hooks()
    assert answers.keys() <= {200, 204, 400, 403, 413} | ALSO.get(name, set()), answers
    assert answers[200] + answers[204] > 20, "nothing came as far as the ledger"
    assert answers[400] > 20
    assert heard
    for record in caplog.records:
        if record.name.startswith(("smsqueue", "receivers")):
            text = record.getMessage()
            assert not any(secret in text for secret in ("5551234567", "hi there", "hi +"))


@pytest.mark.parametrize("name", [name for name in ALL if ALL[name].provider.authenticates])
def test_unsigned_changes_are_refused(bench: Bench, name: str) -> None:
    examples = ALL[name]
    client = receiving(bench, examples)
    refused = {403, 413} | ALSO.get(name, set())
    for hook in some(examples):
        for each in [*distorted_webhooks(hook), hook]:
            assert post_webhook(client, each, signed=False).status_code in refused
    assert bench.events() == []


@pytest.mark.parametrize("name", ALL)
def test_very_many_fields_are_refused_before_they_are_looked_at(bench: Bench, name: str) -> None:
    """Vonage's and ViaNett's views took half a minute for the form below, from anybody."""
    client = receiving(bench, ALL[name])
    names = ["".join(each) for each in itertools.product(string.ascii_letters, repeat=3)]
    form = "&".join(names[:30_000] * 2)
    kind = "application/x-www-form-urlencoded"
    for path, query in itertools.product(("im", "status"), ("", "&".join(names[:1500]))):
        url = f"/{PREFIX}/main/{path}"
        posted = client.post(f"{url}?{query}", data="" if query else form, content_type=kind)
        assert posted.status_code in (405, 413)
        assert client.get(f"{url}?{form[:60_000]}").status_code in (405, 413)
