"""Eager mode and ``capture()`` refuse the same messages as the queue, with the same errors."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest

from smsqueue import Gateway, IProvider, OutgoingMessage, exc
from smsqueue.testing import capture

NUMBER = "15557654321"


class Lazy:
    """Like gettext_lazy: becomes a text when it is used."""

    def __str__(self) -> str:
        return "hello"

    def __len__(self) -> int:
        return 5

    def __getattr__(self, name: str) -> Any:
        return getattr("hello", name)


class Told(IProvider):
    def __init__(self, gateway: Any, name: str) -> None:
        super().__init__(gateway, name)
        self.sent: list[OutgoingMessage] = []

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        self.sent.append(message)
        return message


def bare(**options: Any) -> OutgoingMessage:
    """A message whose options were set as attributes."""
    message = OutgoingMessage(NUMBER, "hi")
    for name, value in options.items():
        setattr(message.provider_options, name, value)
    return message


def changed(**fields: Any) -> OutgoingMessage:
    message = OutgoingMessage(NUMBER, "hi")
    for name, value in fields.items():
        setattr(message, name, value)
    return message


REFUSED: dict[str, Callable[[], Any]] = {
    "UUID in context": lambda: bare(context={"order": uuid4()}),
    "UUID by options()": lambda: OutgoingMessage(NUMBER, "hi").options(context={"id": uuid4()}),
    "tuple in context": lambda: bare(context={"ids": (1, 2)}),
    "list as context": lambda: bare(context=[1]),
    "lazy body": lambda: OutgoingMessage(NUMBER, Lazy()),  # type: ignore[arg-type]
    "empty body": lambda: OutgoingMessage(NUMBER, ""),
    "body of bytes": lambda: OutgoingMessage(NUMBER, b"hi"),  # type: ignore[arg-type]
    "no body": lambda: OutgoingMessage(NUMBER, None),  # type: ignore[arg-type]
    "2,000 characters": lambda: OutgoingMessage(NUMBER, "x" * 2000),
    "half an emoji": lambda: OutgoingMessage(NUMBER, "\ud83d"),
    "naive send_at": lambda: bare(send_at=datetime(2030, 1, 1)),  # noqa: DTZ001
    "send_at as text": lambda: bare(send_at="2030-01-01"),
    "expires as text": lambda: bare(expires="5"),
    "on_unknown": lambda: bare(on_unknown="Resend"),
    "idempotency_key": lambda: bare(idempotency_key=17),
    "status_report": lambda: bare(status_report="yes"),
    "senderId": lambda: bare(senderId=1.5),
    "unknown option": lambda: bare(hologram=True),
    "src": lambda: changed(src=["Shop"]),
    "dst": lambda: changed(dst=15557654321),
    "params": lambda: changed(provider_params=["flash"]),
    "params of objects": lambda: OutgoingMessage(NUMBER, "hi").params(at=object()),
    "routing values": lambda: OutgoingMessage(NUMBER, "hi").route({1, 2}),
    "routing values as text": lambda: changed(routing_values="users"),
    "no digits": lambda: OutgoingMessage("nobody", "hi"),
    "16 digits": lambda: OutgoingMessage("1" * 16, "hi"),
    "two numbers": lambda: OutgoingMessage(f"{NUMBER}, {NUMBER}", "hi"),
    "unknown provider": lambda: OutgoingMessage(NUMBER, "hi", provider="typo"),
    "provider of another type": lambda: changed(provider=Told),
    "provider that cannot be hashed": lambda: changed(provider=["a"]),
    "no message": lambda: NUMBER,
}


def refusal(send: Callable[..., Any], message: Any) -> tuple[type[Exception], str]:
    try:
        send(message)
    except (exc.RequestError, AssertionError, TypeError) as error:
        return type(error), str(error)
    raise AssertionError("the message was accepted")


@pytest.mark.parametrize("kind", REFUSED)
def test_eager_mode_and_capture_refuse_what_the_queue_refuses(gateway: Gateway, kind: str) -> None:
    make = REFUSED[kind]
    gateway.add_provider("a", Told)
    eager = Gateway(eager=True)
    told = eager.add_provider("a", Told)
    queued = refusal(gateway.send, make())
    assert NUMBER not in queued[1]
    many = refusal(gateway.send_many, [make()])
    assert (many[0], queued[1] in many[1]) == (queued[0], True)
    assert refusal(eager.send, make()) == queued
    assert refusal(eager.deliver, make()) == queued
    assert refusal(eager.send_many, [make()]) == many
    for caught in (gateway, eager):
        with capture(caught) as outbox:
            assert refusal(caught.send, make()) == queued
            assert refusal(caught.deliver, make()) == queued
            assert refusal(caught.send_many, [make()]) == many
        assert outbox == []
    assert told.sent == []  # type: ignore[attr-defined]
    assert gateway.ledger.counts().get("queued", 0) == 0


def test_a_message_without_a_text_is_taken_if_its_provider_gets_something_else(
    gateway: Gateway,
) -> None:
    eager = Gateway(eager=True)
    told = eager.add_provider("a", Told)
    picture = {"MediaUrl": "https://shop.example/1.png"}
    eager.send(OutgoingMessage(NUMBER, "").params(**picture))
    assert len(told.sent) == 1  # type: ignore[attr-defined]
    assert gateway.send(OutgoingMessage(NUMBER, "").params(**picture)).id


@pytest.mark.parametrize("way", ["queued", "eager", "captured"])
def test_a_sender_that_is_a_number_is_the_same_as_its_digits(gateway: Gateway, way: str) -> None:
    if way != "queued":
        gateway = Gateway(eager=way == "eager")
    told: Any = gateway.add_provider("a", Told)

    def sent(message: OutgoingMessage) -> OutgoingMessage:
        if way == "queued":
            return gateway.lookup(gateway.send(message).id or "").message
        if way == "eager":
            gateway.send(message)
            return told.sent[-1]  # type: ignore[no-any-return]
        with capture(gateway) as outbox:
            gateway.send(message)
        return outbox.last

    assert OutgoingMessage(NUMBER, "hi", src=12345).src == "12345"  # type: ignore[arg-type]
    for made in (
        OutgoingMessage(NUMBER, "hi", src=12345),  # type: ignore[arg-type]
        changed(src=12345),
    ):
        assert sent(made).src == "12345"
    for made in (OutgoingMessage(NUMBER, "hi").options(senderId=12345), bare(senderId=12345)):
        assert sent(made).provider_options.senderId == "12345"


@pytest.mark.parametrize(
    "options",
    [
        {"senderId": 1.5},
        {"senderId": True},
        {"senderId": b"Shop"},
        {"status_report": "yes"},
        {"allow_reply": "no"},
        {"escalate": 2},
        {"context": [1]},
        {"context": "order"},
    ],
)
def test_an_option_of_the_wrong_type_is_refused_where_it_is_set(options: dict[str, Any]) -> None:
    message = OutgoingMessage(NUMBER, "hi")
    with pytest.raises(TypeError, match=next(iter(options))):
        message.options(expires=5, **options)
    assert vars(message.provider_options) == {}


@pytest.mark.parametrize("src", [1.5, True, b"Shop", ["Shop"], object()])
def test_a_sender_of_the_wrong_type_is_refused_where_it_is_set(src: Any) -> None:
    with pytest.raises(TypeError, match="src must be text, not"):
        OutgoingMessage(NUMBER, "hi", src=src)


def test_flags_may_be_0_and_1() -> None:
    message = OutgoingMessage(NUMBER, "hi").options(status_report=1, allow_reply=0)
    assert vars(message.provider_options) == {"status_report": True, "allow_reply": False}
