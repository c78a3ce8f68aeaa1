"""Numbers and senders: what is kept of them, and what is said of bad ones."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsqueue import Gateway, IncomingMessage, OutgoingMessage, Settings, exc
from smsqueue.lib import digits_only
from smsqueue.message.numbers import (
    check_alphanumeric,
    digits,
    number_problem,
    plus,
    sender,
    sender_kind,
)
from smsqueue.providers import NullProvider
from smsqueue.simulator.magic_numbers import NUMBERS, Number
from smsqueue.testing import capture

# --- Numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "kept"),
    [
        ("+44 (0)20 7946 0958", "442079460958"),
        ("+4402079460958", "442079460958"),
        ("(+44) 20-7946.0958", "442079460958"),
        ("＋44 20 7946 0958", "442079460958"),  # noqa: RUF001
        ("tel:+44-20-7946-0958;ext=3", "442079460958"),
        ("+49 (0) 151 12345678", "4915112345678"),
        ("+7 8 912 345 67 89", "79123456789"),
        ("+1 (555) 123-4567 ext. 89", "15551234567"),
        ("+1 555 123 4567x89", "15551234567"),
        ("+1 800 FLOWERS", "18003569377"),
        ("+٤٤ ٢٠ ٧٩٤٦ ٠٩٥٨", "442079460958"),
        # 00 stands for the plus.
        ("00442079460958", "442079460958"),
        ("00 44 (0)20 7946 0958 ext. 12", "442079460958"),
        ("(00)44-20-7946.0958", "442079460958"),
        ("+00 44 20 7946 0958", "442079460958"),
        ("+0044 (0) 20 7946 0958", "442079460958"),
        ("٠٠٤٤٢٠٧٩٤٦٠٩٥٨", "442079460958"),
        ("００１ ５５５ １２３ ４５６７", "15551234567"),  # noqa: RUF001
        # In Italy the zero belongs to the number.
        ("+39 06 1234 5678", "390612345678"),
    ],
)
def test_a_number_with_a_plus_is_parsed(number: str, kept: str) -> None:
    assert OutgoingMessage(number, "x").dst == digits(number) == kept


@pytest.mark.parametrize(
    "number",
    [
        *("44 (0)20 7946 0958", "1 (555) 123-4567 ext. 89", "0044", "", "none"),
        *("+", "+1", "+1 (23)", "+1555123", "+1 (234) 567-89", "0+1555", "+44+20"),
        # Too long, and of no country.
        *("+1 555 123 4567 / 8901234", "+" + "1" * 30, "+999123456789"),
        # The library would read another number into these.
        *("+861122865520676", "+2615988382", "+20 0062 1916841"),
    ],
)
def test_any_other_number_keeps_its_digits(number: str) -> None:
    assert OutgoingMessage(number, "x").dst == digits(number) == digits_only(number)


@pytest.mark.parametrize(
    "number",
    ["15551234567", "١٥٥٥١٢٣٤٥٦٧", "१५५५१२३४५६७", "１５５５１２３４５６７", "1 (٥٥٥) 123-4567"],  # noqa: RUF001
)
def test_digits_of_any_script_are_digits(number: str) -> None:
    assert OutgoingMessage(number, "x").dst == digits(number) == "15551234567"
    assert digits(f"+{number}") == digits(f"00{number}") == "15551234567"
    assert number_problem(number) is None
    assert sender(number, plus=True) == "+15551234567"


@pytest.mark.parametrize(
    ("region", "number", "kept"),
    [
        ("GB", "020 7946 0958", "442079460958"),
        ("GB", "(020) 7946 0958 ext. 12", "442079460958"),
        ("GB", "٠٢٠ ٧٩٤٦ ٠٩٥٨", "442079460958"),
        ("GB", "07700 900123", "447700900123"),
        ("DE", "0151 12345678", "4915112345678"),
        ("US", "(212) 555-1234", "12125551234"),
        ("US", "2125551234", "12125551234"),
        ("US", "1 212 555 1234", "12125551234"),
        ("ES", "612 345 678", "34612345678"),
        ("IT", "06 1234 5678", "390612345678"),
        # Those that are international stay so, with a plus and without.
        *((region, "+44 (0)20 7946 0958", "442079460958") for region in ("GB", "DE", "US")),
        *((region, "0033 6 12 34 56 78", "33612345678") for region in ("GB", "DE", "US")),
        *((region, "15551234567", "15551234567") for region in ("GB", "DE", "US", "ES")),
        *((region, "380661234567", "380661234567") for region in ("GB", "DE", "US", "ES")),
        ("GB", "+3725123456", "3725123456"),
        ("GB", "3725123456", "3725123456"),
        # Short codes, too.
        *((region, "40404", "40404") for region in ("GB", "DE", "US", "ES")),
    ],
)
def test_a_national_number_gets_the_code_of_its_region(
    gateway: Gateway, region: str, number: str, kept: str
) -> None:
    with Gateway(replace(gateway.settings, region=region)) as gateway:
        sent = gateway.send(OutgoingMessage(number, "x"))
        assert (sent.dst, digits(number, region)) == (kept, kept)
        assert gateway.lookup(sent.id or "").message.dst == kept
        for written in (number, f"+{kept}", f"00{kept}"):
            if len(kept) > 6:
                assert [record.id for record in gateway.find(written)] == [sent.id]
        again = sent.id
        assert gateway.send(sent).dst == kept
        assert sent.id != again
        with capture(gateway) as outbox:
            gateway.send(OutgoingMessage(number, "x"))
            assert [each.dst for each in outbox.to(number)] == [kept]
    eager = Gateway(Settings(region=region), eager=True)
    eager.add_provider("a", NullProvider)
    assert eager.send(OutgoingMessage(number, "x")).dst == kept


@pytest.mark.parametrize(
    ("region", "number", "why"),
    [
        ("", "020 7946 0958", "begins with 0"),
        ("", "0611223344", "begins with 0"),
        ("", "٠٢٠٧٩٤٦٠٩٥٨", "begins with 0"),
        ("", "(212) 555-1234", "too short for a number in the country with the code 212"),
        ("", "999123456789", "no country code"),
        ("GB", "020 7946 0958 12", "no such number in GB"),
        # A mobile phone in Norway, or one in Arkansas.
        ("US", "479-761-5424", "in US or abroad"),
    ],
)
def test_a_number_that_can_be_none_is_refused_with_what_to_do(
    gateway: Gateway, region: str, number: str, why: str
) -> None:
    with Gateway(replace(gateway.settings, region=region)) as gateway:
        with pytest.raises(exc.RequestError, match=why) as caught:
            gateway.send(OutgoingMessage(number, "x"))
        assert "write it with a plus" in str(caught.value)
        assert ("SMSQUEUE_REGION" in str(caught.value)) is (region == "")
        assert digits(number) not in str(caught.value)
        with capture(gateway), pytest.raises(exc.RequestError, match=why):
            gateway.send(OutgoingMessage(number, "x"))
    eager = Gateway(Settings(region=region), eager=True)
    eager.add_provider("a", NullProvider)
    with pytest.raises(exc.RequestError, match=why):
        eager.send(OutgoingMessage(number, "x"))


@pytest.mark.parametrize("number", ["15551234567", "380661234567", "15550001", "40404", "1"])
def test_without_a_plus_and_a_region_numbers_are_what_they_were(
    gateway: Gateway, number: str
) -> None:
    assert gateway.send(OutgoingMessage(number, "x")).dst == number


def test_a_destination_that_was_set_later_is_read_anew(gateway: Gateway) -> None:
    with Gateway(replace(gateway.settings, region="GB")) as gateway:
        message = OutgoingMessage("+15551234567", "x")
        for written, kept in (("020 7946 0958", "442079460958"), ("0033612345678", "33612345678")):
            message.dst = written
            assert gateway.send(message).dst == kept


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
def test_the_simulators_numbers_stay_as_they_are(number: Number) -> None:
    for each in number.numbers(3):
        assert digits(f"+{each.lstrip('+')}") == digits_only(each)
        assert number_problem(each) is None


@given(st.from_regex(r"\+[0-9 ()x-]{0,20}", fullmatch=True))
def test_what_was_kept_once_is_kept_again(number: str) -> None:
    kept = digits(number)
    assert digits(kept) == kept
    assert digits(f"+{kept}") == kept


@given(st.text())
def test_no_text_is_refused_as_a_number(text: str) -> None:
    assert digits(text) == digits_only(digits(text))
    assert digits(f"+{text}") == digits_only(digits(f"+{text}"))


def test_an_incoming_number_is_the_networks_and_keeps_its_digits() -> None:
    assert IncomingMessage("+44 (0)20 7946 0958", "x").src == "4402079460958"


@pytest.mark.parametrize("number", ["15551234567", "+15551234567", "+1 (555) 123-4567 ext. 8"])
def test_with_a_plus(number: str) -> None:
    assert plus(number) == "+15551234567"


@pytest.mark.parametrize("number", ["", "+", "none"])
def test_there_is_no_plus_before_nothing(number: str) -> None:
    with pytest.raises(exc.RequestError, match="no digits"):
        plus(number)


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        ("+44 (0)20 7946 0958", None),
        ("15551234567", None),
        ("", "no digits"),
        ("+1 555 123 4567 / 8901234", "18 digits.* more than 15"),
        ("+999123456789", "no country code"),
        ("020 7946 0958", "no country code"),
        ("+44", "too short"),
        ("+1555123", "too short .*the code 1$"),
        ("+1 555 0001", "lacks the area code"),
        ("+44 20 7946 0958 12", "too long .*the code 44$"),
        ("44 (0)20 7946 0958", "dialled only .*the code 44: write the number with a plus"),
    ],
)
def test_what_is_wrong_with_a_number(number: str, problem: str | None) -> None:
    found = number_problem(number)
    if problem is None:
        assert found is None
    else:
        assert re.search(problem, found or "")


def test_phonenumbers_is_loaded_by_the_first_plus() -> None:
    program = """
