"""The base of the providers that people have accounts with.

A provider is one file: ``submit`` makes the call, ``make_receiver_blueprint`` takes the webhooks,
tables at class level say what the provider's codes and statuses mean.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar
from urllib.parse import unquote_plus

from smsqueue import exc
from smsqueue.message.messages import OutgoingMessage
from smsqueue.message.numbers import sender_kind
from smsqueue.providers.capabilities import Can
from smsqueue.providers.receiving import Receiving, extended

__all__ = ["AccountProvider", "Balance", "beside", "form_value", "merged", "table"]


@dataclass(frozen=True)
class Balance:
    """What is left on an account."""

    amount: Decimal
    #: ISO 4217, if the provider names it.
    currency: str | None = None


class AccountProvider(Receiving):
    """Base class.

    Args:
        url: Where the provider's API is; its own address if not given.
        sender: Number or sender id of messages that name none.
        ignore: Capabilities whose lack is no error: what a message asks of them is left out.
        codes: Error codes that you know more of.
        config: ``secret``, ``insecure`` and ``statuses`` as
            :class:`~smsqueue.providers.receiving.Receiving` has them, and what
            :class:`~smsqueue.providers.http.HttpProvider` takes.
    """

    #: The API's address.
    base_url: ClassVar[str] = ""
    capabilities: frozenset[Can] = frozenset()
    #: Names of the arguments that user and password of a settings URL stand for.
    url_arguments: ClassVar[tuple[str, str]] = ("", "")

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        url: str | None = None,
        sender: str | None = None,
        ignore: Collection[str] = (),
        codes: Mapping[str | int, type[exc.ProviderError]] | None = None,
        **config: Any,
    ) -> None:
        super().__init__(gateway, name, url=url or self.base_url, **config)
        self.sender = sender
        self.ignore = frozenset(map(Can, ignore))
        self.codes = extended("codes", self.codes, codes, exc.ProviderError)  # type: ignore[misc]

    @property
    def reports(self) -> bool:
        return Can.REPORTS in self.capabilities

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        """Check what the message asks for, then :meth:`submit` it."""
        if sender_kind(self.sender_of(message)) == "alphanumeric":
            self._need(Can.ALPHANUMERIC, "a sender id of letters")
        if message.provider_options.expires is not None:
            self._need(Can.VALIDITY, "the expires option")
        self.submit(message)
        ids = message.msgid if isinstance(message.msgid, list) else [message.msgid]
        if not ids or not all(each is None or isinstance(each, str | int) for each in ids):
            raise exc.ServerError(
                "the provider answered with a message id that is neither text nor a number",
                provider=self.name,
                ambiguous=True,
            )
        return message

    def submit(self, message: OutgoingMessage) -> None:
        """Make the call; set the message's ``msgid`` and ``meta``. To be overridden."""
        raise NotImplementedError

    def _need(self, can: Can, what: str) -> None:
        if can not in self.capabilities and can not in self.ignore:
            raise exc.UnsupportedError(
                f"{type(self).__name__} cannot do {what} ({can}); leave it out, or add the "
                f"provider with ignore=[{str(can)!r}]",
                provider=self.name,
            )

    def sender_of(self, message: OutgoingMessage) -> str | None:
        """The number or sender id that a message comes from."""
        return message.provider_options.senderId or message.src or self.sender

    def need_sender(self, message: OutgoingMessage) -> str:
        """The number or sender id that a message comes from.

        Raises:
            UnsupportedError: there is none, and this provider needs one.
        """
        found = self.sender_of(message)
        if not found:
            raise exc.UnsupportedError(
                f"{type(self).__name__} needs a sender: give the message one, or the provider "
                "sender=...",
                provider=self.name,
            )
        return found

    def validity_of(self, message: OutgoingMessage, least: float, most: float) -> int | None:
        """A message's validity in whole seconds, within what the provider takes."""
        minutes = message.provider_options.expires
        if minutes is None or Can.VALIDITY not in self.capabilities:
            return None
        return int(min(max(minutes * 60, least), most))

    def balance(self) -> Balance:
        """What is left on the account.

        Raises:
            UnsupportedError: the provider does not say.
        """
        raise exc.UnsupportedError("this provider does not tell its balance", provider=self.name)


def beside(params: Mapping[str, Any], *ours: str) -> dict[str, Any]:
    """A message's parameters without those that replace what is ours to say: the recipient, the
    addresses of reports and the reference.

    A name is left out in whatever spelling: ``To``, ``to[]``, ``to.0``, ``%74o``,
    ``status_callback`` for ``StatusCallback``. APIs differ in which they take for the same.

    Args:
        ours: Names that the provider's API has for these.
    """
    taken = {_bare(name) for name in ours}
    return {name: value for name, value in params.items() if _bare(name) not in taken}


def _bare(name: Any) -> str:
    """The name of a parameter, or of the first part of a nested one, however it is written."""
    text = str(name)
    for _ in range(3):
        text = unquote_plus(text)
    text = unicodedata.normalize("NFKC", text).casefold()
    parts = [re.sub("[^a-z0-9]", "", part) for part in re.split(r"[][.:/]", text)]
    return next(filter(None, parts), "")


def form_value(value: Any) -> str:
    """A parameter as a form has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def merged(ours: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters over what we have, down to the innermost."""
    both = [n for n in ours if isinstance(ours[n], dict) and isinstance(given.get(n), dict)]
    return ours | dict(given) | {n: merged(ours[n], given[n]) for n in both}


def table(*rows: tuple[type[Any], Iterable[Any]]) -> dict[Any, type[Any]]:
    """A table of codes: ``table((exc.AuthError, [1, 2]), (exc.CreditError, [3]))``."""
    return {code: kind for kind, codes in rows for code in codes}
