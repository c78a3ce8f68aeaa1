"""What a plugin of smsframework meets on our gateway."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import smsframework

import smsqueue
from smsqueue import Gateway, IProvider, OutgoingMessage
from smsqueue.compat import adapted
from tests.compat.plugin import Plugin, add
from tests.ledger.bench import Bench


def test_nobody_has_to_have_smsframework() -> None:
    code = (
        "import sys; sys.modules['smsframework'] = None; from smsqueue import *; "
        "from smsqueue.providers import NullProvider; gateway = Gateway(eager=True); "
        "gateway.add_provider('a', NullProvider); "
        "print(gateway.send(OutgoingMessage('1', 'x')).msgid)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "1"


def test_our_own_providers_stay_what_they_are(eager: Gateway) -> None:
    provider = eager.add_provider("null", smsqueue.providers.NullProvider)
    assert type(provider) is smsqueue.providers.NullProvider


def test_a_plugin_is_itself_and_a_provider_of_ours(eager: Gateway) -> None:
    provider = add(eager)
    assert isinstance(provider, Plugin)
    assert isinstance(provider, IProvider)
    assert type(provider).__name__ == "Plugin"
    assert eager.get_provider("main") is provider
    assert provider.balance() == "12.50 at main"


def test_a_lost_worker_is_waited_for_long_enough_and_a_subclass_may_know_better(
    eager: Gateway,
) -> None:
    class Quick(Plugin):
        deadline = 20.0

    assert add(eager).deadline == 1200.0
    assert eager.add_provider("quick", Quick).deadline == 20.0


def test_a_message_is_of_both_classes_while_the_plugin_has_it(eager: Gateway) -> None:
    def does(message: Any) -> Any:
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

    add(eager, does)
    message = OutgoingMessage("+1 555-0001", "hi", src="Shop").params(flash=1)
    assert eager.send(message) is message
    assert type(message) is OutgoingMessage
    # An int stays one, and the sender's parameters are his.
    assert (message.msgid, message.meta, message.src) == (77, {"rtime": "yesterday"}, "Shop")
    assert message.provider_params == {"flash": 1}


@pytest.mark.parametrize("answer", ["another object", "nothing"])
def test_whatever_send_returns_the_sender_gets_his_own_object(eager: Gateway, answer: str) -> None:
    def does(message: Any) -> Any:
        message.msgid = "m-1"
        if answer == "nothing":
            return None
        other = smsframework.OutgoingMessage(message.dst, message.body)
        other.msgid = "m-1"
        return other

    add(eager, does)
    message = OutgoingMessage("1", "x")
    assert eager.send(message) is message
    assert message.msgid == "m-1"


def test_the_next_provider_of_the_route_gets_the_message_as_the_sender_gave_it(
    eager: Gateway,
) -> None:
    def spoil(message: Any) -> Any:
        message.dst, message.body = "+" + message.dst, ""
        message.provider_params.clear()
        message.provider_options.senderId = "Spoilt"
        raise smsframework.exc.ServerError("no")

    add(eager, spoil, name="first")
    add(eager, name="second")
    eager.router = lambda message: ["first", "second"]
    message = OutgoingMessage("1", "x").options(senderId="Shop").params(flash=1).route()
    assert eager.send(message).provider == "second"
    assert (message.dst, message.body, message.provider_params) == ("1", "x", {"flash": 1})
    assert message.provider_options.senderId == "Shop"


def test_an_int_and_no_id_at_all_go_through_the_ledger(bench: Bench) -> None:
    ids = iter([4711, None])

    def does(message: Any) -> Any:
        message.msgid = next(ids)
        return message

    add(bench.gateway, does)
    for expected in (4711, None):
        id = bench.send()
        bench.deliver(id)
        assert (bench.state(id), bench.record(id).msgid) == ("sent", expected)


def test_a_validity_is_whole_minutes_as_plugins_know_it(eager: Gateway) -> None:
    asked: list[Any] = []
    add(eager, lambda message: asked.append(message.provider_options.expires))
    for minutes in (5, 4.2, None):
        message = eager.send(OutgoingMessage("1", "x").options(expires=minutes))
        assert message.provider_options.expires == minutes
    assert [repr(each) for each in asked] == ["5", "5", "None"]


def test_what_a_subclass_puts_in_the_place_of_a_method_stays(eager: Gateway) -> None:
    class Other(Plugin):
        balance = property(lambda self: 7)  # type: ignore[assignment]
        hear = staticmethod(len)

    provider: Any = eager.add_provider("main", Other)
    assert (provider.balance, provider.hear("abc")) == (7, 3)


@pytest.mark.parametrize("way", ["one", "many"])
def test_send_says_whose_messages_it_takes(gateway: Gateway, eager: Gateway, way: str) -> None:
    theirs: Any = smsframework.OutgoingMessage("1555", "hi")
    for each in (gateway, eager):
        add(each)
        with pytest.raises(TypeError, match=r"smsframework.*from smsqueue import OutgoingMessage"):
            each.send(theirs) if way == "one" else each.send_many([theirs])


def test_a_provider_of_an_application_can_be_called_a_plugin(eager: Gateway) -> None:
    """What it imported as smsframework may have been smsqueue: nothing in it tells."""

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
