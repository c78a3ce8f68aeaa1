"""How many SMS a text is, and where it is cut."""

from __future__ import annotations

import time
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smsqueue import OutgoingMessage
from smsqueue.message.segments import Segments, segments_of, split

# The table of 3GPP TS 23.038 once more, by septet: one row for each high digit, as Unicode.
ROWS = """
    0040 00A3 0024 00A5 00E8 00E9 00F9 00EC 00F2 00C7 000A 00D8 00F8 000D 00C5 00E5
    0394 005F 03A6 0393 039B 03A9 03A0 03A8 03A3 0398 039E ---- 00C6 00E6 00DF 00C9
    0020 0021 0022 0023 00A4 0025 0026 0027 0028 0029 002A 002B 002C 002D 002E 002F
    0030 0031 0032 0033 0034 0035 0036 0037 0038 0039 003A 003B 003C 003D 003E 003F
    00A1 0041 0042 0043 0044 0045 0046 0047 0048 0049 004A 004B 004C 004D 004E 004F
    0050 0051 0052 0053 0054 0055 0056 0057 0058 0059 005A 00C4 00D6 00D1 00DC 00A7
    00BF 0061 0062 0063 0064 0065 0066 0067 0068 0069 006A 006B 006C 006D 006E 006F
    0070 0071 0072 0073 0074 0075 0076 0077 0078 0079 007A 00E4 00F6 00F1 00FC 00E0
"""
DEFAULT = {int(code, 16): bytes([i]) for i, code in enumerate(ROWS.split()) if code != "----"}
EXTENDED = {
    0x0C: b"\x1b\x0a",
    0x5E: b"\x1b\x14",
    0x7B: b"\x1b\x28",
    0x7D: b"\x1b\x29",
    0x5C: b"\x1b\x2f",
    0x5B: b"\x1b\x3c",
    0x7E: b"\x1b\x3d",
    0x5D: b"\x1b\x3e",
    0x7C: b"\x1b\x40",
    0x20AC: b"\x1b\x65",
}
TABLE = DEFAULT | EXTENDED
GSM = "".join(map(chr, TABLE))
THUMB = "\N{THUMBS UP SIGN}"


def slow(text: str) -> tuple[str, list[str], int, int, int]:
    """Encoding, parts, units of all, units of the last part and of a full one: by encoding
    every part anew with each character."""
    gsm = all(ord(c) in TABLE for c in text)

    def size(part: str) -> int:
        if gsm:
            return len(b"".join(TABLE[ord(c)] for c in part))
        return len(part.encode("utf-16-be")) // 2

    most = 160 if gsm else 70
    if size(text) > most:
        most = 153 if gsm else 67
    parts: list[str] = []
    for c in text:
        if parts and size(parts[-1] + c) <= most:
            parts[-1] += c
        else:
            parts.append(c)
    last = size(parts[-1]) if parts else 0
    return "gsm7" if gsm else "ucs2", parts, size(text), last, most


def check(text: str) -> None:
    encoding, parts, units, last, most = slow(text)
    found = segments_of(text)
    assert split(text) == parts
    assert (found.encoding, found.units, found.parts) == (encoding, units, len(parts))
    assert (found.per_part, found.remaining) == (most, most - last)
    odd = [(i, c) for i, c in enumerate(text) if ord(c) not in TABLE]
    assert found.first_unicode == (odd[0] if odd else None)


long_gsm = st.text(st.sampled_from(GSM + "€{}" * 40), min_size=100, max_size=500)
long_unicode = st.text(st.sampled_from("aя" + THUMB), min_size=40, max_size=220)


@given(st.one_of(st.text(), long_gsm, long_unicode))
@example("a" * 152 + "€" + "b" * 7)
@example("я" * 66 + THUMB + "я" * 3)
def test_every_text_is_counted_and_cut_as_a_slow_count_does(text: str) -> None:
    check(text)


@given(st.one_of(st.text(), long_gsm, long_unicode))
def test_the_parts_are_the_text_and_each_of_them_fits(text: str) -> None:
    parts = split(text)
    assert "".join(parts) == text
    found = segments_of(text)
    for part in parts:
        assert segments_of(part).parts == 1
        if found.encoding == "ucs2":  # a part that has no Unicode in it is sent so all the same
            assert len(part.encode("utf-16-be")) // 2 <= found.per_part
        else:
            assert segments_of(part).units <= found.per_part


def test_the_alphabet_has_all_of_the_standard_and_nothing_else() -> None:
    gsm = {chr(c) for c in range(0x110000) if segments_of(chr(c)).encoding == "gsm7"}
    assert gsm == set(GSM)
    assert len(gsm) == 127 + 10
    assert {c for c in gsm if segments_of(c).units == 2} == set("\f^{}\\[~]|€")


