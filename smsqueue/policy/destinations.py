"""Which numbers a gateway may send to: countries, and the numbers of a staging system."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from smsqueue import exc
from smsqueue.message.masking import mask
from smsqueue.message.messages import OutgoingMessage
from smsqueue.message.numbers import country_of, destination_digits, known_countries

__all__ = ["Destinations"]


@dataclass(frozen=True)
class Destinations:
    """The numbers that a gateway may send to: ``Gateway(destinations=Destinations(...))``.

    A message to another number is refused by ``send()``, or redirected. This stops fraud that makes
    a form send to expensive countries, and staging systems that send to customers.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """

    #: Codes of countries (ISO 3166), such as "GB"; empty: all.
    countries: Collection[str] = ()
    #: Numbers that may always be sent to. Without ``countries``, only these may.
    numbers: Collection[str] | None = None
    #: Other messages go to this number instead of being refused.
    redirect_to: str | None = None
    _digits: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("countries", "numbers"):
            value = getattr(self, name)
            optional = name == "numbers" and value is None
            if isinstance(value, str) or not (optional or isinstance(value, Collection)):
                raise TypeError(f"Destinations: {name} must be a list, not {type(value).__name__}")
        unknown = sorted({*map(str, self.countries)} - known_countries())
        if unknown:
            raise ValueError(
                f"Destinations: {unknown[0]!r} is not the code of a country: write GB, not UK"
            )
        if not self.countries and self.numbers is None:
            raise ValueError("Destinations: give countries, numbers or both")
        digits = [self._read("numbers", number) for number in self.numbers or ()]
        if self.redirect_to is not None:
            digits.append(self._read("redirect_to", self.redirect_to))
        object.__setattr__(self, "_digits", frozenset(digits))

    def _read(self, name: str, number: object) -> str:
        try:
            digits = destination_digits(str(number))
        except ValueError as error:
            raise ValueError(f"Destinations: {name}: {mask(str(number))}: {error}") from None
        if digits.startswith("0") and len(digits) > 6:  # not a short code
            raise ValueError(
                f"Destinations: {name}: {mask(digits)}: write it with a plus and its country code"
            )
        return digits

    def allows(self, number: str) -> bool:
        """May a message go to a number (its digits, with the country code)?"""
        return number in self._digits or country_of(number) in self.countries

    def apply(self, message: OutgoingMessage) -> None:
        """Redirect a message whose destination was checked, if it may not go there.

        Raises:
            Refused: there is no number to redirect it to.
        """
        target = None if self.redirect_to is None else destination_digits(self.redirect_to)
        if self.allows(message.dst):
            if message.dst != target:
                message.redirected_from = None  # of another destination that the object had before
            return
        if target is None:
            country = country_of(message.dst)
            where = f"{mask(message.dst)} ({country})" if country else mask(message.dst)
            raise exc.Refused(f"this gateway does not send to {where}: see its destinations=")
        message.redirected_from = message.dst
        message.dst = target
        message.dst_written = (f"+{message.dst}", message.dst)
