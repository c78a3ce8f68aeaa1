"""Smart encoding: which characters are replaced, and when."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsqueue import Gateway, OutgoingMessage, exc
from smsqueue.message.segments import is_gsm7, segments_of
from smsqueue.message.smart_encoding import smart_text
from smsqueue.providers import NullProvider

TYPED = "It\u2019s \u201c8\u202fam\u201d \u2013 cafe\u0301\u2026\u200b"


@pytest.fixture
def gateway() -> Gateway:
    gateway = Gateway(eager=True, smart_encoding=True)
    gateway.add_provider("null", NullProvider)
    return gateway


def test_typographic_characters_are_replaced() -> None:
    text, replaced = smart_text(TYPED)
    assert text == 'It\'s "8 am" - café...'
    assert ("\u2019", "'", 1) in replaced
    assert ("e\u0301", "é", 1) in replaced
    assert ("\u200b", "", 1) in replaced


@pytest.mark.parametrize(
    "text",
    [
        "Çà et là, ça va",  # a letter that GSM-7 does not have
        "\u2018\u0436\u2019",
        "family: \U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\u06a9\u062a\u0627\u0628\u200c\u0647\u0627",  # Persian needs the zero-width non-joiner
        "\u2026" * 70,  # as "..." it would be two parts
        "\u200b",  # it would be empty
        "",
        "plain",
    ],
)
def test_a_text_that_gains_nothing_stays_as_written(text: str) -> None:
    assert smart_text(text) == (text, ())


def test_combining_marks_are_composed_in_a_unicode_text_too() -> None:
    assert smart_text("ж e\u0301e\u0301") == ("ж éé", (("e\u0301", "é", 2),))


@given(st.text())
def test_the_result_never_takes_more_parts_and_is_stable(text: str) -> None:
    sent, replaced = smart_text(text)
    assert segments_of(sent).parts <= segments_of(text).parts
    assert smart_text(sent).text == sent
    assert (sent == text) is (not replaced)
    assert not is_gsm7(text) or sent == text


def test_send_replaces_and_says_what(gateway: Gateway) -> None:
    message = gateway.send(OutgoingMessage("+442079460958", "isn\u2019t \u2013 \u2013"))
    assert message.body == "isn't - -"
    assert message.replaced == (("\u2019", "'", 1), ("\u2013", "-", 2))
    again = gateway.send(message)
    assert again.replaced == message.replaced


@pytest.mark.parametrize(("of_gateway", "of_message", "replaced"), [
    (False, True, True), (True, False, False), (False, None, False), (True, None, True),
])  # fmt: skip
def test_the_option_of_a_message_comes_before_the_gateways(
    of_gateway: bool, of_message: bool | None, replaced: bool
) -> None:
    gateway = Gateway(eager=True, smart_encoding=of_gateway)
    gateway.add_provider("null", NullProvider)
    message = OutgoingMessage("+442079460958", "\u2013").options(smart_encoding=of_message)
    gateway.send(message)
    assert (message.body == "-") is replaced


@pytest.mark.parametrize("value", ["yes", 2, {}])
def test_an_invalid_choice_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="smart_encoding must be True or False"):
        Gateway(eager=True, smart_encoding=value)
    with pytest.raises(TypeError, match="smart_encoding must be True or False"):
        OutgoingMessage("1555", "hi").options(smart_encoding=value)


def test_a_quote_counts_the_parts_that_would_be_sent(gateway: Gateway) -> None:
    message = OutgoingMessage("+447911123456", "\u2013" * 100)
    quote = gateway.quote(message, {"+44": "0.04", "447": 0.05, "": 1})
    assert (quote.segments.parts, quote.prefix) == (1, "447")
    assert (quote.price, quote.cost) == (Decimal("0.05"), Decimal("0.05"))
    assert quote.replaced == (("\u2013", "-", 100),)
    assert message.body == "\u2013" * 100
    assert message.replaced == ()


def test_a_quote_without_a_price_has_no_cost(gateway: Gateway) -> None:
    message = OutgoingMessage("+447911123456", "hi")
    assert gateway.quote(message, {"+1": "0.01"}).cost is None
    assert gateway.quote(message).cost is None
    picture = OutgoingMessage("+447911123456", "").params(media_urls=["https://example.org/p"])
    assert gateway.quote(picture, {"": 1}).cost is None


def test_a_quote_shows_no_text_in_its_repr(gateway: Gateway) -> None:
    assert "secret" not in repr(gateway.quote(OutgoingMessage("+447911123456", "secret")))


@pytest.mark.parametrize(
    ("prices", "error"),
    [
        ({"44": "cheap"}, ValueError),
        ({"44": -1}, ValueError),
        ({"44": float("nan")}, ValueError),
        ({"44": None}, TypeError),
        ({"44": True}, TypeError),
        ({44: 1}, TypeError),
        ({"4*": 1}, ValueError),
        ([0.04], TypeError),
    ],
)
def test_invalid_prices_are_refused(gateway: Gateway, prices: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"price|prefix"):
        gateway.quote(OutgoingMessage("+447911123456", "hi"), prices)


def test_a_quote_refuses_what_send_refuses(gateway: Gateway) -> None:
    with pytest.raises(exc.RequestError, match="the body is empty"):
        gateway.quote(OutgoingMessage("+447911123456", ""))
