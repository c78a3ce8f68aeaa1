"""smsframework's manual, statement by statement, on an eager gateway."""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from smsqueue import (
    Gateway,
    IncomingMessage,
    IProvider,
    MessageAccepted,
    MessageDelivered,
    MessageStatus,
    OutgoingMessage,
    exc,
)
from smsqueue.providers import LogProvider, LoopbackProvider, NullProvider

NINE = [
    "ProviderError",
    "ConnectionError",
    "MessageSendError",
    "RequestError",
    "UnsupportedError",
    "ServerError",
    "AuthError",
    "LimitsError",
    "CreditError",
]


class Failing(IProvider):
    """Raises what it was configured with."""

    def __init__(self, gateway: Any, name: str, error: BaseException) -> None:
        super().__init__(gateway, name)
        self.error = error
        self.calls = 0

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        self.calls += 1
        raise self.error


class WithMeta(IProvider):
    """Fills in what the manual says that a provider does."""

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        message.msgid, message.meta = 77, {"parts": 2}
        return message


def use_router(gateway: Gateway, router: Callable[..., Any]) -> None:
    gateway.router = router  # type: ignore[method-assign]  # as the manual does


@pytest.fixture
def gateway() -> Gateway:
    gateway = Gateway(eager=True)
    gateway.add_provider("main", NullProvider)
    gateway.add_provider("other", NullProvider)
    return gateway


@pytest.fixture
def loopback(gateway: Gateway) -> LoopbackProvider:
    provider = gateway.add_provider("lo", LoopbackProvider)
    assert isinstance(provider, LoopbackProvider)
    gateway.default_provider = "lo"
    return provider


# --- Providers -------------------------------------------------------------------------------


def test_add_provider_returns_the_provider_and_passes_its_configuration() -> None:
    gateway, logger = Gateway(eager=True), logging.getLogger("x")
    provider = gateway.add_provider("log", LogProvider, logger=logger)
    assert isinstance(provider, LogProvider)
    assert (provider.name, provider.gateway, provider.logger) == ("log", gateway, logger)
    assert gateway.get_provider("log") is provider


def test_the_first_provider_is_the_default(gateway: Gateway) -> None:
    assert gateway.default_provider == "main"
    assert gateway.send(OutgoingMessage("+1", "x")).provider == "main"


def test_there_is_no_default_before_the_first_provider() -> None:
    assert Gateway(eager=True).default_provider is None


def test_the_default_provider_can_be_changed(gateway: Gateway) -> None:
    gateway.default_provider = "other"
    assert gateway.default_provider == "other"
    assert gateway.send(OutgoingMessage("+1", "x")).provider == "other"


def test_the_default_provider_must_exist(gateway: Gateway) -> None:
    with pytest.raises(AssertionError, match="nobody"):
        gateway.default_provider = "nobody"
    assert gateway.default_provider == "main"


def test_get_provider_of_an_unknown_name_is_a_key_error(gateway: Gateway) -> None:
    with pytest.raises(KeyError):
        gateway.get_provider("nobody")


@pytest.mark.parametrize(
    ("name", "provider"),
    [
        ("main", NullProvider),  # taken
        ("", NullProvider),
        (7, NullProvider),
        (None, NullProvider),
        ("new", object),  # not a provider
        ("new", NullProvider(None, "instance")),  # not a class
        ("new", None),
    ],
)
def test_add_provider_refuses(gateway: Gateway, name: Any, provider: Any) -> None:
    before = gateway.providers
    with pytest.raises(AssertionError):
        gateway.add_provider(name, provider)
    assert gateway.providers == before


def test_a_provider_that_cannot_be_made_is_not_registered(gateway: Gateway) -> None:
    with pytest.raises(TypeError):
        gateway.add_provider("new", NullProvider, surprise=1)
    assert "new" not in gateway.providers


def test_the_interface_is_not_abstract() -> None:
    provider = IProvider(None, "bare", anything="goes")
    with pytest.raises(NotImplementedError):
        provider.send(OutgoingMessage("1", "x"))
    with pytest.raises(NotImplementedError):
        provider.make_receiver_blueprint()


def test_a_plugin_may_set_its_attributes_before_the_interface_is_initialised() -> None:
    class Plugin(IProvider):
        def __init__(self, gateway: Any, name: str, key: str) -> None:
            self.key = key
            super().__init__(gateway, name)

    plugin = Gateway(eager=True).add_provider("p", Plugin, key="k")
    assert isinstance(plugin, Plugin)
    assert (plugin.name, plugin.key) == ("p", "k")


