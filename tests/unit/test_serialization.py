"""Messages and reports are stored as JSON and read back unchanged, or refused before."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsqueue import (
    IncomingMessage,
    MessageDelivered,
    MessageError,
    MessageStatus,
    OutgoingMessage,
    exc,
)
from smsqueue.gateway import Gateway
from smsqueue.message import serialization, statuses

HALF = "\ud83d"  # the first half of an emoji

WHEN = [
    datetime(2030, 1, 1, tzinfo=UTC),
    datetime(2030, 1, 1, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    datetime(2030, 1, 1),  # noqa: DTZ001  as plugins of smsframework make it
    "2030-01-01 00:00",
    1893456000,
]


def through(data: Any) -> Any:
    return json.loads(serialization.to_json(data).encode())


def check(message: OutgoingMessage, max_body: int = 100) -> None:
    serialization.check_outgoing(message, max_body)


# --- Outgoing --------------------------------------------------------------------------------


def test_a_bare_message_is_stored_as_number_and_text() -> None:
    assert serialization.dump_outgoing(OutgoingMessage("+1", "x")) == {"dst": "1", "body": "x"}


def test_everything_of_an_outgoing_message_comes_back() -> None:
    message = OutgoingMessage("+1 23", "h€llo 😀\n\0", src="Shop", provider="p")
    message.route("users", 1, None, {"a": [1.5, True]}).params(a=1, b=["x"])
    message.options(status_report=True, senderId="S", allow_reply=False, escalate=True)
    message.options(context={"order": 1}, idempotency_key="k", expires=5, on_unknown="resend")
    check(message)
    loaded = serialization.load_outgoing("i" * 20, through(serialization.dump_outgoing(message)))
    assert loaded.id == "i" * 20
    for name in ("dst", "body", "src", "provider", "routing_values", "provider_params"):
        assert getattr(loaded, name) == getattr(message, name)
    for name in ("status_report", "senderId", "allow_reply", "escalate", "context", "on_unknown"):
        assert getattr(loaded.provider_options, name) == getattr(message.provider_options, name)
    # Those are fields of the record.
    for name in ("idempotency_key", "expires", "send_at"):
        assert name not in vars(loaded.provider_options)


@pytest.mark.parametrize("values", [None, (), ("a",)])
def test_no_route_and_an_empty_one_are_told_apart(values: tuple[str, ...] | None) -> None:
    message = OutgoingMessage("1", "x")
    message.routing_values = values
    assert (
        serialization.load_outgoing(
            "i", through(serialization.dump_outgoing(message))
        ).routing_values
        == values
    )


def test_what_is_loaded_is_a_snapshot() -> None:
    data = through(serialization.dump_outgoing(OutgoingMessage("1", "x").params(a=1)))
    first = serialization.load_outgoing("i", json.loads(json.dumps(data)))
    first.provider_params.pop("a")
    assert serialization.load_outgoing("i", data).provider_params == {"a": 1}
    bare = serialization.load_outgoing("i", {"dst": "1", "body": "x"})
    bare.provider_params["a"] = 1
    assert serialization.load_outgoing("i", {"dst": "1", "body": "x"}).provider_params == {}


def test_options_of_a_newer_version_are_ignored() -> None:
    data = {"dst": "1", "body": "x", "options": {"escalate": True, "hologram": 3}, "new": 1}
    loaded = serialization.load_outgoing("i", data)
    assert vars(loaded.provider_options) == {"escalate": True}


def test_a_provider_that_was_chosen_is_not_one_that_was_asked_for() -> None:
    message = OutgoingMessage("1", "x")
    message.provider = message.routed_to = "chosen"
    assert "provider" not in serialization.dump_outgoing(message)
    message.provider = "asked for"
    assert serialization.dump_outgoing(message)["provider"] == "asked for"


def test_the_content_is_everything_but_the_options() -> None:
    def content(message: OutgoingMessage) -> str:
        return serialization.content_of(message)

    base = content(OutgoingMessage("1", "x"))
    assert content(OutgoingMessage("+1", "x").options(escalate=True, context={"a": 1})) == base
    others = [
        OutgoingMessage("2", "x"),
        OutgoingMessage("1", "y"),
        OutgoingMessage("1", "x", src="s"),
        OutgoingMessage("1", "x", provider="p"),
        OutgoingMessage("1", "x").route(),
        OutgoingMessage("1", "x").params(a=1),
    ]
    assert len({base, *map(content, others)}) == len(others) + 1
    ordered = OutgoingMessage("1", "x").params(a=1, b=2)
    assert content(ordered) == content(OutgoingMessage("1", "x").params(b=2, a=1))


plain_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=10,
)  # fmt: skip


@given(plain_json)
def test_any_json_is_taken_and_comes_back(value: Any) -> None:
    message = OutgoingMessage("1", "x").params(value=value).route(value)
    message.options(context={"value": value})
    check(message)
    loaded = serialization.load_outgoing("i", through(serialization.dump_outgoing(message)))
    assert loaded.provider_params == {"value": value}
    assert loaded.routing_values == (value,)
    assert loaded.provider_options.context == {"value": value}


def circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


BAD: dict[str, Any] = {
    "tuple": {"v": (1, 2)},
    "deep tuple": {"v": [{"w": ()}]},
    "int key": {"v": {1: "x"}},
    "none key": {"v": {None: 1}},
    "tuple key": {"v": {(1, 2): 1}},
    "nan": {"v": float("nan")},
    "infinity": {"v": [float("inf")]},
    "set": {"v": {1}},
    "bytes": {"v": b"x"},
    "datetime": {"v": datetime(2030, 1, 1, tzinfo=UTC)},
    "object": {"v": object()},
    "circular": {"v": circular()},
    "unpaired surrogate": {"v": HALF},
    "unpaired surrogate as key": {HALF: 1},
}

PLACES: dict[str, tuple[str, Callable[[OutgoingMessage, Any], Any]]] = {
    "params": (r"params\(\)", lambda message, value: message.params(**value)),
    "route": ("the routing value", lambda message, value: message.route("ok", value)),
    "context": ("the context option", lambda message, value: message.options(context=value)),
    "sender": (
        "the senderId option",
        lambda message, value: setattr(message.provider_options, "senderId", value),
    ),
    "src": ("src", lambda message, value: setattr(message, "src", value)),
}


@pytest.mark.parametrize("value", BAD)
def test_what_json_cannot_represent_is_refused(value: str) -> None:
    message = OutgoingMessage("1", "x").params(**BAD[value])
    with pytest.raises(exc.RequestError, match=r"^params\(\).* (cannot be|would change)"):
        check(message)


@pytest.mark.parametrize("place", PLACES)
def test_a_refusal_names_the_place_of_the_value(place: str) -> None:
    for value in ({"v": [{"w": ()}]}, {"v": HALF}):
        message = OutgoingMessage("1", "x")
        text, put = PLACES[place]
        put(message, value)
        with pytest.raises(exc.RequestError, match=f"^{text}.* (cannot be|would change)"):
            check(message)


def test_a_refusal_does_not_show_the_value() -> None:
    message = OutgoingMessage("1", "x").params(password=("hidden",)).route({"hidden"})
    with pytest.raises(exc.RequestError) as caught:
        check(message)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("dst", "body", "why"),
    [
        ("", "x", "no digits"),
        ("nobody", "x", "neither a phone number nor a short code"),
        ("1", "x" * 101, "101 characters, more than the 100 that SMSQUEUE_MAX_BODY"),
        ("1", f"ok{HALF}", "unpaired surrogate at index 2"),
        ("1", b"x", "must be text, not bytes"),
        ("1", None, "must be text, not NoneType"),
        ("1", 5, "must be text, not int"),
        ("1", "", "the body is empty"),
    ],
)
def test_a_message_that_nobody_can_send_is_refused(dst: str, body: Any, why: str) -> None:
    with pytest.raises(exc.RequestError, match=why):
        check(OutgoingMessage(dst, body))


@pytest.mark.parametrize("body", [" ", "x" * 100, "😀" * 100, "\0"])
def test_any_text_up_to_the_limit_is_taken(body: str) -> None:
    check(OutgoingMessage("1", body))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hologram", 3),
        ("send_at", datetime(2030, 1, 1)),  # noqa: DTZ001  naive on purpose
        ("expires", "soon"),
        ("on_unknown", "panic"),
        ("idempotency_key", 5),
        ("idempotency_key", HALF),
    ],
)
def test_options_that_were_set_as_attributes_are_checked_too(name: str, value: Any) -> None:
    message = OutgoingMessage("1", "x")
    setattr(message.provider_options, name, value)
    with pytest.raises(exc.RequestError, match=name):
        check(message)


def test_send_refuses_before_it_connects_and_leaves_the_message_as_it_was() -> None:
    gateway = Gateway(eager=False)
    message = OutgoingMessage("1", "x").params(a=(1,))
    with pytest.raises(exc.RequestError):
        gateway.send(message)
    with pytest.raises(exc.RequestError):
        gateway.send_many([OutgoingMessage("1", "good"), message])
    with pytest.raises(TypeError, match=r"OutgoingMessage, not builtins\.str"):
        gateway.send("+1")  # type: ignore[arg-type]  # the manual's slip
    assert (message.id, message.unconfirmed_id) == (None, None)
    assert "ledger" not in vars(gateway)


# --- Incoming and reports --------------------------------------------------------------------


@pytest.mark.parametrize("rtime", WHEN, ids=str)
@pytest.mark.parametrize("msgid", ["m", 5, "", None], ids=repr)
def test_an_incoming_message_comes_back(msgid: Any, rtime: Any) -> None:
    message = IncomingMessage("+1", f"hé {HALF}", msgid, "+2", rtime, {"a": [1, None]})
    message.provider = "p"
    loaded = serialization.load_incoming("e", through(serialization.dump_incoming(message)))
    assert vars(loaded) == vars(message) | {"id": "e"}


@pytest.mark.parametrize("rtime", WHEN, ids=str)
@pytest.mark.parametrize("name", statuses.__all__)
def test_a_report_comes_back(name: str, rtime: Any) -> None:
    status: MessageStatus = getattr(statuses, name)(5, rtime, {"a": 1})
    status.status_code, status.status = 7, HALF
    status.provider, status.reference = "p", "i.1"
    loaded = serialization.load_status(through(serialization.dump_status(status)))
    assert type(loaded) is type(status)
    assert loaded.states == status.states
    for field in ("msgid", "rtime", "meta", "status_code", "status", "provider", "reference"):
        assert getattr(loaded, field) == getattr(status, field)


def test_a_plugins_report_comes_back_as_its_nearest_known_class_with_its_values() -> None:
    class Mixin:
        """Not a status at all."""

    class Bounced(Mixin, MessageError):
        status_code = 9
        status = "bounced"
        accepted = False

    loaded = serialization.load_status(through(serialization.dump_status(Bounced("m"))))
    assert type(loaded) is MessageError
    assert (loaded.status_code, loaded.status, loaded.accepted) == (9, "bounced", False)


def test_a_plugins_class_by_a_known_name_does_not_take_its_place() -> None:
    class MessageDelivered(statuses.MessageDelivered):
        status = "handset"

    loaded = serialization.load_status(through(serialization.dump_status(MessageDelivered("m"))))
    assert type(loaded) is statuses.MessageDelivered
    assert loaded.status == "handset"


def test_a_report_of_an_unknown_class_or_with_little_in_it_loads() -> None:
    loaded = serialization.load_status({"class": "MessageTeleported"})
    assert type(loaded) is MessageStatus
    assert loaded.msgid is None
    delivered = serialization.load_status({"class": "MessageDelivered", "msgid": "m"})
    assert isinstance(delivered, MessageDelivered)
    assert delivered.delivered is True


def test_what_json_does_not_know_is_written_as_text_on_the_way_in() -> None:
    meta: dict[str, Any] = {"when": datetime(2030, 1, 1, tzinfo=UTC), "error": ValueError("x")}
    data = through(serialization.dump_incoming(IncomingMessage("1", "x", meta=meta)))
    assert data["meta"] == {"when": "2030-01-01 00:00:00+00:00", "error": "x"}


@given(st.text(st.characters()))
def test_any_text_is_written_as_utf8_and_comes_back(text: str) -> None:
    written = serialization.to_json([text]).encode()
    # Two halves that stand side by side come back as the character that they are.
    assert json.loads(written) == json.loads(json.dumps([text]))


def test_two_numbers_in_one_are_refused_before_anything_is_sent(gateway: Gateway) -> None:
    with pytest.raises(exc.RequestError, match="no number has more than 15") as caught:
        gateway.send(OutgoingMessage("15551234567, 15557654321", "hello"))
    assert "5551234" not in str(caught.value)
