"""Addresses: phone numbers, short codes and sender ids, as they come and as networks want them."""

from __future__ import annotations

import re
from typing import Literal

from smsqueue import exc
from smsqueue.lib import digits_only
from smsqueue.masking import mask

__all__ = [
    "check_alphanumeric",
    "destination",
    "digits",
    "incoming_address",
    "number_problem",
    "plus",
    "recipient",
    "replyable",
    "searched_address",
    "sender",
    "sender_kind",
]

Kind = Literal["alphanumeric", "number", "short code"]

#: E.164: country code and number together.
_LONGEST = 15
_LONGEST_ID = 11
#: What people write between the digits of a number.
_NUMBER = re.compile(r"\(?\+?[0-9 ()./-]+")
#: The same, as copied from anywhere: any script's digits, spaces and dashes, or a ``tel:`` link.
_SEPARATORS = r"\s()\[\]./+\uff0b\-\u2010-\u2015\u2212\u00b7'"
_WRITTEN = re.compile(rf"[\d{_SEPARATORS}]*")
_EXTENSION = re.compile(r"[\s;,]*(?:ext(?:ension|n)?|x|#)[\s.:=]*\d{1,7}\s*$", re.IGNORECASE)
#: Letters that stand for digits, in a number with a plus: ``+1 800 FLOWERS``.
_VANITY = re.compile(rf"[\s(]*[+\uff0b][\dA-Za-z{_SEPARATORS}]*")
#: Before a number: the scheme of a link, or what it is called (then it has a plus).
_LABEL = re.compile(
    r"\A(?:(?:tel|sms|smsto):|(?:tel|phone|mobile|cell)[.:]*\s+(?=\(?[+\uff0b]))", re.IGNORECASE
)
#: Soft hyphens, joiners, marks of direction: they come along when a number is copied.
_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
#: Digits of a short code; a number has more.
_SHORT = range(3, 7)


# --- Numbers ---------------------------------------------------------------------------------


def digits(number: str) -> str:
    """A number's digits, country code first: ``'+44 (0)20 7946 0958 x12' -> '442079460958'``.

    A number with a plus is parsed: its extension goes, and so does the prefix that is dialled
    only inside of its country, the "(0)". All digits are kept of a number without a plus, and of
    one that cannot be understood. Nothing is refused here; see :func:`number_problem`.
    """
    if "+" not in number and "\uff0b" not in number:
        return digits_only(number)
    # Not above: importing smsqueue would take a third longer.
    import phonenumbers

    all_digits = phonenumbers.normalize_digits_only(number)
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return all_digits
    country, national = str(parsed.country_code), phonenumbers.national_significant_number(parsed)
    # The library's reading counts if there are such numbers; or else, as it may not have heard
    # of new ones, if nothing but an extension and a zero went.
    rest = all_digits.removesuffix(parsed.extension or "").removeprefix(country)
    one_zero = rest == f"0{national}" and national[0] != "0"
    if (
        rest == national
        or (one_zero and phonenumbers.is_possible_number(parsed))
        or phonenumbers.is_valid_number(parsed)
    ):
        return country + national
    return all_digits


def plus(number: str) -> str:
    """A number with a plus and nothing else but digits, as ``+15551234567``.

    Raises:
        RequestError: there is no digit in it.
    """
    found = digits(number)
    if not found:
        raise exc.RequestError("the number has no digits")
    return f"+{found}"


def number_problem(number: str) -> str | None:
    """Why no phone can have this international number, in words; None: one might.

    For forms and imports. Only lengths and country codes are looked at, and they change from
    time to time: an old version of ``phonenumbers`` may be wrong.
    """
    found = digits(number)
    if not found:
        return "it has no digits"
    if len(found) > _LONGEST:
        return f"it has {len(found)} digits, and no number has more than {_LONGEST}"
    from phonenumbers import NumberParseException, PhoneNumber, ValidationResult, parse
    from phonenumbers import is_possible_number_with_reason as reason_of

    try:
        parsed = parse(f"+{found}")
    except NumberParseException as error:
        unknown = error.error_type == NumberParseException.INVALID_COUNTRY_CODE
        return "no country code begins like this" if unknown else "it is too short"
    # Judged as it will be sent, not as the library would correct it.
    rest = found.removeprefix(str(parsed.country_code))
    zeros = len(rest) - len(rest.lstrip("0"))
    sent = PhoneNumber(parsed.country_code, int(rest), None, zeros > 0, zeros or None)
    where = f"in the country with the code {parsed.country_code}"
    if digits(f"+{found}") != found:
        return f"it has a prefix that is dialled only {where}: write the number with a plus"
    return {
        ValidationResult.INVALID_COUNTRY_CODE: "no country code begins like this",
        ValidationResult.TOO_SHORT: f"it is too short for a number {where}",
        ValidationResult.TOO_LONG: f"it is too long for a number {where}",
        ValidationResult.IS_POSSIBLE_LOCAL_ONLY: f"it lacks the area code {where}",
        ValidationResult.INVALID_LENGTH: f"no number has that length {where}",
    }.get(reason_of(sent))


# --- Addresses -------------------------------------------------------------------------------


def incoming_address(address: str | None) -> str:
    """Sender or recipient of an incoming message as ``src`` and ``dst`` keep it.

    A phone number becomes its digits. It consists of digits and of what people write between them,
    has a plus or at least 7 digits, and 15 at most: ``'+1 (555) 123-4567' -> '15551234567'``,
    ``'tel:+15551234567' -> '15551234567'``. Anything else keeps its text as it came: short codes
    (``'40404'``), sender ids (``'INFO4242'``), addresses of other channels
    (``'whatsapp:+15551234567'``, ``'messenger:123'``, ``'jane@example.com'``), ids of more than
    15 digits, blanks. None is ``''``.

    Raises:
        TypeError: it is no text.
    """
    if address is None:
        return ""
    if not isinstance(address, str):
        raise TypeError(f"an address must be text, not {type(address).__name__}")
    bare = _bare(address)
    if not _WRITTEN.fullmatch(bare):
        return address
    found = _ascii_digits(bare)
    international = "+" in bare or "\uff0b" in bare
    is_number = (1 if international else _SHORT.stop) <= len(found) <= _LONGEST
    return found if is_number else address