# --- Sending ---------------------------------------------------------------------------------


def test_send_returns_the_same_object_with_more_in_it() -> None:
    gateway = Gateway(eager=True)
    gateway.add_provider("p", WithMeta)
    message = OutgoingMessage("+1 (234) 567-89", "hi there!")
    assert gateway.send(message) is message
    assert message.dst == "123456789"
    assert (message.msgid, message.meta, message.provider) == (77, {"parts": 2}, "p")


def test_a_message_may_name_its_provider(gateway: Gateway) -> None:
    assert gateway.send(OutgoingMessage("+1", "x", provider="other")).provider == "other"


def test_an_object_that_named_its_provider_goes_there_again(gateway: Gateway) -> None:
    message = OutgoingMessage("+1", "x", provider="other")
    assert [gateway.send(message).provider for _ in range(3)] == ["other"] * 3


def test_an_object_that_named_its_provider_goes_there_again_after_an_error(
    gateway: Gateway,
) -> None:
    failing = gateway.add_provider("bad", Failing, error=exc.ServerError("down"))
    assert isinstance(failing, Failing)
    message = OutgoingMessage("+1", "x", provider="bad")
    for _ in range(2):
        with pytest.raises(exc.ServerError):
            gateway.send(message)
    assert failing.calls == 2


def test_an_object_that_is_sent_again_follows_its_new_route(gateway: Gateway) -> None:
    use_router(gateway, lambda message, name: name)
    message = OutgoingMessage("+1", "x").route("main")
    assert gateway.send(message).provider == "main"
    assert gateway.send(message.route("other")).provider == "other"
    message.provider = "main"
    assert gateway.send(message).provider == "main"


def test_a_message_that_names_an_unknown_provider(gateway: Gateway) -> None:
    with pytest.raises(AssertionError, match=r"'nobody' \(known: main, other\)"):
        gateway.send(OutgoingMessage("+1", "x", provider="nobody"))


def test_sending_without_any_provider() -> None:
    with pytest.raises(AssertionError, match="no provider"):
        Gateway(eager=True).send(OutgoingMessage("+1", "x"))


@pytest.mark.parametrize("name", NINE)
def test_the_providers_error_is_raised_as_it_is(name: str) -> None:
    gateway, error = Gateway(eager=True), getattr(exc, name)("no", code=5)
    gateway.add_provider("p", Failing, error=error)
    sent: list[OutgoingMessage] = []
    gateway.onSend += sent.append
    with pytest.raises(exc.ProviderError) as caught:
        gateway.send(OutgoingMessage("+1", "x"))
    assert caught.value is error
    assert sent == []


def test_any_other_error_of_a_provider_is_raised_too() -> None:
    gateway = Gateway(eager=True)
    gateway.add_provider("p", Failing, error=KeyError("bug"))
    with pytest.raises(KeyError):
        gateway.send(OutgoingMessage("+1", "x"))


def test_the_nine_exceptions_and_their_bases() -> None:
    assert issubclass(exc.ProviderError, RuntimeError)
    assert exc.ConnectionError.__mro__[1] is exc.MessageSendError.__mro__[1] is exc.ProviderError
    for name in NINE[3:]:
        assert getattr(exc, name).__mro__[1] is exc.MessageSendError


def test_send_many(gateway: Gateway) -> None:
    batch = [OutgoingMessage(str(n), "x") for n in range(3)]
    assert gateway.send_many(iter(batch)) == batch
    assert [message.msgid for message in batch] == ["1", "2", "3"]


def test_an_eager_gateway_keeps_no_records(gateway: Gateway) -> None:
    gateway.send(OutgoingMessage("+1", "x"))
    with pytest.raises(LookupError, match="eager"):
        gateway.lookup("0" * 20)
    gateway.ping()
    assert gateway.check() == []


# --- Events ----------------------------------------------------------------------------------


def test_onsend_gets_the_message_as_it_was_sent(gateway: Gateway) -> None:
    seen: list[Any] = []
    gateway.onSend += lambda message: seen.append((message, message.msgid))
    message = gateway.send(OutgoingMessage("+1", "x"))
    assert seen == [(message, "1")]


