"""A message with an uncertain response is sent once: never twice, never lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from smsqueue import Settings
from smsqueue.providers.messagebird import MessageBirdProvider
from smsqueue.providers.plivo import PlivoProvider
from smsqueue.providers.twilio import TwilioProvider
from smsqueue.providers.vonage import VonageProvider
from smsqueue.testing.stub import Answer, Stub
from tests.ledger.bench import Bench

ENVOY = "upstream connect error or disconnect/reset before headers. reset reason: connection reset"


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    made = Bench(settings)
    yield made
    made.close()


def add(bench: Bench, stub: Stub, name: str, cls: Any, **config: Any) -> None:
    bench.gateway.add_provider(name, cls, url=stub.url, sender="15550009999", **config)


def twilio(bench: Bench, stub: Stub, name: str = "main") -> None:
    add(bench, stub, name, TwilioProvider, account_sid="AC1", auth_token="t")


def test_a_503_of_a_proxy_sends_no_second_sms(bench: Bench) -> None:
    """Envoy answers so, too, when the connection breaks after it forwarded the request."""
    with Stub(Answer(503, ENVOY)) as stub, Stub(Answer(201, {"sid": "SM2"})) as other:
        twilio(bench, stub, "a")
        twilio(bench, other, "b")
        id = bench.send_by("a", "b")
        bench.deliver(id)
        bench.deliver(id)
        assert bench.gateway.lookup(id).state == "unknown"
        assert (len(stub.seen), len(other.seen)) == (1, 0)


def test_a_503_with_the_providers_own_code_is_sent_by_the_next_provider(bench: Bench) -> None:
    busy = {"code": 20503, "message": "no", "status": 503}
    with Stub(Answer(503, busy)) as stub, Stub(Answer(201, {"sid": "SM2"})) as other:
        twilio(bench, stub, "a")
        twilio(bench, other, "b")
        id = bench.send_by("a", "b")
        bench.deliver(id)
        assert bench.gateway.lookup(id).state == "sent"
        assert (len(stub.seen), len(other.seen)) == (1, 1)


@pytest.mark.parametrize(
    ("cls", "config", "answer"),
    [
        (VonageProvider, {"api_key": "k", "api_secret": "s"}, {"message-count": "0"}),
        (
            VonageProvider,
            {"api_key": "k", "api_secret": "s"},
            {"message-count": "0", "messages": []},
        ),
        (PlivoProvider, {"auth_id": "MA1", "auth_token": "t"}, {"message_uuid": []}),
        (
            TwilioProvider,
            {"account_sid": "AC1", "auth_token": "t"},
            {"sid": "SM1", "status": "failed", "error_code": 21211},
        ),
        (
            MessageBirdProvider,
            {"access_key": "k"},
            {"id": "m", "recipients": {"totalCount": 0, "totalSentCount": 0, "items": []}},
        ),
    ],
)
def test_a_2xx_that_says_that_nothing_was_sent_ends_as_failed(
    bench: Bench, cls: Any, config: dict[str, str], answer: Any
) -> None:
    with Stub(Answer(200, answer)) as stub:
        add(bench, stub, "main", cls, **config)
        id = bench.send()
        bench.deliver(id)
        record = bench.gateway.lookup(id)
        assert (record.state, record.error, len(stub.seen)) == ("failed", "RequestError", 1)


def test_a_2xx_that_cannot_be_understood_is_unknown(bench: Bench) -> None:
    with Stub(Answer(200, {"message-count": "1"})) as stub:
        add(bench, stub, "main", VonageProvider, api_key="k", api_secret="s")
        id = bench.send()
        bench.deliver(id)
        assert bench.gateway.lookup(id).state == "unknown"


@pytest.mark.parametrize("id", [{"a": 1}, [{"a": 1}], [[]], 1.5])
def test_an_invalid_id_leaves_the_message_unknown(bench: Bench, id: Any) -> None:
    with Stub(Answer(202, {"message_uuid": id})) as stub:
        add(bench, stub, "main", PlivoProvider, auth_id="MA1", auth_token="t")
        sent = bench.send()
        bench.deliver(sent)
        assert bench.gateway.lookup(sent).state == "unknown"
