"""Messages, their options, reports and errors, and what plugins do with them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from smsqueue import (
    IncomingMessage,
    MessageAccepted,
    MessageDelivered,
    MessageError,
    MessageExpired,
    MessageStatus,
    OutgoingMessage,
    State,
    exc,
)
from smsqueue.message.ids import new_id, time_of
from smsqueue.message.masking import mask, place_of
from smsqueue.policy.retry import error_label

# --- Outgoing --------------------------------------------------------------------------------


def test_a_bare_message() -> None:
    message = OutgoingMessage("+1 (23)", "hi")
    assert (message.dst, message.body, message.src, message.provider) == ("123", "hi", None, None)
    assert (message.msgid, message.meta, message.id, message.routing_values) == (None,) * 4
    assert message.duplicate is False
    assert message.provider_params == {}


def test_an_alphanumeric_sender_stays_as_it_is() -> None:
    assert OutgoingMessage("1", "x", src="My Shop").src == "My Shop"


def test_empty_values_construct() -> None:
    assert OutgoingMessage("", "", "").dst == ""
    incoming = IncomingMessage("", "", "", "")
    assert (incoming.src, incoming.dst, incoming.msgid) == ("", None, "")


def test_the_setters_return_the_message() -> None:
    message = OutgoingMessage("1", "x")
    assert message.options(escalate=True).params(a=1).route("users", 2) is message
    assert message.provider_options.escalate is True
    assert message.provider_params == {"a": 1}
    assert message.routing_values == ("users", 2)
    assert message.route().routing_values == ()


def test_options_add_up_and_params_replace() -> None:
    message = OutgoingMessage("1", "x").options(escalate=True).options(senderId="shop")
    assert vars(message.provider_options) == {"escalate": True, "senderId": "shop"}
    assert message.params(a=1).params(b=2).provider_params == {"b": 2}


def test_tags_add_up_and_none_removes_them() -> None:
    message = OutgoingMessage("1", "x").options(tag="black-friday").options(tag=["vip", "wave:1"])
    assert message.options(tag="vip").provider_options.tag == ("black-friday", "vip", "wave:1")
    assert message.options(tag=None).provider_options.tag == ()


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ("black friday", "a tag has ' ' at index 5: use 1 to 64 letters"),
        ("+15551234567", "a tag has '+' at index 0"),
        ("", "a tag is empty"),
        ("x" * 65, "a tag has 65 characters"),
        ("ok\n", r"a tag has '\n' at index 2"),
        ("fr\u00fchling", "a tag has '\u00fc' at index 2"),
        ([f"t{n}" for n in range(20)], "a message has at most 20 tags, not 21"),
    ],
)
def test_invalid_tags_are_refused_when_they_are_set(tag: Any, reason: str) -> None:
    message = OutgoingMessage("1", "x").options(tag="vip")
    with pytest.raises(ValueError, match=re.escape(reason)):
        message.options(tag=tag)
    for other in (5, ["vip", None], {"vip": 1}):
        with pytest.raises(TypeError, match="must be text"):
            message.options(tag=other)
    assert message.provider_options.tag == ("vip",)


def test_the_default_options() -> None:
    options = OutgoingMessage("1", "x").provider_options
    assert (options.allow_reply, options.status_report, options.escalate) == (True, False, False)
    assert (options.expires, options.senderId) == (None, None)
    assert (options.idempotency_key, options.send_at, options.on_unknown) == (None, None, "hold")
    assert options.context == {}


def test_messages_do_not_share_options_or_params() -> None:
    first, second = OutgoingMessage("1", "x"), OutgoingMessage("1", "x")
    first.options(escalate=True)
    first.provider_params["a"] = 1
    assert second.provider_options.escalate is False
    assert second.provider_params == {}


@pytest.mark.parametrize("name", ["statusReport", "expire", "update", "_secret", "__class__"])
def test_an_unknown_option_is_refused_by_name(name: str) -> None:
    message = OutgoingMessage("1", "x")
    with pytest.raises(TypeError, match=f"{name}.*the options are: allow_reply, .*status_report"):
        message.options(**{"escalate": True, name: 1})
    assert vars(message.provider_options) == {}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"send_at": datetime(2030, 1, 1)}, ValueError),  # noqa: DTZ001  naive on purpose
        ({"send_at": "2030-01-01"}, TypeError),
        ({"send_at": 1.5}, TypeError),
        ({"send_at": datetime.max.replace(tzinfo=UTC)}, ValueError),
        ({"send_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))}, ValueError),
        ({"expires": 0}, ValueError),
        ({"expires": -1}, ValueError),
        ({"expires": float("nan")}, ValueError),
        ({"expires": float("inf")}, ValueError),
        ({"expires": "5"}, TypeError),
        ({"expires": True}, TypeError),
        ({"expires": timedelta(minutes=5)}, TypeError),
        ({"on_unknown": "Resend"}, ValueError),
        ({"idempotency_key": ""}, TypeError),
        ({"idempotency_key": 5}, TypeError),
    ],
)
def test_a_wrong_value_is_refused_and_changes_nothing(
    options: dict[str, Any], error: type[Exception]
) -> None:
    message = OutgoingMessage("1", "x")
    with pytest.raises(error, match=next(iter(options))):
        message.options(escalate=True, **options)
    assert vars(message.provider_options) == {}


def test_a_naive_time_is_refused_with_the_way_to_write_it() -> None:
    with pytest.raises(ValueError, match="give an aware datetime"):
        OutgoingMessage("1", "x").options(send_at=datetime(2030, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize(
    "options",
    [
        {"send_at": datetime(2030, 1, 1, tzinfo=UTC)},
        {"send_at": datetime(2030, 1, 1, tzinfo=timezone(timedelta(hours=5)))},
        {"send_at": None},
        {"expires": 0.5},
        {"expires": None},
        {"on_unknown": "resend"},
        {"idempotency_key": "order-1"},
        {"idempotency_key": None},
        {"context": {"order": 1}},
    ],
)
def test_right_values_are_kept(options: dict[str, Any]) -> None:
    assert vars(OutgoingMessage("1", "x").options(**options).provider_options) == options


@pytest.mark.parametrize(
    "make",
    [
        lambda: OutgoingMessage("1", "x"),
        lambda: IncomingMessage("1", "x", rtime=1),
        lambda: MessageStatus("1", rtime=1),
    ],
    ids=["outgoing", "incoming", "status"],
)
def test_objects_are_told_apart_by_identity(make: Any) -> None:
    first, second = make(), make()
    assert first != second
    assert {first: 1, second: 2}[first] == 1
    before = hash(first)
    first.msgid = "changed"
    assert hash(first) == before
    first.reply = print  # a plugin augments it


def test_representations_name_the_message_without_number_and_text() -> None:
    message = OutgoingMessage("+15551234567", "hi", src="s")
    assert repr(message) == (
        "OutgoingMessage('1555*****67', <2 characters>, src='*', "
        "provider=None, msgid=None, id=None)"
    )
    incoming = IncomingMessage("+15551234567", "hi", 5, "+2")
    assert repr(incoming) == (
        "IncomingMessage(None, '1555*****67', <2 characters>, dst='*', msgid=5, id=None)"
    )
    status = MessageError("m")
    status.status = "gone"
    text = repr(status)
    assert text.startswith("MessageError(None, 'm', state={")
    assert text.endswith("}, status='gone', id=None)")


# --- Incoming --------------------------------------------------------------------------------


def test_an_incoming_message() -> None:
    before = datetime.now(UTC)
    message = IncomingMessage("+1 2", "hi", dst="+3", meta={"a": 1})
    assert (message.src, message.dst, message.body, message.msgid) == ("12", "3", "hi", None)
    assert before <= message.rtime <= datetime.now(UTC)
    assert message.meta == {"a": 1}
    assert IncomingMessage("1", "x").meta == {}


@pytest.mark.parametrize("value", ["2020-01-01 00:00", 5, object()])
def test_what_a_plugin_gives_is_not_coerced(value: Any) -> None:
    message, status = IncomingMessage("1", "x", value, rtime=value), MessageStatus(value, value)
    assert message.msgid is message.rtime is status.msgid is status.rtime is value


# --- Reports ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "states", "state"),
    [
        (MessageStatus, set(), None),
        (MessageAccepted, {"accepted"}, State.ACCEPTED),
        (MessageDelivered, {"accepted", "delivered"}, State.DELIVERED),
        (MessageExpired, {"accepted", "expired"}, State.EXPIRED),
        (MessageError, {"accepted", "error"}, State.UNDELIVERED),
    ],
)
def test_the_kinds_of_report(
    kind: type[MessageStatus], states: set[str], state: State | None
) -> None:
    status = kind("m")
    assert status.states == states
    assert status.state == state
    assert isinstance(status, MessageStatus)
    assert (status.meta, status.status, status.status_code) == ({}, None, None)
    assert (status.id, status.reference, status.provider, status.context) == (None,) * 3 + ({},)


def test_the_subclasses_are_those_of_smsframework() -> None:
    assert issubclass(MessageDelivered, MessageAccepted)
    assert issubclass(MessageExpired, MessageAccepted)
    assert MessageError.__mro__[1] is MessageStatus


def test_a_plugin_overrides_the_fields_in_subclasses_and_picks_one_by_code() -> None:
    class PluginStatus(MessageStatus):
        """As clickatell's: a factory over its subclasses."""

        @classmethod
        def by_code(cls, code: int, msgid: str) -> PluginStatus:
            found = next(c for c in cls.__subclasses__() if c.status_code == code)
            return found(msgid)

    class Unroutable(PluginStatus, MessageError):
        status_code = 9
        status = "cannot route"

    class Queued(PluginStatus, MessageAccepted):
        status_code = 2

    status = PluginStatus.by_code(9, "m")
    assert type(status) is Unroutable
    assert (status.status_code, status.status, status.error) == (9, "cannot route", True)
    assert status.state == State.UNDELIVERED
    assert "status" not in vars(status)
    assert PluginStatus.by_code(2, "m").accepted