def test_onreceive_and_onstatus(gateway: Gateway, loopback: LoopbackProvider) -> None:
    heard: list[IncomingMessage] = []
    told: list[MessageStatus] = []
    gateway.onReceive += heard.append
    gateway.onStatus += told.append
    incoming = loopback.received("+1 23", "yo")
    message = gateway.send(OutgoingMessage("+1", "x").options(status_report=True))
    assert heard == [incoming]
    assert (incoming.provider, incoming.src, incoming.body) == ("lo", "123", "yo")
    assert [(s.msgid, s.provider) for s in told] == [(message.msgid, "lo")]


@pytest.mark.parametrize("event", ["onSend", "onReceive", "onStatus"])
def test_the_three_ways_to_subscribe(gateway: Gateway, event: str) -> None:
    calls: list[tuple[str, int]] = []

    def first(value: int) -> None:
        calls.append(("first", value))

    def second(value: int) -> None:
        calls.append(("second", value))

    hook = getattr(gateway, event)
    hook += first
    setattr(gateway, event, hook)  # what += on the attribute does
    hook += second
    getattr(gateway, event)(1)
    hook -= first
    getattr(gateway, event)(2)
    assert calls == [("first", 1), ("second", 1), ("second", 2)]
    # With = by accident: a single hook, and everything works on.
    setattr(gateway, event, first)
    getattr(gateway, event)(3)
    hook = getattr(gateway, event)
    hook += second
    getattr(gateway, event)(4)
    assert calls[3:] == [("first", 3), ("first", 4), ("second", 4)]


def test_the_operators_on_the_gateway_itself(gateway: Gateway) -> None:
    seen: list[OutgoingMessage] = []
    gateway.onSend += seen.append
    gateway.send(OutgoingMessage("+1", "x"))
    gateway.onSend -= seen.append
    gateway.send(OutgoingMessage("+1", "x"))
    assert len(seen) == 1
    gateway.onSend = seen.append  # type: ignore[assignment]  # the manual's accident
    gateway.send(OutgoingMessage("+1", "x"))
    assert len(seen) == 2


def test_gateways_do_not_share_hooks(gateway: Gateway) -> None:
    gateway.onSend += print
    assert len(Gateway(eager=True).onSend) == 0


def test_the_class_can_be_looked_at() -> None:
    assert "onSend" in dir(Gateway)
    assert Gateway.onSend is not None


def test_what_a_hook_raises_comes_out_where_the_event_came_in(
    gateway: Gateway, loopback: LoopbackProvider
) -> None:
    def refuse(value: object) -> None:
        raise OSError(type(value).__name__)

    gateway.onSend = gateway.onReceive = gateway.onStatus = refuse  # type: ignore[assignment]
    with pytest.raises(OSError, match="OutgoingMessage"):
        gateway.send(OutgoingMessage("+1", "x"))
    with pytest.raises(OSError, match="IncomingMessage"):
        loopback.received("1", "x")
    with pytest.raises(OSError, match="MessageAccepted"):
        gateway.send(OutgoingMessage("+1", "x").options(status_report=True))


# --- Routing ---------------------------------------------------------------------------------


def test_the_router_of_the_manual(gateway: Gateway) -> None:
    gateway.add_provider("usa", NullProvider)

    def router(message: OutgoingMessage, module: str, type: str) -> str | None:
        if message.dst.startswith("1"):
            return "usa"
        return "other" if type == "notification" else None

    use_router(gateway, router)

    def sent_by(number: str, *values: str) -> str | None:
        return gateway.send(OutgoingMessage(number, "hi").route(*values)).provider

    assert sent_by("+1234", "users", "notification") == "usa"
    assert sent_by("+44", "users", "notification") == "other"
    assert sent_by("+44", "users", "alert") == "main"


def test_the_router_is_called_only_for_messages_with_a_route(gateway: Gateway) -> None:
    calls: list[tuple[object, ...]] = []
    use_router(gateway, lambda message, *values: calls.append(values))
    gateway.send(OutgoingMessage("+1", "x"))
    gateway.send(OutgoingMessage("+1", "x", provider="other").route("a"))
    assert calls == []
    gateway.send(OutgoingMessage("+1", "x").route())
    gateway.send(OutgoingMessage("+1", "x").route("a", 2))
    assert calls == [(), ("a", 2)]


def test_the_router_may_set_options(gateway: Gateway) -> None:
    def router(message: OutgoingMessage) -> None:
        message.options(escalate=True).params(tariff="fast")

    use_router(gateway, router)
    sent = gateway.send(OutgoingMessage("+1", "x").route())
    assert sent.provider_options.escalate
    assert sent.provider_params == {"tariff": "fast"}


