"""Phone numbers, short codes and sender ids: parsing, validation, and the forms of networks."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Literal

from smsqueue import exc
from smsqueue.message.masking import mask

__all__ = [
    "InternationalNumber",
    "check_alphanumeric",
    "country_of",
    "destination",
    "destination_digits",
    "digits",
    "incoming_address",
    "is_international",
    "known_countries",
    "known_number",
    "number_problem",
    "plus",
    "recipient",
    "replyable",
    "resolved",
    "searched_address",
    "sender",
    "sender_kind",
]

Kind = Literal["alphanumeric", "number", "short code"]

#: E.164: country code and number together.
_LONGEST = 15
_LONGEST_ID = 11
#: Maximum length of a written number; a longer text is not a number, and takes long to parse.
_LONGEST_WRITTEN = 200
#: Digits with the usual separators.
_NUMBER = re.compile(r"\(?\+?[0-9 ()./-]+")
#: The same with digits, spaces and dashes of any script, as in copied text.
_SEPARATORS = r"\s()\[\]./+\uff0b\-\u2010-\u2015\u2212\u00b7'"
_WRITTEN = re.compile(rf"[\d{_SEPARATORS}]*")
_EXTENSION = re.compile(r"[\s;,]*(?:ext(?:ension|n)?|x|#)[\s.:=]*\d{1,7}\s*$", re.IGNORECASE)
#: Letters that stand for digits, in a number with a plus: ``+1 800 FLOWERS``.
_VANITY = re.compile(rf"[\s(]*[+\uff0b][\dA-Za-z{_SEPARATORS}]*")
#: A prefix of a number: the scheme of a link, or a label (before a number with a plus).
_LABEL = re.compile(
    r"\A(?:(?:tel|sms|smsto):|(?:tel|phone|mobile|cell)[.:]*\s+(?=\(?[+\uff0b]))", re.IGNORECASE
)
#: Invisible characters of copied numbers: soft hyphens, joiners, marks of direction.
_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
#: Number of digits of a short code; a phone number has more.
_SHORT = range(3, 7)


# --- Numbers ---------------------------------------------------------------------------------


class InternationalNumber(str):
    """Digits that are known to begin with a country code, whatever the region."""

    __slots__ = ()


def digits(number: str, region: str | None = None) -> str:
    """A number's digits, country code first: ``'+44 (0)20 7946 0958 x12' -> '442079460958'``.

    A number with a plus, or with 00 in its place, is parsed: its extension and its trunk prefix,
    the "(0)", are removed. Other numbers, and those that cannot be parsed, keep all digits. Nothing
    is refused here; see :func:`resolved` and :func:`number_problem`.

    Args:
        region: Country, such as ``"GB"``, whose national numbers get its code:
            ``'020 7946 0958' -> '442079460958'``. See :func:`resolved`.
    """
    if isinstance(number, InternationalNumber):
        return str(number)
    if len(number) > _LONGEST_WRITTEN or (region is None and not is_international(number)):
        return _ascii_digits(number)
    return resolved(number, region)[0]


def is_international(number: str) -> bool:
    """Does it have a plus, or 00 in its place, or is it known to be international?"""
    if isinstance(number, InternationalNumber):
        return True
    return "+" in number or "\uff0b" in number or _double_zero(_ascii_digits(number))


def _double_zero(all_digits: str) -> bool:
    # With fewer digits it is not a number, see resolved().
    return all_digits.startswith("00") and len(all_digits) >= _SHORT.stop


def _international_digits(number: str) -> str:
    """The digits of a number with a plus, or with 00 in its place."""
    text = _with_ascii_digits(number)
    if _ascii_digits(text).startswith("00"):
        # No country code begins with 0: "+0044" and "0044" are "+44".
        while _ascii_digits(text).startswith("00"):
            text = text.partition("0")[2].partition("0")[2]
        text = "+" + re.sub(r"\A[^0-9]+", "", text)
    return _parsed_digits(text)


def resolved(number: str, region: str | None = None) -> tuple[str, str | None]:
    """A number's digits, country code first, and what is wrong with them; None: nothing.

    Numbers with a plus or 00 are international. Of the others, up to 6 digits are a short code,
    which never begins with 00.

    With a region, longer ones are national if they begin with its trunk prefix 0. Without that
    prefix they are international in regions whose national numbers have it, as in Great Britain.
    In other regions, as in the USA, the valid reading counts, and that of a mobile phone if both
    are valid: ``2125551234`` is a number in New York there.

    Without a region they are international, unless they begin with 0 or with no country code, or
    are too short.
    """
    all_digits = _ascii_digits(number)
    if isinstance(number, InternationalNumber):
        return all_digits, None
    if is_international(number):
        all_digits = _international_digits(number)
        return all_digits, _ZERO if all_digits.startswith("0") and len(
            all_digits
        ) >= _SHORT.stop else None
    if all_digits.startswith("00") and len(all_digits) < _SHORT.stop:
        return all_digits, _DOUBLE_ZERO
    if len(all_digits) < _SHORT.stop or len(all_digits) > _LONGEST:
        return all_digits, None  # a short code, or refused later as too long
    if region:
        return _resolved_in(number, all_digits, region)
    if all_digits.startswith("0"):
        return all_digits, _ZERO
    problem = _country_problem(all_digits)
    return all_digits, f"{problem}; {_HINT}" if problem else None


_HINT = (
    "write it with a plus and its country code, or set SMSQUEUE_REGION to the country whose "
    "national numbers are meant"
)
_DOUBLE_ZERO = (
    "it begins with 00, as no short code does, and is too short for an international number: "
    "write the whole number"
)
_ZERO = f"it begins with 0, as only national numbers do; {_HINT}"


def _country_problem(all_digits: str) -> str | None:
    """Why digits are not a country code and a number of sufficient length; None: they may be."""
    from phonenumbers import COUNTRY_CODE_TO_REGION_CODE

    codes = (all_digits[:length] for length in (1, 2, 3))
    code = next((code for code in codes if int(code) in COUNTRY_CODE_TO_REGION_CODE), None)
    if code is None:
        return "no country code begins like this"
    # Not for North America, whose fictitious numbers (1 555 0001) are common in documentation and
    # tests.
    if code != "1" and _too_short(code, len(all_digits) - len(code)):
        return f"it is too short for a number in the country with the code {code}"
    return None


@cache
def _too_short(code: str, length: int) -> bool:
    from phonenumbers import PhoneNumber, ValidationResult, is_possible_number_with_reason

    if not length:
        return True
    number = PhoneNumber(int(code), int("2" * length))
    return is_possible_number_with_reason(number) == ValidationResult.TOO_SHORT


def _resolved_in(number: str, all_digits: str, region: str) -> tuple[str, str | None]:
    import phonenumbers as library

    def reading(text: str, of: str | None) -> tuple[str, Any]:
        try:
            parsed = library.parse(text, of)
        except library.NumberParseException:
            return "", None
        return f"{parsed.country_code}{library.national_significant_number(parsed)}", parsed

    def possible(parsed: Any) -> bool:
        reason = parsed and library.is_possible_number_with_reason(parsed)
        return bool(reason == library.ValidationResult.IS_POSSIBLE)

    text = _with_ascii_digits(number)
    national, of_region = reading(text, region)
    abroad, international = reading(f"+{all_digits}", None)
    metadata = library.PhoneMetadata.metadata_for_region(region)
    trunk_zero = str(metadata.national_prefix or "").startswith("0") if metadata else False
    if all_digits.startswith("0") or not possible(international):
        if possible(of_region):
            return national, None
    elif national == abroad or trunk_zero or not possible(of_region):
        return all_digits, None
    else:
        kinds = (library.PhoneNumberType.MOBILE, library.PhoneNumberType.FIXED_LINE_OR_MOBILE)
        ranks = [
            library.is_valid_number(parsed) + (library.number_type(parsed) in kinds)
            for parsed in (of_region, international)
        ]
        if ranks[0] != ranks[1] or not ranks[0]:
            return (national if ranks[0] >= ranks[1] else all_digits), None
        return all_digits, f"it may be a number in {region} or abroad: write it with a plus"
    if all_digits.startswith("0"):
        return all_digits, f"there is no such number in {region}: write it with a plus"
    problem = _country_problem(all_digits)
    where = f"and there is no such number in {region}"
    return all_digits, f"{problem}, {where}: write it with a plus" if problem else None


def _with_ascii_digits(text: str) -> str:
    """A text with the digits and plus signs of all scripts in ASCII."""
    if text.isascii():
        return text
    text = "".join(str(int(char)) if char.isdecimal() else char for char in text)
    return text.replace("\uff0b", "+")


def _parsed_digits(number: str) -> str:
    # Imported here, since it would make importing smsqueue a third slower.
    import phonenumbers

    all_digits = phonenumbers.normalize_digits_only(number)
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return all_digits
    country, national = str(parsed.country_code), phonenumbers.national_significant_number(parsed)
    # Use the library's result if there are such numbers, or if it only removed an extension and a
    # zero: it may not know new numbers.
    rest = all_digits.removesuffix(parsed.extension or "").removeprefix(country)
    one_zero = rest == f"0{national}" and national[0] != "0"
    if (
        rest == national
        or (one_zero and phonenumbers.is_possible_number(parsed))
        or phonenumbers.is_valid_number(parsed)
    ):
        return country + national
    return all_digits


def plus(number: str, region: str | None = None) -> str:
    """A number with a plus and nothing else but digits, as ``+15551234567``.

    Args:
        region: As in :func:`digits`.

    Raises:
        RequestError: it has no digits.
    """
    all_digits = digits(number, region)
    if not all_digits:
        raise exc.RequestError("the number has no digits")
    return f"+{all_digits}"


def number_problem(number: str, region: str | None = None) -> str | None:
    """Why no phone can have this international number; None: one may have it.

    For forms and imports. It checks lengths and country codes only, and these change: an old
    version of ``phonenumbers`` may be wrong.

    Args:
        region: Country whose national numbers are accepted; as in :func:`digits`.
    """
    all_digits = digits(number, region)
    if not all_digits:
        return "it has no digits"
    if len(all_digits) > _LONGEST:
        return f"it has {len(all_digits)} digits, and no number has more than {_LONGEST}"
    from phonenumbers import NumberParseException, PhoneNumber, ValidationResult, parse
    from phonenumbers import is_possible_number_with_reason as reason_of

    try:
        parsed = parse(f"+{all_digits}")
    except NumberParseException as error:
        unknown = error.error_type == NumberParseException.INVALID_COUNTRY_CODE
        return "no country code begins like this" if unknown else "it is too short"
    # Check the number that will be sent, not the one that the library corrected.
    rest = all_digits.removeprefix(str(parsed.country_code))
    zeros = len(rest) - len(rest.lstrip("0"))
    sent = PhoneNumber(parsed.country_code, int(rest), None, zeros > 0, zeros or None)
    where = f"in the country with the code {parsed.country_code}"
    if digits(f"+{all_digits}") != all_digits:
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
    """Sender or recipient of an incoming message in the form of ``src`` and ``dst``.

    A phone number becomes its digits. It consists of digits and separators, has a plus or at least
    7 digits, and at most 15: ``'+1 (555) 123-4567' -> '15551234567'``,
    ``'tel:+15551234567' -> '15551234567'``. Other addresses are not changed: short codes
    (``'40404'``), sender ids (``'INFO4242'``), addresses of other channels
    (``'whatsapp:+15551234567'``, ``'messenger:123'``, ``'jane@example.com'``), ids of more than
    15 digits, blanks. None becomes ``''``. Digits that begin with a country code and are long
    enough are an :class:`InternationalNumber`: an answer goes to that number, whatever the region.

    Raises:
        TypeError: it is not text.
    """
    if address is None:
        return ""
    if not isinstance(address, str):
        raise TypeError(f"an address must be text, not {type(address).__name__}")
    if len(address) > _LONGEST_WRITTEN:
        return address
    bare = _bare(address)
    if not _WRITTEN.fullmatch(bare):
        return address
    all_digits = _ascii_digits(bare)
    international = "+" in bare or "\uff0b" in bare
    if international or _double_zero(all_digits):
        all_digits = re.sub(r"\A(00)+", "", all_digits)  # no country code begins with 0
    is_number = (1 if international else _SHORT.stop) <= len(all_digits) <= _LONGEST
    return known_number(all_digits) if is_number else address


def known_number(address: str) -> str:
    """A stored address of an incoming message; a number is international again."""
    if re.fullmatch("[1-9][0-9]{6,14}", address) and not _country_problem(address):
        return InternationalNumber(address)
    return address


def destination(address: str, region: str | None = None) -> tuple[str, str | None]:
    """The digits of an SMS's destination, and why no SMS can be sent there; None: one can.

    Phone numbers and short codes in any notation become their :func:`digits`:
    ``'+1 (555) 123-4567 ext. 8'``, ``'tel:+15551234567'``, ``'+1 800 FLOWERS'``, ``'40404'``. Of
    other texts the digits would be another number, so ``'INFO4242'``, ``'whatsapp:+15551234567'``
    and ``'jane1984@example.com'`` give ``''`` and the reason.
    """
    if isinstance(address, InternationalNumber):
        return str(address), None
    if len(address) > _LONGEST_WRITTEN:
        return "", f"the destination has {len(address)} characters, too many for a number"
    bare = _bare(address)
    if not bare:
        return "", "the destination number has no digits"
    parts = [part for part in re.split("[,;]", bare) if len(_ascii_digits(part)) >= _SHORT.stop]
    if len(parts) > 1:
        return "", "the destination is several numbers (no number has more than 15 digits)"
    if _ascii_digits(bare) and _is_written_number(bare.replace(",", " ")):
        return digits(bare, region) or _ascii_digits(bare), None
    return "", (
        f"the destination {mask(address)} is neither a phone number nor a short code, so no SMS "
        "can go there (whether an incoming message can be answered, its .replyable says)"
    )


def destination_digits(number: str, region: str | None = None) -> str:
    """The digits of :func:`destination`.

    Raises:
        TypeError: it is not text.
        ValueError: it is no phone number and no short code.
    """
    if not isinstance(number, str):
        raise TypeError(f"a number must be text, not {type(number).__name__}")
    found, problem = destination(number, region)
    if problem or not found:
        raise ValueError(problem or "the number has no digits")
    return found


def known_countries() -> frozenset[str]:
    """ISO 3166 codes of the countries that have phone numbers."""
    import phonenumbers

    return frozenset(phonenumbers.SUPPORTED_REGIONS)


def country_of(number: str) -> str | None:
    """ISO 3166 code of the country of a number; None: it is a short code, or not a valid number.

    Args:
        number: Its digits, with the country code.
    """
    import phonenumbers

    try:
        parsed = phonenumbers.parse(f"+{number}")
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(parsed):
        return None
    country: str | None = phonenumbers.region_code_for_number(parsed)
    return country


def replyable(address: str, region: str | None = None) -> bool:
    """Can an SMS be sent to this ``src`` of an incoming message?

    True for a phone number (7 to 15 digits) and for a short code (3 to 6 digits), which accepts
    answers in its country. False for other addresses of :func:`incoming_address`, and for digits
    that ``send()`` refuses, such as a national number without its region.

    Args:
        region: As in :func:`digits`.
    """
    all_digits, problem = destination(address, region)
    if problem is not None or not _SHORT.start <= len(all_digits) <= _LONGEST:
        return False
    return resolved(address, region)[1] is None


def searched_address(address: str, region: str | None = None) -> str:
    """The form in which the ledger's index of numbers stores an address."""
    return destination(address, region)[0] or incoming_address(address)


