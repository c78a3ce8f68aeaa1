"""Plugins of smsframework as providers of our gateway."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import smsframework

import smsqueue
from smsqueue import Gateway, IProvider, OutgoingMessage
from smsqueue.compat import adapted
from tests.compat.plugin import Plugin, add_plugin
from tests.ledger.bench import Bench


def test_smsframework_need_not_be_installed() -> None:
    code = (
        "import sys; sys.modules['smsframework'] = None; from smsqueue import *; "
        "from smsqueue.providers import NullProvider; gateway = Gateway(eager=True); "
        "gateway.add_provider('a', NullProvider); "
        "print(gateway.send(OutgoingMessage('1', 'x')).msgid)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "1"


def test_our_own_providers_are_not_adapted(eager: Gateway) -> None:
    provider = eager.add_provider("null", smsqueue.providers.NullProvider)
    assert type(provider) is smsqueue.providers.NullProvider


def test_a_plugin_is_an_instance_of_its_class_and_of_ours(eager: Gateway) -> None:
    provider = add_plugin(eager)
    assert isinstance(provider, Plugin)
    assert isinstance(provider, IProvider)
    assert type(provider).__name__ == "Plugin"
    assert eager.get_provider("main") is provider
    assert provider.balance() == "12.50 at main"


def test_the_deadline_of_a_plugin_is_20_minutes_unless_a_subclass_sets_it(
    eager: Gateway,
) -> None:
    class Quick(Plugin):
        deadline = 20.0

    assert add_plugin(eager).deadline == 1200.0
    assert eager.add_provider("quick", Quick).deadline == 20.0


def test_a_message_is_of_both_classes_during_the_plugins_send(eager: Gateway) -> None:
    def on_send(message: Any) -> Any:
        assert isinstance(message, smsframework.OutgoingMessage)
        assert isinstance(message, OutgoingMessage)
        assert "+" + message.dst == "+15550001"
        assert int(message.dst) == 15550001
        assert {message: 1}[message] == 1
        message.reply = lambda body: None
        message.params(is_hex=True)
        message.provider_params.pop("is_hex")
        message.msgid, message.meta = 77, {"rtime": "yesterday"}
        return message

    add_plugin(eager, on_send)
    message = OutgoingMessage("+1 555-0001", "hi", src="Shop").params(flash=1)
    assert eager.send(message) is message
    assert type(message) is OutgoingMessage
    # An int stays an int; the parameters are the caller's.
    assert (message.msgid, message.meta, message.src) == (77, {"rtime": "yesterday"}, "Shop")
    assert message.provider_params == {"flash": 1}


@pytest.mark.parametrize("returned", ["another object", "None"])
def test_whatever_a_plugin_returns_the_caller_gets_its_own_object(
    eager: Gateway, returned: str
) -> None:
    def on_send(message: Any) -> Any:
        message.msgid = "m-1"
        if returned == "None":
            return None
        other = smsframework.OutgoingMessage(message.dst, message.body)
        other.msgid = "m-1"
        return other

    add_plugin(eager, on_send)
    message = OutgoingMessage("1", "x")
    assert eager.send(message) is message
    assert message.msgid == "m-1"


def test_the_next_provider_of_the_route_gets_an_unchanged_message(
    eager: Gateway,
) -> None:
    def spoil(message: Any) -> Any:
        message.dst, message.body = "+" + message.dst, ""
        message.provider_params.clear()
        message.provider_options.senderId = "Spoilt"
        raise smsframework.exc.ServerError("no")

    add_plugin(eager, spoil, name="first")
    add_plugin(eager, name="second")
    eager.router = lambda message: ["first", "second"]
    message = OutgoingMessage("1", "x").options(senderId="Shop").params(flash=1).route()
    assert eager.send(message).provider == "second"
    assert (message.dst, message.body, message.provider_params) == ("1", "x", {"flash": 1})
    assert message.provider_options.senderId == "Shop"


def test_ids_that_are_int_or_none_are_stored_in_the_ledger(bench: Bench) -> None:
    ids = iter([4711, None])

    def on_send(message: Any) -> Any:
        message.msgid = next(ids)
        return message

    add_plugin(bench.gateway, on_send)
    for expected in (4711, None):
        id = bench.send()
        bench.deliver(id)
        assert (bench.state(id), bench.record(id).msgid) == ("sent", expected)


def test_plugins_get_the_validity_in_whole_minutes(eager: Gateway) -> None:
    values: list[Any] = []
    add_plugin(eager, lambda message: values.append(message.provider_options.expires))
    for minutes in (5, 4.2, None):
        message = eager.send(OutgoingMessage("1", "x").options(expires=minutes))
        assert message.provider_options.expires == minutes
    assert [repr(value) for value in values] == ["5", "5", "None"]


def test_attributes_that_replace_a_method_are_kept(eager: Gateway) -> None:
    class Other(Plugin):
        balance = property(lambda self: 7)  # type: ignore[assignment]
        report_message = staticmethod(len)

    provider: Any = eager.add_provider("main", Other)
    assert (provider.balance, provider.report_message("abc")) == (7, 3)


@pytest.mark.parametrize("method", ["send", "send_many"])
def test_a_message_of_smsframework_is_refused_with_the_remedy(
    gateway: Gateway, eager: Gateway, method: str
) -> None:
    theirs: Any = smsframework.OutgoingMessage("1555", "hi")
    for sender in (gateway, eager):
        add_plugin(sender)
        with pytest.raises(TypeError, match=r"smsframework.*from smsqueue import OutgoingMessage"):
            sender.send(theirs) if method == "send" else sender.send_many([theirs])


def test_an_applications_provider_can_be_declared_a_plugin(eager: Gateway) -> None:
    """It may have imported smsqueue as smsframework, which cannot be detected."""

    class Own(IProvider):
        def send(self, message: OutgoingMessage) -> OutgoingMessage:
            try:
                raise TimeoutError("the answer did not come")
            except OSError as error:
                raise smsqueue.exc.ConnectionError("failed") from error

    for plugin in (False, True):
        eager.add_provider(f"own{plugin}", adapted(Own, plugin=plugin))
        with pytest.raises(smsqueue.exc.ConnectionError) as caught:
            eager.send(OutgoingMessage("1555", "hi", provider=f"own{plugin}"))
        assert caught.value.ambiguous is plugin
    assert adapted(adapted(Own, plugin=True), plugin=True) is adapted(Own, plugin=True)