def destination(address: str) -> tuple[str, str | None]:
    """Where an SMS is to go: its digits, and why it cannot be sent there, in words.

    Phone numbers and short codes, however they are decorated, are their :func:`digits`, with None:
    ``'+1 (555) 123-4567 ext. 8'``, ``'tel:+15551234567'``, ``'+1 800 FLOWERS'``, ``'40404'``. The
    digits of anything else are somebody else's number, so there are none: ``'INFO4242'``,
    ``'whatsapp:+15551234567'`` and ``'jane1984@example.com'`` give ``''`` and the reason.
    """
    bare = _bare(address)
    if not _ascii_digits(bare):
        return "", "the destination number has no digits"
    parts = [part for part in re.split("[,;]", bare) if len(_ascii_digits(part)) >= _SHORT.stop]
    if len(parts) > 1:
        return "", "the destination is several numbers (no number has more than 15 digits)"
    if _is_written_number(bare.replace(",", " ")):
        return digits(bare) or _ascii_digits(bare), None
    return "", (
        f"the destination {mask(address)} is neither a phone number nor a short code, so no SMS "
        "can go there: answer an incoming message only if its .replyable is true"
    )


def replyable(address: str) -> bool:
    """Can an SMS be sent to this ``src`` of an incoming message?

    True for a phone number (7 to 15 digits) and for a short code (3 to 6 digits), which networks
    of its country take answers for. False for everything else that :func:`incoming_address` keeps.
    """
    found, problem = destination(address)
    return problem is None and _SHORT.start <= len(found) <= _LONGEST


def searched_address(address: str) -> str:
    """What the ledger's index of numbers knows an address by that somebody looks for."""
    return destination(address)[0] or incoming_address(address)


def recipient(dst: str) -> str:
    """A message's ``dst`` for providers that want a plus: ``'+15551234567'``.

    A short code has none: with a plus it would be a number in another country.
    """
    return dst if len(dst) in _SHORT else f"+{dst}"


def _bare(address: str) -> str:
    return _LABEL.sub("", _INVISIBLE.sub("", address).strip()).strip()


def _ascii_digits(text: str) -> str:
    """Its digits, of whichever script, from 0 to 9."""
    return "".join(str(int(character)) for character in text if character.isdecimal())


def _is_written_number(text: str) -> bool:
    if _WRITTEN.fullmatch(text):
        return True
    without = _EXTENSION.sub("", text)
    if without != text:
        return bool(_WRITTEN.fullmatch(without)) and len(_ascii_digits(without)) not in range(7)
    if not _VANITY.fullmatch(text):
        return False
    from phonenumbers import NumberParseException, is_valid_number, parse

    try:
        return is_valid_number(parse(text))
    except NumberParseException:
        return False


# --- Senders ---------------------------------------------------------------------------------


def sender_kind(src: str | None) -> Kind | None:
    """What a sender is meant to be; None for nothing, and for what no network takes.

    With a letter in it, it is alphanumeric (:func:`check_alphanumeric` says if it is a good one).
    3 to 6 digits without a plus are a short code, 7 to 15 digits a number.
    """
    if src and any(character.isalpha() for character in src):
        return "alphanumeric"
    if not src or not _NUMBER.fullmatch(src.strip()):
        return None
    length = len(digits(src))
    if 7 <= length <= _LONGEST:
        return "number"
    return "short code" if 3 <= length <= 6 and "+" not in src else None


def check_alphanumeric(src: str, also: str = "") -> None:
    """Raise an error that says what is wrong with a sender id of letters.

    The rule is 1 to 11 ASCII letters and digits, with at least one letter.

    Args:
        also: Other characters that the provider takes, e.g. ``" -"``.

    Raises:
        UnsupportedError: it has an ASCII character that only other providers may take.
        RequestError: no provider takes it.
    """
    if not 1 <= len(src) <= _LONGEST_ID:
        raise exc.RequestError(
            f"the sender id has {len(src)} characters; it must have 1 to {_LONGEST_ID}"
        )
    if not re.search("[A-Za-z]", src):
        raise exc.RequestError("the sender id has no letter from A to Z; it needs at least one")
    for i, character in enumerate(src):
        if (character.isascii() and character.isalnum()) or character in also:
            continue
        takes = "letters from A to Z and digits" + (f" and any of {also!r}" if also else "")
        ours = character.isascii() and character.isprintable()
        raise (exc.UnsupportedError if ours else exc.RequestError)(
            f"the sender id has {character!r} at index {i}; this provider takes {takes}"
        )


def sender(src: str, *, plus: bool, also: str = "") -> str:
    """A sender as a provider wants it: an id or a short code as it is, a number as digits.

    Args:
        plus: With a plus in front of a number?
        also: As :func:`check_alphanumeric` has it.

    Raises:
        UnsupportedError, RequestError: it is no sender; the text says why.
    """
    kind = sender_kind(src)
    if kind == "alphanumeric":
        check_alphanumeric(src, also)
        return src
    if kind is None:
        raise exc.RequestError(
            f"the sender is neither a number (7 to {_LONGEST} digits) nor a short code "
            f"(3 to 6 digits without a plus) nor an id of letters and digits (1 to {_LONGEST_ID})"
        )
    return ("+" if plus and kind == "number" else "") + digits(src)