def recipient(dst: str) -> str:
    """A message's ``dst`` for providers that require a plus: ``'+15551234567'``.

    A short code gets none, since with a plus it would be a number in another country.
    """
    return dst if len(dst) in _SHORT else f"+{dst}"


def _bare(address: str) -> str:
    return _LABEL.sub("", _INVISIBLE.sub("", address).strip()).strip()


def _ascii_digits(text: str) -> str:
    """The digits of a text, of any script, in ASCII."""
    if text.isascii():
        return re.sub("[^0-9]+", "", text)
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
    """The kind of a sender; None: there is none, or no network accepts it.

    A sender with a letter is alphanumeric (:func:`check_alphanumeric` validates it), 3 to 6 digits
    without a plus are a short code, 7 to 15 digits a number.
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
    """Raise an error if an alphanumeric sender id is invalid.

    The rule is 1 to 11 ASCII letters and digits, with at least one letter.

    Args:
        also: Other characters that the provider accepts, e.g. ``" -"``.

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
    """A sender in the form of a provider: an id or a short code unchanged, a number as digits.

    Args:
        plus: Put a plus before a number.
        also: As in :func:`check_alphanumeric`.

    Raises:
        UnsupportedError, RequestError: it is not a valid sender; the text says why.
    """
    kind = sender_kind(src)
    if kind == "alphanumeric":
        check_alphanumeric(src, also)
        return src
    if kind is None and not src.isascii():
        src = _with_ascii_digits(src)
        kind = sender_kind(src)
    if kind is None:
        raise exc.RequestError(
            f"the sender is neither a number (7 to {_LONGEST} digits) nor a short code "
            f"(3 to 6 digits without a plus) nor an id of letters and digits (1 to {_LONGEST_ID})"
        )
    return ("+" if plus and kind == "number" else "") + digits(src)
