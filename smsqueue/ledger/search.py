"""What messages are searched by, and the pages of what was found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from smsqueue.ledger.records import Record
from smsqueue.message.messages import check_tag
from smsqueue.message.serialization import to_json

__all__ = ["ContextValue", "FoundPage", "Place", "Search"]


@dataclass(frozen=True)
class ContextValue:
    """A value in a message's ``context``."""

    #: Its name; ``order.id`` is also the value ``id`` of the object ``order``.
    name: str
    #: JSON texts that count as this value.
    texts: tuple[str, ...]

    @classmethod
    def of(cls, name: str, value: Any) -> Self:
        """A value of this type.

        Raises:
            TypeError: the name is not text, or the value is a list, a dict or no JSON.
        """
        if not isinstance(name, str):
            raise TypeError(f"a name in context must be text, not {type(name).__name__}")
        if value is not None and not isinstance(value, str | int | float):
            kind = type(value).__name__
            raise TypeError(
                f"context[{name!r}] must be text, a number, True, False or None, not {kind}: for a "
                "value in a dict write context={'order.id': 17}"
            )
        return cls(name, (to_json(value),))

    @classmethod
    def parse(cls, text: str) -> Self:
        """``"order=17"``: the text "17" as well as the number 17.

        Raises:
            ValueError: there is no name, or no equals sign.
        """
        name, is_given, value = text.partition("=")
        if not (name and is_given):
            raise ValueError("write a context value as NAME=VALUE, for example order=17")
        texts = [to_json(value)]
        try:
            scalar = json.loads(value)
            if scalar is None or isinstance(scalar, int | float):
                texts.append(to_json(scalar))
        except (ValueError, RecursionError):
            pass
        return cls(name, tuple(texts))

    @property
    def stored(self) -> tuple[str, ...]:
        """One of these texts is in the JSON of each message that has the value."""
        names = dict.fromkeys((self.name, self.name.rpartition(".")[2]))
        return tuple(f"{to_json(name)}:{text}" for name in names for text in self.texts)

    def is_in(self, context: Mapping[str, Any]) -> bool:
        """Has a message's context this value?"""
        if self.name in context and to_json(context[self.name]) in self.texts:
            return True
        value: Any = context
        for name in self.name.split("."):
            if not isinstance(value, Mapping) or name not in value:
                return False
            value = value[name]
        return to_json(value) in self.texts


@dataclass(frozen=True)
class Search:
    """What messages are searched by: those that have all that is not None.

    Raises:
        TypeError, ValueError: a criterion has the wrong type, or is not a tag.
    """

    #: The destination, as :func:`smsqueue.message.numbers.searched_address` returns it.
    address: str | None = None
    idempotency_key: str | None = None
    #: The provider's message id, of any attempt.
    msgid: str | None = None
    #: The provider that gave this id, or that of the last attempt.
    provider: str | None = None
    tag: str | None = None
    context: tuple[ContextValue, ...] = ()

    def __post_init__(self) -> None:
        for name in ("address", "idempotency_key", "msgid", "provider"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{name} must be text, not {type(value).__name__}")
        if self.tag is not None:
            check_tag(self.tag)

    def __bool__(self) -> bool:
        return self != Search() and self != Search(provider=self.provider)

    def matches(self, record: Record) -> bool:
        """Has a record what can be seen in it? The indexes of the ledger know the rest."""
        message = record.message
        return (
            self.address in (None, message.dst)
            and (self.msgid is not None or self.provider in (None, record.provider))
            and (self.tag is None or self.tag in record.tags)
            and all(value.is_in(message.provider_options.context) for value in self.context)
        )


class Place(NamedTuple):
    """How far a search has come. Its text may be given to a later command."""

    #: Number of the step, and the score and id of the last entry that was read in its index.
    step: int
    score: str
    id: str
    #: When the search began, in ms.
    began: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError: this is not the text of a place."""
        try:
            step, score, id, began = text.split("/")
            place = cls(int(step), score, id, int(began))
            float(score)
        except ValueError:
            raise ValueError(
                "not a place in a search: copy it from the message of the search that ended there"
            ) from None
        return place

    def __str__(self) -> str:
        return "/".join(map(str, self))


class FoundPage(NamedTuple):
    """What one step of a search has found."""

    records: list[Record]
    #: Messages that were read, whether they matched or not.
    number_read: int
    #: Where to go on; None: everything was read.
    place: Place | None