@pytest.mark.parametrize("c", ["ç", "`", "\t", "\x1b", "\xa0", "’", "–", "…", "á", "Α"])  # noqa: RUF001
def test_what_looks_harmless_and_is_unicode(c: str) -> None:
    assert segments_of(f"ok {c}").first_unicode == (3, c)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Segments("gsm7", 0, 0, 160, 160, None)),
        ("a", Segments("gsm7", 1, 1, 160, 159, None)),
        ("a" * 160, Segments("gsm7", 160, 1, 160, 0, None)),
        ("a" * 161, Segments("gsm7", 161, 2, 153, 145, None)),
        ("a" * 306, Segments("gsm7", 306, 2, 153, 0, None)),
        ("a" * 307, Segments("gsm7", 307, 3, 153, 152, None)),
        ("€" * 80, Segments("gsm7", 160, 1, 160, 0, None)),
        ("€" * 81, Segments("gsm7", 162, 2, 153, 143, None)),
        # 153 is odd: a part of pairs holds 152.
        ("€" * 153, Segments("gsm7", 306, 3, 153, 151, None)),
        ("я" * 70, Segments("ucs2", 70, 1, 70, 0, (0, "я"))),
        ("я" * 71, Segments("ucs2", 71, 2, 67, 63, (0, "я"))),
        ("a" * 69 + "я", Segments("ucs2", 70, 1, 70, 0, (69, "я"))),
        (THUMB * 35, Segments("ucs2", 70, 1, 70, 0, (0, THUMB))),
        (THUMB * 67, Segments("ucs2", 134, 3, 67, 65, (0, THUMB))),
        # In Unicode a euro is one unit.
        ("€я", Segments("ucs2", 2, 1, 70, 68, (1, "я"))),
    ],
)
def test_the_limits(text: str, expected: Segments) -> None:
    assert segments_of(text) == expected
    check(text)


def test_a_pair_moves_to_the_next_part_as_a_whole() -> None:
    assert split("a" * 152 + "€" + "b" * 10) == ["a" * 152, "€" + "b" * 10]
    assert split("я" * 66 + THUMB + "я" * 10) == ["я" * 66, THUMB + "я" * 10]


def test_an_empty_text_has_no_parts() -> None:
    assert split("") == []


def test_a_character_of_several_may_be_cut() -> None:
    woman = "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}"
    first, second = split("я" * 65 + woman + "я" * 10)
    assert first.endswith("\N{WOMAN}")
    assert second.startswith("\N{ZERO WIDTH JOINER}")


def test_half_a_character_is_a_unit() -> None:
    assert segments_of("a\ud83d").units == 2
    assert split("я" * 70 + "\ud83d")[1] == "яяя\ud83d"


def test_a_message_counts_its_text() -> None:
    message = OutgoingMessage("+15550000101", "Grüße €")
    assert message.segments() == segments_of("Grüße €")
    message.body = "– " * 50  # noqa: RUF001
    assert (message.segments().parts, message.segments().first_unicode) == (2, (0, "–"))  # noqa: RUF001


def test_segments_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        segments_of("a").parts = 0  # type: ignore[misc]


@pytest.mark.parametrize("text", ["a€", "я" + THUMB])
def test_a_long_text_takes_no_more_time_for_each_character_than_a_short_one(text: str) -> None:
    def seconds(times: int) -> float:
        long = text * times
        began = time.process_time()
        split(long)
        segments_of(long)
        return time.process_time() - began

    short = min(seconds(10_000) for _ in range(3))
    # Ten times the text; a square would be a hundred times the time.
    assert min(seconds(100_000) for _ in range(3)) < 40 * short


@pytest.mark.parametrize(
    ("grapheme", "units", "most"),
    [
        ("\U0001f1f3\U0001f1f1", 4, 1),
        ("\U0001f469\U0001f3fd\u200d\U0001f680", 7, 2),
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", 11, 0),
        ("\U0001f469\U0001f3fd\u200d\u2764\ufe0f\u200d\U0001f48b\u200d\U0001f468\U0001f3ff", 15, 3),
    ],
)
def test_a_calculator_that_cuts_no_grapheme_counts_up_to_three_parts_more(
    grapheme: str, units: int, most: int
) -> None:
    """As Twilio's does, see docs/segments.md; up to the 1600 units that Twilio takes."""
    assert segments_of(grapheme).units == units
    more = set()
    for count in range(71 // units + 1, 1600 // units + 1):
        whole = -(-count // (67 // units))
        more.add(whole - segments_of(grapheme * count).parts)
    assert (min(more), max(more)) == (0, most)


def test_the_pages_say_how_twilio_counts() -> None:
    docs = Path(__file__).parents[2] / "docs"
    for page in ("segments.md", "providers/twilio.md"):
        text = " ".join((docs / page).read_text("utf-8").split())
        assert "may count one to three parts more" in text
