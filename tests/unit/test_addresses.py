"""Addresses of incoming messages, and where an SMS may go."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsqueue import Gateway, IncomingMessage, Media, OutgoingMessage, exc
from smsqueue.delivery.event_runner import EventRunner
from smsqueue.message.masking import mask
from smsqueue.message.numbers import recipient, searched_address, sender_kind
from smsqueue.providers import LoopbackProvider, NullProvider
from smsqueue.testing import capture

#: Addresses that are no number of anybody.
ELSEWHERE = [
    *(
        "INFO4242",
        "SUPPORT",
        "4242INFO",
        "My Bank 24",
        "TEL 1234567",
        "Amazon2FA",
        "x12",
        "EXT 12345",
    ),
    *("whatsapp:+15551234567", "messenger:1234567890", "rcs:brand_1234_agent", "sip:15551234567"),
    *("jane1984@example.com", "15551234567@c.us", "user+15551234567", "U1234567890", "#12345678"),
    *("1-800-FLOWERS", "+INFO4242", "+1INFO4242", "*100#", "-", "  ", ""),
]


@pytest.mark.parametrize("src", ELSEWHERE)
def test_a_sender_that_is_no_number_keeps_its_text_and_cannot_be_answered(src: str) -> None:
    message = IncomingMessage(src, "hi", dst=src)
    assert (message.src, message.dst) == (src, src or None)
    assert message.replyable is False
    gateway = Gateway(eager=True)
    provider = gateway.add_provider("main", LoopbackProvider)
    reply = OutgoingMessage(message.src, "thanks")
    assert reply.dst == ""
    with pytest.raises(exc.RequestError) as caught:
        gateway.send(reply)
    assert str(caught.value) == (
        f"the destination {'*' * len(src)} is neither a phone number nor a short code, so no SMS "
        "can go there (whether an incoming message can be answered, its .replyable says)"
        if src.strip()
        else "the destination number has no digits"
    )
    assert provider.get_traffic() == []


@pytest.mark.parametrize("src", [each for each in ELSEWHERE if any(map(str.isdigit, each))])
def test_the_error_says_why_and_shows_nobody(src: str) -> None:
    with pytest.raises(exc.RequestError, match=r"\.replyable") as caught:
        Gateway(eager=True).deliver(OutgoingMessage(src, "x"))
    assert src not in str(caught.value)


@pytest.mark.parametrize(
    ("src", "kept"),
    [
        ("+15551234567", "15551234567"),
        ("15551234567", "15551234567"),
        ("+1 (555) 123-4567", "15551234567"),
        ("tel:+15551234567", "15551234567"),
        ("\u202a+1\u00a0555\u2011123\u20114567\u202c", "15551234567"),
        ("٤٩١٥١١٢٣٤٥٦٧٨", "4915112345678"),
        ("40404", "40404"),
        ("123", "123"),
        ("12-34", "12-34"),
    ],
)
def test_numbers_are_digits_short_codes_stay_and_both_can_be_answered(src: str, kept: str) -> None:
    message = IncomingMessage(src, "hi", dst=src)
    assert (message.src, message.dst) == (kept, kept)
    assert message.replyable is True
    assert OutgoingMessage(message.src, "x").dst_problem is None


@pytest.mark.parametrize("src", ["1", "12", "1234567890123456", "+1234567890123456"])
def test_what_is_too_short_or_too_long_is_not_answered(src: str) -> None:
    assert IncomingMessage(src, "hi").replyable is False


def test_nobody_and_what_is_no_text() -> None:
    assert IncomingMessage(None, "hi").src == ""  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="an address must be text, not int"):
        IncomingMessage(4242, "hi")  # type: ignore[arg-type]


@pytest.mark.parametrize("channel", ["whatsapp", "messenger", "viber_service", "rcs"])
def test_a_number_of_another_channel_is_not_answered_by_sms(channel: str) -> None:
    message = IncomingMessage("15551234567", "hi")
    assert message.replyable
    message.channel = channel
    assert not message.replyable


@pytest.mark.parametrize(
    ("dst", "digits"),
    [
        ("+1 (555) 123-4567", "15551234567"),
        ("+1 (555) 123-4567 ext. 89", "15551234567"),
        ("+1 800 FLOWERS", "18003569377"),
        ("tel:+1-555-123-4567", "15551234567"),
        ("sms:15551234567", "15551234567"),
        ("Mobile: +1 555 123 4567", "15551234567"),
        ("'15551234567'", "15551234567"),
        ("\ufeff15551234567\u200e", "15551234567"),
        ("1.555.123.4567", "15551234567"),
        ("1\u2013555\u2013123\u20134567", "15551234567"),
        ("40404", "40404"),
        ("1,555,123,4567", "15551234567"),
    ],
)
def test_decorated_destinations_work(dst: str, digits: str) -> None:
    message = OutgoingMessage(dst, "x")
    assert (message.dst, message.dst_problem) == (digits, None)
    gateway = Gateway(eager=True)
    gateway.add_provider("main", NullProvider)
    assert gateway.send(message).msgid == "1"


def test_two_numbers_are_not_joined_to_a_third() -> None:
    with pytest.raises(exc.RequestError, match="several numbers"):
        Gateway(eager=True).send(OutgoingMessage("5551234, 5551235", "x"))


def test_a_destination_that_was_set_later_is_looked_at_too() -> None:
    gateway = Gateway(eager=True)
    provider = gateway.add_provider("main", LoopbackProvider)
    message = OutgoingMessage("+15551234567", "x")
    message.dst = "INFO4242"
    with pytest.raises(exc.RequestError, match="neither a phone number"):
        gateway.send(message)
    message.dst = "+1 555 765 4321"
    gateway.send(message)
    assert [sent.dst for sent in provider.get_traffic()] == ["15557654321"]


def test_a_captured_gateway_refuses_it_too() -> None:
    gateway = Gateway(eager=True)
    with capture(gateway) as outbox:
        for send in (gateway.send, gateway.deliver, lambda each: gateway.send_many([each])):
            with pytest.raises(exc.RequestError, match="neither a phone number"):
                send(OutgoingMessage("INFO4242", "x"))
    assert outbox == []


def test_the_testing_kit_plays_any_sender_with_pictures() -> None:
    gateway = Gateway(eager=True)
    heard: list[IncomingMessage] = []
    gateway.onReceive += heard.append
    with capture(gateway) as outbox:
        gateway.send(OutgoingMessage("+15551234567", "well?", src="Shop"))
        outbox.reply(outbox.last, "yes")
        outbox.reply("INFO4242", "look", media=[("https://a.example/1", "image/png")])
        assert outbox.to("+1 555 123 4567") == [outbox.last]
    assert [(m.src, m.dst, m.replyable) for m in heard] == [
        ("15551234567", "Shop", True),
        ("INFO4242", None, False),
    ]
    assert heard[1].media == (Media("https://a.example/1", "image/png"),)


def test_a_short_code_has_no_plus() -> None:
    assert [recipient(dst) for dst in ("40404", "15551234567")] == ["40404", "+15551234567"]


@pytest.mark.parametrize("number", ["40404", "15551234567", "INFO4242", "whatsapp:+15551234567"])
def test_what_is_looked_for_is_what_is_kept(number: str) -> None:
    assert searched_address(number) == IncomingMessage(number, "x").src


@given(st.text())
def test_every_text_is_kept_or_its_digits_are(text: str) -> None:
    src = IncomingMessage(text, "x").src
    assert src == text or src.isdigit()
    assert IncomingMessage(src, "x").src == src
    assert OutgoingMessage(text, "x").dst.strip("0123456789") == ""


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("15551234567", "1555*****67"),
        ("+15551234567", "+155******67"),
        ("40404", "*****"),
        ("INFO4242", "*" * 8),
        ("jane.doe@example.com", "*" * 20),
        ("whatsapp:+15551234567", "*" * 21),
        ("Jane Doe 1", "*" * 10),
        (None, ""),
    ],
)
def test_nothing_of_a_name_is_shown(address: str | None, shown: str) -> None:
    assert mask(address) == shown


@pytest.mark.parametrize("region", ["MX", "US"])
@pytest.mark.parametrize("src", ["+5993183050", "+15551234567", "+442079460958"])
@pytest.mark.parametrize("eager", [False, True])
def test_an_answer_goes_to_who_wrote_whatever_the_region(
    gateway: Gateway, region: str, src: str, eager: bool
) -> None:
    """5993183050 wrote from Bonaire; in Mexico others have that number."""
    answered = []
    with Gateway(replace(gateway.settings, region=region), eager=eager) as gateway:
        provider = gateway.add_provider("a", LoopbackProvider)

        def answer(message: IncomingMessage) -> None:
            assert message.replyable
            answered.append(gateway.send(OutgoingMessage(message.src, "thank you")))

        gateway.onReceive += answer
        message = IncomingMessage(src, "hello", "1")
        message.provider = provider.name
        gateway.receive_message(message)
        if not eager:
            EventRunner(gateway, gateway.ledger).run(str(message.id))
            sent = gateway.lookup(str(answered[0].id)).message
            assert gateway.send(sent).dst == src[1:]
        assert [each.dst for each in answered] == [src[1:]]


@pytest.mark.parametrize(("region", "can"), [("", False), ("GB", True), ("US", False)])
def test_a_national_sender_is_answered_where_its_region_is_known(
    gateway: Gateway, region: str, can: bool
) -> None:
    message = IncomingMessage("020 7946 0958", "hello", "1")
    message.provider = "a"
    with Gateway(replace(gateway.settings, region=region), eager=True) as gateway:
        gateway.add_provider("a", NullProvider)
        gateway.receive_message(message)
        assert message.replyable is can
        if can:
            assert gateway.send(OutgoingMessage(message.src, "x")).dst == "442079460958"
        else:
            with pytest.raises(exc.RequestError):
                gateway.send(OutgoingMessage(message.src, "x"))


@pytest.mark.parametrize(
    "text",
    [f"1{' ' * 300_000}y", f"a{',' * 300_000}1", f"{'0' * 300_000}1", f"+{'0' * 300_000}5"],
    ids=["blanks", "commas", "zeros", "plus"],
)
def test_a_long_text_that_somebody_sends_as_a_number_is_refused_at_once(
    gateway: Gateway, text: str
) -> None:
    """Reading it took time by the square of its length: minutes for a hundred thousand."""
    with pytest.raises(exc.RequestError, match=r"30000\d characters, too many for a number"):
        gateway.send(OutgoingMessage(text, "x"))
    message = IncomingMessage(text, "hi")
    assert (message.src, message.replyable) == (text, False)
    assert gateway.find(text) == []
    assert sender_kind(text) is None or sender_kind(text) == "alphanumeric"