def test_a_router_that_names_an_unknown_provider(gateway: Gateway) -> None:
    use_router(gateway, lambda message: "nobody")
    with pytest.raises(AssertionError, match="nobody"):
        gateway.send(OutgoingMessage("+1", "x").route())


def test_what_the_router_raises_comes_out_of_send(gateway: Gateway) -> None:
    use_router(gateway, lambda message: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        gateway.send(OutgoingMessage("+1", "x").route())


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [
        (exc.ConnectionError("refused"), True),
        (exc.ServerError("503"), True),
        (exc.LimitsError("slow down"), True),
        (exc.CreditError("empty"), True),
        (exc.AuthError("who?"), True),
        (exc.UnsupportedError("no flash"), True),
        (exc.RequestError("bad number"), False),
        (exc.ConnectionError("read timeout", ambiguous=True), False),
        (ValueError("bug"), False),
    ],
)
def test_a_list_is_tried_in_order_while_nobody_may_have_the_message(
    gateway: Gateway, error: Exception, goes_on: bool
) -> None:
    gateway.add_provider("bad", Failing, error=error)
    use_router(gateway, lambda message: ["bad", "other"])
    message = OutgoingMessage("+1", "x").route()
    if goes_on:
        assert gateway.send(message).provider == "other"
    else:
        with pytest.raises(type(error)) as caught:
            gateway.send(message)
        assert caught.value is error
        assert message.msgid is None


# --- Bundled providers -----------------------------------------------------------------------


def test_null_counts_message_ids(gateway: Gateway) -> None:
    assert [gateway.send(OutgoingMessage("1", "x")).msgid for _ in range(3)] == ["1", "2", "3"]


def test_log_hides_number_and_text(caplog: pytest.LogCaptureFixture) -> None:
    gateway = Gateway(eager=True)
    gateway.add_provider("log", LogProvider, logger=logging.getLogger("sms"))
    with caplog.at_level(logging.INFO):
        message = gateway.send(OutgoingMessage("+15551234567", "code 9876"))
    assert message.msgid == "1"
    assert caplog.record_tuples == [
        ("sms", logging.INFO, "Sent SMS to 1555*****67: (9 characters)")
    ]
    assert not any(hidden in str(vars(caplog.records[0])) for hidden in ("1234567", "9876"))


def test_log_shows_the_original_line_when_asked(caplog: pytest.LogCaptureFixture) -> None:
    gateway = Gateway(eager=True)
    gateway.add_provider("log", LogProvider, show_body=True)
    with caplog.at_level(logging.INFO):
        gateway.send(OutgoingMessage("+15551234567", "100%s code"))
    assert caplog.messages == ["Sent SMS to 15551234567: 100%s code"]
    assert caplog.records[0].name == "smsqueue.providers.log"


def test_loopback_keeps_both_directions_until_they_are_fetched(
    gateway: Gateway, loopback: LoopbackProvider
) -> None:
    outgoing = gateway.send(OutgoingMessage("+123", "hi"))
    incoming = loopback.received("+1", "yo")
    assert isinstance(incoming, IncomingMessage)
    assert loopback.get_traffic() == [outgoing, incoming]
    assert loopback.get_traffic() == []


def test_loopback_calls_subscribers_who_may_reply(
    gateway: Gateway, loopback: LoopbackProvider
) -> None:
    got: list[Any] = []
    replies: list[tuple[str, str]] = []
    gateway.onReceive += lambda message: replies.append((message.src, message.body))

    def subscriber(message: Any) -> None:
        got.append(message)
        message.reply("got it")

    assert loopback.subscribe("+1", subscriber) is loopback
    message = gateway.send(OutgoingMessage("1", "obey me"))
    gateway.send(OutgoingMessage("2", "nobody there"))
    assert got == [message]
    assert replies == [("1", "got it")]
    assert [m.body for m in loopback.get_traffic()] == ["obey me", "got it", "nobody there"]


def test_loopback_knows_numbers_to_which_one_cannot_reply(
    gateway: Gateway, loopback: LoopbackProvider
) -> None:
    replies: list[IncomingMessage] = []
    gateway.onReceive += replies.append

    def subscriber(message: Any) -> None:
        message.reply("into the void")

    loopback.subscribe("+1", subscriber)
    gateway.send(OutgoingMessage("1", "x").options(allow_reply=False))
    assert replies == []


