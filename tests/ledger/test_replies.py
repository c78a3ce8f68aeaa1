"""``message.reply()`` in handlers of incoming messages."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from smsqueue import Gateway, IncomingMessage, OutgoingMessage, exc
from smsqueue.providers import LoopbackProvider
from smsqueue.testing import capture
from tests.ledger.bench import Bench


def _receive(bench: Bench, src: str = "+15550001", channel: str | None = None) -> None:
    message = IncomingMessage(src, "hello", "m1", dst="+15559999")
    message.provider, message.channel = "a", channel
    bench.gateway.receive_message(message)


def test_a_reply_goes_from_the_number_that_was_texted(bench: Bench) -> None:
    bench.add("b")
    bench.add("a")
    sent: list[OutgoingMessage] = []
    bench.gateway.onReceive += lambda message: sent.append(message.reply("hi", status_report=True))
    _receive(bench)
    bench.run_hooks()
    stored = bench.record(str(sent[0].id)).message
    assert (stored.dst, stored.src, stored.provider) == ("15550001", "15559999", "a")
    assert (stored.body, stored.provider_options.status_report) == ("hi", True)


def test_a_repeated_handler_replies_once(bench: Bench) -> None:
    bench.add("a")
    ids: list[str | None] = []

    def answer(message: IncomingMessage) -> None:
        ids.append(message.reply("hi").id)
        if len(ids) == 1:
            raise RuntimeError("after the reply")

    bench.gateway.onReceive += answer
    _receive(bench)
    bench.run_hooks()
    [event] = bench.events("received")
    bench.redis.hset(bench.key("event", event), "not_before", 1)
    bench.hooks.run(event)
    assert len(ids) == 2
    assert ids[0] == ids[1]
    assert bench.ledger.counts()["queued"] == 1


@pytest.mark.parametrize(("src", "channel"), [("INFO4242", None), ("+15550001", "whatsapp")])
def test_a_sender_that_takes_no_sms_is_not_answered(
    bench: Bench, src: str, channel: str | None
) -> None:
    bench.add("a")
    errors: list[Exception] = []

    def answer(message: IncomingMessage) -> None:
        try:
            message.reply("hi")
        except exc.RequestError as error:
            errors.append(error)

    bench.gateway.onReceive += answer
    _receive(bench, src, channel)
    bench.run_hooks()
    assert ["replyable" in str(error) for error in errors] == [True]
    assert bench.ledger.counts()["queued"] == 0


def test_replies_of_eager_and_captured_gateways() -> None:
    gateway = Gateway(eager=True)
    phone: Any = gateway.add_provider("lo", LoopbackProvider)
    gateway.onReceive += lambda message: message.reply("hi")
    phone.received("15550001", "hello")
    assert [message.body for message in phone.get_traffic()] == ["hello", "hi"]
    with capture(gateway) as outbox:
        outbox.reply("+15550001", "hello")
    assert [(message.dst, message.body) for message in outbox] == [("15550001", "hi")]


def test_an_object_that_no_gateway_received_cannot_be_answered() -> None:
    message = IncomingMessage("+15550001", "hello")
    message.send_answer = Gateway(eager=True).send
    for other in (copy.deepcopy(message), pickle.loads(pickle.dumps(message))):
        with pytest.raises(LookupError, match="did not come through a gateway"):
            other.reply("hi")
