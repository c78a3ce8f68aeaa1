"""Plugins that report messages and statuses, connect handlers, or send themselves."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import smsframework
from smsframework.providers import LoopbackProvider, NullProvider

import smsqueue
from smsqueue import Gateway, OutgoingMessage, exc
from tests.compat.plugin import Arrived, Plugin, PluginStatus, add_plugin
from tests.ledger.bench import Bench


def test_a_report_is_of_the_plugins_class_and_of_ours(eager: Gateway) -> None:
    reports: list[Any] = []
    eager.onStatus += reports.append
    provider = add_plugin(eager)
    provider.report_status("D", 42)
    provider.report_status("?", 43)
    arrived, unknown = reports
    assert isinstance(arrived, smsqueue.MessageDelivered)
    assert isinstance(arrived, Arrived)
    assert (arrived.state, arrived.states) == ("delivered", {"accepted", "delivered"})
    assert (arrived.provider, arrived.msgid, arrived.status) == ("main", 42, "arrived")
    assert isinstance(unknown, smsqueue.MessageStatus)
    assert (unknown.state, unknown.status, unknown.id) == (None, "(unknown)", None)
    assert isinstance(PluginStatus.of("D", msgid=1), Arrived)
    assert pickle.loads(pickle.dumps(arrived)).state == "delivered"


def test_a_report_changes_the_message_and_reaches_the_handlers(bench: Bench) -> None:
    reports = bench.listen()

    def on_send(message: Any) -> Any:
        message.msgid = 42
        return message

    provider = add_plugin(bench.gateway, on_send)
    id = bench.send(status_report=True, context={"order": 7})
    bench.deliver(id)
    provider.report_status("D", "42")
    bench.run_hooks()
    assert bench.state(id) == "delivered"
    [status] = reports
    assert isinstance(status, smsqueue.MessageDelivered)
    assert (status.id, status.context, status.status_code) == (id, {"order": 7}, "D")


def test_an_incoming_message_is_of_our_class(bench: Bench, eager: Gateway) -> None:
    for gateway in (eager, bench.gateway):
        messages: list[Any] = []
        gateway.onReceive.connect(messages.append, name="received")
        returned = add_plugin(gateway).report_message("YES")
        bench.run_hooks()
        [message] = messages
        assert isinstance(message, smsqueue.IncomingMessage)
        assert isinstance(returned, smsframework.IncomingMessage)
        assert (message.provider, message.src, message.body) == ("main", "15550001", "YES")
        assert message.msgid == 42


def test_a_plugins_handlers_get_objects_of_its_own_classes(eager: Gateway) -> None:
    class Listening(Plugin):
        def __init__(self, gateway: Any, name: str) -> None:
            super().__init__(gateway, name)
            self.gateway.onReceive += self.forward
            self.gateway.onStatus += self.forward

        def forward(self, event: Any) -> None:
            kinds = (smsframework.IncomingMessage, smsframework.MessageStatus)
            assert isinstance(event, kinds)
            self.messages.append(event)

    listener: Any = eager.add_provider("listener", Listening)
    eager.receive_message(smsqueue.IncomingMessage("1", "x"))
    eager.receive_status(smsqueue.MessageDelivered("m"))
    assert [type(event).__name__ for event in listener.messages] == [
        "IncomingMessage",
        "MessageDelivered",
    ]
    listener.gateway.onReceive -= listener.forward
    eager.receive_message(smsqueue.IncomingMessage("1", "x"))
    assert len(listener.messages) == 2


def test_a_plugin_may_send_through_the_gateway(eager: Gateway) -> None:
    def on_send(message: Any) -> Any:
        other = smsframework.OutgoingMessage(message.dst, message.body, provider="null")
        return server.gateway.send(other.options(senderId="Shop").params(flash=1))

    server = add_plugin(eager, on_send)
    eager.add_provider("null", NullProvider)
    sent: list[Any] = []
    eager.onSend += sent.append
    message = eager.send(OutgoingMessage("1", "x"))
    assert (message.msgid, sent[0].provider) == ("1", "null")
    assert (sent[0].provider_options.senderId, sent[0].provider_params) == ("Shop", {"flash": 1})


def test_a_message_that_a_plugin_sends_gets_its_ids(eager: Gateway, bench: Bench) -> None:
    for gateway in (eager, bench.gateway):
        plugin = add_plugin(gateway)
        gateway.add_provider("null", NullProvider)
        routed: list[Any] = []

        def router(message: Any, *values: Any, routed: list[Any] = routed) -> str:
            routed.append(values)
            return "null"

        gateway.router = router
        theirs = smsframework.OutgoingMessage("1555", "x").route("otp", 2)
        assert plugin.gateway.send(theirs) is theirs
        if gateway.eager:
            assert (theirs.provider, theirs.msgid) == ("null", "1")
        else:
            bench.deliver(theirs.id)
            assert bench.record(theirs.id).provider == "null"
        assert routed == [("otp", 2)]


def test_smsframeworks_loopback_provider_works(eager: Gateway) -> None:
    phone: Any = eager.add_provider("lo", LoopbackProvider)
    events: list[Any] = []
    eager.onReceive += lambda message: events.append(message.body)
    eager.onStatus += lambda status: events.append(status.state)
    phone.subscribe("+1", lambda message: message.reply("got it"))
    eager.send(OutgoingMessage("+1", "obey me").options(status_report=True))
    assert events == ["got it", "delivered"]
    assert [message.body for message in phone.get_traffic()] == ["obey me", "got it"]


def test_ids_that_start_at_1_in_each_process_match_no_reports(bench: Bench) -> None:
    bench.gateway.add_provider("null", NullProvider)
    id = bench.send()
    bench.deliver(id)
    status = smsqueue.MessageDelivered("1")
    status.provider = "null"
    bench.gateway.receive_status(status)
    assert bench.state(id) == "sent"


def test_alphanumeric_senders_keep_their_text(bench: Bench, eager: Gateway) -> None:
    for gateway in (eager, bench.gateway):
        received: list[Any] = []
        gateway.onReceive.connect(received.append, name="received")
        plugin = add_plugin(gateway)
        for src, dst in (("INFO4242", "SHOP24"), ("+1 555 000 1111", "40404")):
            message = smsframework.IncomingMessage(src, "hi", f"m-{src}", dst=dst)
            plugin._receive_message(message)
        bench.run_hooks()
        addresses = {(message.src, message.dst, message.replyable) for message in received}
        assert addresses == {("INFO4242", "SHOP24", False), ("15550001111", "40404", True)}
        assert all(message.media == () for message in received)


def test_a_plugin_cannot_reply_to_an_alphanumeric_sender(eager: Gateway) -> None:
    plugin = add_plugin(eager)
    with pytest.raises(exc.RequestError, match="neither a phone number"):
        plugin.gateway.send(smsframework.OutgoingMessage("INFO4242", "thanks"))
    assert plugin.messages == []