import sys, smsqueue
assert smsqueue.OutgoingMessage("15551234567", "x").segments().parts == 1
early = "phonenumbers" in sys.modules
smsqueue.OutgoingMessage("+15551234567", "x")
sys.exit(0 if not early and "phonenumbers" in sys.modules else 1)
"""
    run = subprocess.run([sys.executable, "-W", "error", "-c", program], check=False)
    assert run.returncode == 0


# --- Senders ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("src", "kind"),
    [
        ("My Shop", "alphanumeric"),
        ("A", "alphanumeric"),
        ("4you", "alphanumeric"),
        ("a sender that is too long", "alphanumeric"),
        ("Café", "alphanumeric"),
        ("Магазин", "alphanumeric"),
        ("+15551234567", "number"),
        ("+1 (555) 123-4567", "number"),
        ("(+44) 20 7946 0958", "number"),
        ("5551234", "number"),
        ("+1555123", "number"),
        ("123456789012345", "number"),
        ("12345", "short code"),
        ("123-456", "short code"),
        ("123", "short code"),
        ("12", None),
        ("+12345", None),
        ("1234567890123456", None),
        ("12&34567", None),
        ("٤٤٢٠٧٩٤٦", None),
        ("---", None),
        (" ", None),
        ("", None),
        (None, None),
    ],
)
def test_the_kind_of_a_sender(src: str | None, kind: str | None) -> None:
    assert sender_kind(src) == kind


@pytest.mark.parametrize(
    ("src", "also"),
    [("A", ""), ("Shop", ""), ("4you", ""), ("MyShop12345", ""), ("My Shop", " "), ("R&B-1", "&-")],
)
def test_good_sender_ids(src: str, also: str) -> None:
    check_alphanumeric(src, also)
    assert sender(src, plus=True, also=also) == src


@pytest.mark.parametrize(
    ("src", "also", "error", "text"),
    [
        ("", "", exc.RequestError, "0 characters; it must have 1 to 11"),
        ("MyShop123456", "", exc.RequestError, "12 characters; it must have 1 to 11"),
        ("12345", "", exc.RequestError, "no letter from A to Z"),
        ("Магазин", "", exc.RequestError, "no letter from A to Z"),
        ("Café", " ", exc.RequestError, "'é' at index 3; .*digits and any of ' '"),
        ("Shop\n", "", exc.RequestError, "at index 4"),
        # Another provider may take these.
        ("My Shop", "", exc.UnsupportedError, "' ' at index 2; .*takes letters from A to Z"),
        ("R&B", " -", exc.UnsupportedError, "'&' at index 1; .*any of ' -'"),
    ],
)
def test_bad_sender_ids(src: str, also: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        check_alphanumeric(src, also)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("src", "with_plus", "written"),
    [
        ("+1 (555) 123-4567", True, "+15551234567"),
        ("+1 (555) 123-4567", False, "15551234567"),
        ("15551234567", True, "+15551234567"),
        ("+44 (0)20 7946 0958", False, "442079460958"),
        ("123-45", True, "12345"),
        ("12345", False, "12345"),
    ],
)
def test_numbers_as_senders(src: str, with_plus: bool, written: str) -> None:
    assert sender(src, plus=with_plus) == written


@pytest.mark.parametrize("src", ["", "12", "+12345", "1234567890123456", "?"])
def test_what_is_no_sender(src: str) -> None:
    with pytest.raises(exc.RequestError, match=r"neither a number .* nor a short code"):
        sender(src, plus=True)


def test_a_sender_id_that_is_no_good_is_an_error_of_its_own() -> None:
    with pytest.raises(exc.RequestError, match="16 characters"):
        sender("A very long name", plus=True)