def test_loopback_reports_only_what_was_asked_for(
    gateway: Gateway, loopback: LoopbackProvider
) -> None:
    told: list[MessageStatus] = []
    gateway.onStatus += told.append
    loopback.subscribe("+1", lambda message: None)
    gateway.send(OutgoingMessage("1", "x"))
    assert told == []
    gateway.send(OutgoingMessage("1", "x").options(status_report=True))
    gateway.send(OutgoingMessage("2", "x").options(status_report=True))
    assert [(type(s), s.status) for s in told] == [
        (MessageDelivered, "OK"),
        (MessageAccepted, "OK"),
    ]


# --- Names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("smsqueue", "Gateway IProvider exc"),
        *(
            (
                module,
                "OutgoingMessage IncomingMessage MessageStatus MessageAccepted MessageDelivered "
                "MessageExpired MessageError",
            )
            for module in ("smsqueue", "smsqueue.data")
        ),
        ("smsqueue.data.OutgoingMessageOptions", "OutgoingMessageOptions"),
        ("smsqueue.exc", " ".join(NINE)),
        ("smsqueue.lib", "digits_only"),
        ("smsqueue.lib.events", "EventHook"),
        ("smsqueue", "ForwardClientProvider ForwardServerProvider"),
        ("smsqueue.providers", "NullProvider LogProvider LoopbackProvider"),
        ("smsqueue.providers", "ForwardClientProvider ForwardServerProvider"),
        ("smsqueue.providers.forward", "ForwardClientProvider ForwardServerProvider"),
        ("smsqueue.providers.forward.provider", "ForwardClientProvider ForwardServerProvider"),
        ("smsqueue.providers.null", "NullProvider"),
        ("smsqueue.providers.log", "LogProvider"),
        ("smsqueue.providers.loopback", "LoopbackProvider"),
    ],
)
def test_the_names_that_applications_and_plugins_import(module: str, names: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in names.split() if not hasattr(found, name)] == []


@pytest.mark.parametrize("module", ["smsqueue.data", "smsqueue.exc"])
def test_a_star_import_gives_all_of_them_and_nothing_else(module: str) -> None:
    space: dict[str, Any] = {}
    exec(f"from {module} import *", space)
    del space["__builtins__"]
    assert set(space) == set(importlib.import_module(module).__all__)
    if module == "smsqueue.exc":
        assert set(NINE) < set(space)


def test_the_names_are_the_same_objects_everywhere() -> None:
    import smsqueue.data
    import smsqueue.lib.events
    from smsqueue.events import EventHook

    assert smsqueue.data.OutgoingMessage is OutgoingMessage
    assert smsqueue.data.MessageStatus is MessageStatus
    assert smsqueue.lib.events.EventHook is EventHook
    # Importing a module does not put it in the place of the class of the same name.
    importlib.import_module("smsqueue.data.OutgoingMessageOptions")
    assert isinstance(smsqueue.data.OutgoingMessageOptions, type)


def test_digits_only() -> None:
    from smsqueue.lib import digits_only

    assert digits_only("+1 (234) 567-89 ext. 0") == "1234567890"
    assert digits_only("") == digits_only("hello") == ""
    assert digits_only("١٢٣") == ""  # digits, but no network dials them


# --- python -O -------------------------------------------------------------------------------

OPTIMISED = """
import sys
from smsqueue import Gateway, OutgoingMessage
from smsqueue.providers import NullProvider

gateway = Gateway(eager=True)
assert False, "not reached under -O"

def raises(call):
    try:
        call()
    except AssertionError:
        return
    sys.exit(f"no AssertionError: {call.__name__}")

def nothing(): gateway.send(OutgoingMessage("1", "x"))
raises(nothing)
gateway.add_provider("main", NullProvider)
def taken(): gateway.add_provider("main", NullProvider)
def no_class(): gateway.add_provider("x", object)
def no_name(): gateway.add_provider(7, NullProvider)
def no_default(): gateway.default_provider = "x"
def asked_for(): gateway.send(OutgoingMessage("1", "x", provider="x"))
def routed():
    gateway.router = lambda message: "x"
    gateway.send(OutgoingMessage("1", "x").route())
def queued():
    queued = Gateway(eager=False)
    queued.add_provider("main", NullProvider)
    queued.send(OutgoingMessage("1", "x", provider="x"))
for call in (taken, no_class, no_name, no_default, asked_for, routed, queued):
    raises(call)
print("all raised")
"""


def test_assertion_errors_survive_python_o() -> None:
    done = subprocess.run(
        [sys.executable, "-O", "-c", OPTIMISED], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("all raised\n", "", 0)