# --- Errors ----------------------------------------------------------------------------------


def test_an_error_without_facts_keeps_its_argument_and_the_defaults() -> None:
    argument = object()
    error = exc.ServerError(argument)
    assert error.args == (argument,)
    assert (error.code, error.provider, error.http_status, error.retry_after) == (None,) * 4
    assert error.ambiguous is False
    assert exc.ServerError().args == ()


def test_the_facts_of_an_error() -> None:
    facts: dict[str, Any] = {"code": "E1", "provider": "p", "http_status": 429, "retry_after": 2.0}
    error = exc.LimitsError("slow", **facts, ambiguous=True)
    assert vars(error) == facts | {"ambiguous": True}
    assert str(error) == "slow"
    with pytest.raises(TypeError, match=r"LimitsError .*'retry_afer'"):
        exc.LimitsError("slow", retry_afer=2)


def test_a_plugins_errors_come_from_a_factory_and_set_their_code_first() -> None:
    class PluginError(exc.ProviderError):
        """As clickatell's: ``__new__`` picks the subclass by the code."""

        error_code: int | None = None

        def __new__(cls, code: int, text: str) -> PluginError:
            found = next((c for c in cls.__subclasses__() if c.error_code == code), cls)
            return super().__new__(found, code, text)

        def __init__(self, code: int, text: str) -> None:
            self.code = code
            super().__init__(text)

    class NoCredit(PluginError, exc.CreditError):
        error_code = 301

    error = PluginError(301, "no credit left")
    assert type(error) is NoCredit
    assert isinstance(error, exc.CreditError)
    assert (error.code, str(error), error.ambiguous) == (301, "no credit left", False)
    assert error_label(error) == "CreditError"
    other = PluginError(5, "odd")
    assert (type(other), other.code, error_label(other)) == (PluginError, 5, "ProviderError")


