"""What a message will cost, by its parts and the price of each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

from smsqueue.message.segments import Segments
from smsqueue.message.smart_encoding import Replacement

__all__ = ["Price", "Prices", "Quote", "price_for"]

Price = Decimal | int | float | str
#: Prices of one part, by the prefix of the destination: "+44", "44" or, for all others, "".
Prices = Mapping[str, Price]


@dataclass(frozen=True)
class Quote:
    """What a message takes before it is sent."""

    #: The text as it would be sent. Personal data.
    text: str = field(repr=False)
    segments: Segments
    #: What smart encoding would replace.
    replaced: tuple[Replacement, ...]
    #: The prefix whose price applies, without a plus; None: no price was given for it.
    prefix: str | None = None
    #: Price of one part, in the currency of the given prices.
    price: Decimal | None = None

    @property
    def cost(self) -> Decimal | None:
        """Price of all parts. None: there is no price, or no text (as of a picture alone)."""
        if self.price is None or not self.segments.parts:
            return None
        return self.price * self.segments.parts


def price_for(number: str, prices: Prices) -> tuple[str | None, Decimal | None]:
    """The price for a destination: that of the longest prefix.

    Args:
        number: Its digits, with the country code.

    Returns:
        Prefix and price; (None, None): no prefix matches.

    Raises:
        TypeError: they are no mapping, a prefix is not text, or a price is no number.
        ValueError: a prefix has other characters than digits, or a price is negative or infinite.
    """
    if not isinstance(prices, Mapping):
        raise TypeError(f'write prices as {{"+44": 0.04}}, not as {type(prices).__name__}')
    parsed = {_prefix(prefix): _price(prefix, price) for prefix, price in prices.items()}
    for length in range(len(number), -1, -1):
        if number[:length] in parsed:
            return number[:length], parsed[number[:length]]
    return None, None


def _prefix(prefix: object) -> str:
    if not isinstance(prefix, str):
        raise TypeError(f"the prefix of a price must be text, not {type(prefix).__name__}")
    if not re.fullmatch(r"\+?[0-9]*", prefix):
        raise ValueError(
            f'{prefix!r} is not a prefix of numbers: write "+44", or "" for all others'
        )
    return prefix.removeprefix("+")


def _price(prefix: str, price: object) -> Decimal:
    if isinstance(price, bool) or not isinstance(price, Decimal | int | float | str):
        raise TypeError(f"the price of {prefix!r} must be a number, not {type(price).__name__}")
    try:
        value = Decimal(str(price))  # 0.04 is 0.04, not the nearest binary fraction
    except InvalidOperation:
        raise ValueError(f"the price of {prefix!r} is not a number: {price!r}") from None
    if not (value.is_finite() and value >= 0):
        raise ValueError(f"the price of {prefix!r} must be 0 or more, not {price!r}")
    return value
