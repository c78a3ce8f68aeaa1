"""Simulated replies and delivery reports, and webhooks of the application under test."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from smsqueue import Gateway, IncomingMessage, MessageStatus, OutgoingMessage, Settings, State
from smsqueue.providers.simulator import SIGNATURE_HEADER, SimulatorProvider, sign
from smsqueue.testing import capture


@pytest.mark.parametrize(
    ("state", "states"),
    [
        ("accepted", {"accepted"}),
        ("delivered", {"accepted", "delivered"}),
        ("expired", {"accepted", "expired"}),
        (State.UNDELIVERED, {"accepted", "error"}),
        ("failed", {"accepted", "error"}),
    ],
)
def test_a_report_reaches_onstatus_as_from_a_worker(
    away: Gateway, state: str, states: set[str]
) -> None:
    heard: list[MessageStatus] = []
    away.onStatus += heard.append
    with capture(away) as outbox:
        sent = away.send(OutgoingMessage("1", "-").options(context={"user": 7}))
        assert outbox.report(sent, state, code="e-9") is heard[0]
        assert away.lookup(sent.id or "").state == state
        assert away.lookup(sent.id or "").code == "e-9"
    [status] = heard
    assert (status.id, status.context, status.states) == (sent.id, {"user": 7}, states)
    assert status.status_code == "e-9"
    # A message that no provider accepted has no message id of a provider.
    assert status.msgid == (None if state == "failed" else outbox.last.msgid)


def test_a_state_never_goes_backwards(away: Gateway) -> None:
    heard: list[MessageStatus] = []
    away.onStatus += heard.append
    with capture(away) as outbox:
        sent = away.send(OutgoingMessage("1", "-"))
        outbox.report(sent, "delivered")
        outbox.report(sent.id or "", "accepted")
        assert away.lookup(sent.id or "").state == State.DELIVERED
    assert [status.state for status in heard] == ["delivered", "accepted"]


def test_a_report_of_an_unknown_message_or_state_is_refused(away: Gateway) -> None:
    with capture(away) as outbox:
        with pytest.raises(LookupError, match="no message with the id"):
            outbox.report(OutgoingMessage("1", "-"), "delivered")
        sent = away.send(OutgoingMessage("1", "-"))
        with pytest.raises(ValueError, match="'queued' is never reported; use one of"):
            outbox.report(sent, "queued")


def test_a_reply_reaches_onreceive_and_its_answer_is_captured(away: Gateway) -> None:
    heard: list[IncomingMessage] = []

    def thank(message: IncomingMessage) -> None:
        heard.append(message)
        away.send(OutgoingMessage(message.src, "Thank you!"))

    away.onReceive += thank
    with capture(away) as outbox:
        away.send(OutgoingMessage("+1 555", "well?", src="+1 900").route("otp"))
        outbox.reply(outbox.last, "yes")
        outbox.reply("+1 666", "hello", provider="cheap")
    replies = [(m.src, m.dst, m.body, m.provider) for m in heard]
    assert replies == [("1555", "1900", "yes", "backup"), ("1666", None, "hello", "cheap")]
    assert all(message.id and message.msgid for message in heard)
    assert [(sent.dst, sent.body) for sent in outbox] == [
        ("1555", "well?"),
        ("1555", "Thank you!"),
        ("1666", "Thank you!"),
    ]


def test_a_reply_without_a_handler_is_an_assertion_error(away: Gateway) -> None:
    with capture(away) as outbox, pytest.raises(AssertionError, match="onReceive"):
        outbox.reply("1", "hello")


def test_the_error_of_a_handler_is_raised(away: Gateway) -> None:
    away.onReceive += lambda message: 1 // 0
    away.onStatus += lambda status: status.context["missing"]
    with capture(away) as outbox:
        with pytest.raises(ZeroDivisionError):
            outbox.reply("1", "hello")
        sent = away.send(OutgoingMessage("1", "-"))
        with pytest.raises(KeyError):
            outbox.report(sent, "delivered")


def test_webhooks_of_the_application_reach_its_handlers() -> None:
    gateway = Gateway(Settings(redis_url="redis://127.0.0.1:1/0"))
    gateway.add_provider("main", SimulatorProvider, url="http://127.0.0.1:1", token="secret")
    heard: list[Any] = []
    gateway.onReceive += lambda message: heard.append((message.src, message.provider))
    gateway.onStatus += lambda status: heard.append((status.id, status.context))
    app = gateway.receiver_blueprints_register(Flask("shop"), "hidden")

    def webhook(view: str, body: str) -> int:
        data = body.encode()
        headers = {SIGNATURE_HEADER: sign("secret", data)}
        return (
            app.test_client().post(f"/hidden/main/{view}", data=data, headers=headers).status_code
        )

    with capture(gateway) as outbox:
        sent = gateway.send(OutgoingMessage("1", "-").options(context={"user": 7}))
        msgid, reference = outbox.last.msgid, outbox.last.reference
        by_id = f'{{"id": "{msgid}", "state": "delivered"}}'
        by_reference = f'{{"id": "other", "reference": "{reference}", "state": "delivered"}}'
        assert webhook("status", by_id) == webhook("status", by_reference) == 204
        assert webhook("status", '{"id": "unknown", "state": "delivered"}') == 204
        assert webhook("im", '{"id": "i1", "from": "1555", "text": "hello"}') == 204
        assert gateway.lookup(sent.id or "").state == State.DELIVERED
    assert heard == [(sent.id, {"user": 7})] * 2 + [(None, {}), ("1555", "main")]