def test_the_queues_own_errors_are_caught_as_smsframeworks() -> None:
    assert issubclass(exc.QueueUnavailable, exc.ConnectionError)
    assert issubclass(exc.IdempotencyConflict, exc.RequestError)


def test_an_error_is_shown_by_class_and_place_never_by_text() -> None:
    def fail() -> None:
        raise ValueError("+15551234567")

    with pytest.raises(ValueError, match="555") as caught:
        fail()
    assert error_label(caught.value) == "ValueError"
    assert "test_messages.py:" in place_of(caught.value)
    assert "555" not in place_of(caught.value)
    assert place_of(ValueError("never raised")) == ""


# --- Ids and masks ---------------------------------------------------------------------------


def test_ids_sort_by_time_and_tell_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for milliseconds in (0, 1, 1_700_000_000_000, 1_700_000_000_001, 4_000_000_000_000):
        monkeypatch.setattr("time.time_ns", lambda now=milliseconds: now * 1_000_000)
        made.append(new_id())
        assert time_of(made[-1]) == milliseconds / 1000
    assert made == sorted(made)
    assert {len(id) for id in made} == {20}


def test_ids_of_one_millisecond_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 1)
    assert len({new_id() for _ in range(1000)}) == 1000


@pytest.mark.parametrize("id", ["", "x", "not-one-of-ours", "0" * 21])
def test_a_foreign_id_has_no_time(id: str) -> None:
    assert time_of(id) == 0.0


@pytest.mark.parametrize(
    ("number", "masked"),
    [
        ("15551234567", "1555*****67"),
        ("12345678", "1234**78"),
        ("1234567", "*******"),
        ("", ""),
        (None, ""),
    ],
)
def test_masking(number: str | None, masked: str) -> None:
    assert mask(number) == masked
