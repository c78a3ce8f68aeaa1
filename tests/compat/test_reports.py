"""What a plugin reports, and plugins that use the gateway themselves."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import smsframework
from smsframework.providers import LoopbackProvider, NullProvider

import smsqueue
from smsqueue import Gateway, OutgoingMessage, exc
from tests.compat.plugin import Arrived, Plugin, PluginStatus, add
from tests.ledger.bench import Bench


def test_a_report_of_the_plugins_own_class_is_one_of_ours(eager: Gateway) -> None:
    heard: list[Any] = []
    eager.onStatus += heard.append
    provider = add(eager)
    provider.tell("D", 42)
    provider.tell("?", 43)
    arrived, strange = heard
    assert isinstance(arrived, smsqueue.MessageDelivered)
    assert isinstance(arrived, Arrived)
    assert (arrived.state, arrived.states) == ("delivered", {"accepted", "delivered"})
    assert (arrived.provider, arrived.msgid, arrived.status) == ("main", 42, "arrived")
    assert isinstance(strange, smsqueue.MessageStatus)
    assert (strange.state, strange.status, strange.id) == (None, "(unknown)", None)
    assert isinstance(PluginStatus.of("D", msgid=1), Arrived)
    assert pickle.loads(pickle.dumps(arrived)).state == "delivered"


def test_a_report_reaches_the_message_and_the_hook_through_the_ledger(bench: Bench) -> None:
    heard = bench.listen()

    def does(message: Any) -> Any:
        message.msgid = 42
        return message

    provider = add(bench.gateway, does)
    id = bench.send(status_report=True, context={"order": 7})
    bench.deliver(id)
    provider.tell("D", "42")
    bench.run_hooks()
    assert bench.state(id) == "delivered"
    [status] = heard
    assert isinstance(status, smsqueue.MessageDelivered)
    assert (status.id, status.context, status.status_code) == (id, {"order": 7}, "D")


def test_an_incoming_message_is_one_of_ours(bench: Bench, eager: Gateway) -> None:
    for each in (eager, bench.gateway):
        heard: list[Any] = []
        each.onReceive.connect(heard.append, name="heard")
        returned = add(each).hear("YES")
        bench.run_hooks()
        [message] = heard
        assert isinstance(message, smsqueue.IncomingMessage)
        assert isinstance(returned, smsframework.IncomingMessage)
        assert (message.provider, message.src, message.body) == ("main", "15550001", "YES")
        assert message.msgid == 42


def test_a_plugin_that_listens_gets_objects_of_its_own_classes(eager: Gateway) -> None:
    class Listening(Plugin):
        def __init__(self, gateway: Any, name: str) -> None:
            super().__init__(gateway, name)
            self.gateway.onReceive += self.forward
            self.gateway.onStatus += self.forward

        def forward(self, thing: Any) -> None:
            kinds = (smsframework.IncomingMessage, smsframework.MessageStatus)
            assert isinstance(thing, kinds)
            self.seen.append(thing)

    listener: Any = eager.add_provider("listener", Listening)
    eager.receive_message(smsqueue.IncomingMessage("1", "x"))
    eager.receive_status(smsqueue.MessageDelivered("m"))
    assert [type(thing).__name__ for thing in listener.seen] == [
        "IncomingMessage",
        "MessageDelivered",
    ]
    listener.gateway.onReceive -= listener.forward
    eager.receive_message(smsqueue.IncomingMessage("1", "x"))
    assert len(listener.seen) == 2


def test_a_plugin_that_sends_through_the_gateway(eager: Gateway) -> None:
    def does(message: Any) -> Any:
        other = smsframework.OutgoingMessage(message.dst, message.body, provider="null")
        return server.gateway.send(other.options(senderId="Shop").params(flash=1))

    server = add(eager, does)
    eager.add_provider("null", NullProvider)
    sent: list[Any] = []
    eager.onSend += sent.append
    message = eager.send(OutgoingMessage("1", "x"))
    assert (message.msgid, sent[0].provider) == ("1", "null")
    assert (sent[0].provider_options.senderId, sent[0].provider_params) == ("Shop", {"flash": 1})


def test_what_became_of_it_is_noted_on_the_plugins_message(eager: Gateway, bench: Bench) -> None:
    for gateway in (eager, bench.gateway):
        plugin = add(gateway)
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


def test_smsframeworks_own_loopback_works_as_it_did(eager: Gateway) -> None:
    phone: Any = eager.add_provider("lo", LoopbackProvider)
    heard: list[Any] = []
    eager.onReceive += lambda message: heard.append(message.body)
    eager.onStatus += lambda status: heard.append(status.state)
    phone.subscribe("+1", lambda message: message.reply("got it"))
    eager.send(OutgoingMessage("+1", "obey me").options(status_report=True))
    assert heard == ["got it", "delivered"]
    assert [each.body for each in phone.get_traffic()] == ["obey me", "got it"]


def test_ids_that_begin_anew_in_every_process_match_no_reports(bench: Bench) -> None:
    bench.gateway.add_provider("null", NullProvider)
    id = bench.send()
    bench.deliver(id)
    status = smsqueue.MessageDelivered("1")
    status.provider = "null"
    bench.gateway.receive_status(status)
    assert bench.state(id) == "sent"


def test_a_plugins_sender_that_is_no_number_keeps_its_text(bench: Bench, eager: Gateway) -> None:
    for each in (eager, bench.gateway):
        heard: list[Any] = []
        each.onReceive.connect(heard.append, name="heard")
        plugin = add(each)
        for src, dst in (("INFO4242", "SHOP24"), ("+1 555 000 1111", "40404")):
            message = smsframework.IncomingMessage(src, "hi", f"m-{src}", dst=dst)
            plugin._receive_message(message)
        bench.run_hooks()
        told = {(one.src, one.dst, one.replyable) for one in heard}
        assert told == {("INFO4242", "SHOP24", False), ("15550001111", "40404", True)}
        assert all(one.media == () for one in heard)


def test_a_plugin_that_answers_such_a_sender_is_refused(eager: Gateway) -> None:
    plugin = add(eager)
    with pytest.raises(exc.RequestError, match="neither a phone number"):
        plugin.gateway.send(smsframework.OutgoingMessage("INFO4242", "thanks"))
    assert plugin.seen == []
