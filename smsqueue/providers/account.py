"""The base of the providers that people have accounts with.

A provider is one file: ``submit`` makes the call, ``make_receiver_blueprint`` takes the webhooks,
tables at class level say what the provider's codes and statuses mean.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar
from urllib.parse import quote

from smsqueue import exc
from smsqueue.messages import IncomingMessage, OutgoingMessage
from smsqueue.providers.authentic import Secrets, seal, secrets_of, unseal
from smsqueue.providers.capabilities import Can
from smsqueue.providers.checked import Malformed, checked
from smsqueue.providers.http import HttpProvider
from smsqueue.senders import sender_kind
from smsqueue.settings import Settings, SettingsError
from smsqueue.statuses import MessageStatus

__all__ = ["AccountProvider", "Balance", "form_value", "merged", "table"]

_log = logging.getLogger(__name__)
#: A status may be logged if it is a word like "NO_ROUTE": no text, no number.
_WORD = re.compile(r"(?!.*\d{5})[A-Za-z0-9_.-]{1,40}")


@dataclass(frozen=True)
class Balance:
    """What is left on an account."""

    amount: Decimal
    #: ISO 4217, if the provider names it.
    currency: str | None = None


class AccountProvider(HttpProvider):
    """Base class.

    Args:
        url: Where the provider's API is; its own address if not given.
        sender: Number or sender id of messages that name none.
        secret: What webhooks are authenticated with; several while they rotate: all verify,
            the first one signs.
        insecure: Take webhooks without any authentication. Then whoever learns the address can
            write messages and reports: the prefix is the only secret.
        ignore: Capabilities whose lack is no error: what a message asks of them is left out.
        codes, statuses: Error codes, and words of reports, that you know more of.
        config: As :class:`~smsqueue.providers.http.HttpProvider` has it.
    """

    #: The API's address.
    base_url: ClassVar[str] = ""
    capabilities: frozenset[Can] = frozenset()
    #: What the provider's statuses mean. One that is not in here is kept raw and logged once.
    statuses: ClassVar[Mapping[str, type[MessageStatus]]] = {}
    #: Names of the arguments that user and password of a settings URL stand for.
    url_arguments: ClassVar[tuple[str, str]] = ("", "")
    #: Are the webhooks authenticated at all? If the provider cannot, its secret path is it.
    authenticates: ClassVar[bool] = True

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        url: str | None = None,
        sender: str | None = None,
        secret: Secrets = None,
        insecure: bool = False,
        ignore: Collection[str] = (),
        codes: Mapping[str | int, type[exc.ProviderError]] | None = None,
        statuses: Mapping[str, type[MessageStatus]] | None = None,
        **config: Any,
    ) -> None:
        super().__init__(gateway, name, url=url or self.base_url, **config)
        self.sender = sender
        self.insecure = insecure
        self.ignore = frozenset(map(Can, ignore))
        self.codes = {**self.codes, **(codes or {})}  # type: ignore[misc]
        self.statuses = {**self.statuses, **(statuses or {})}  # type: ignore[misc]
        self._secrets = secrets_of(secret)
        self._surprises: set[str] = set()
        #: What only we and the provider know, if its signature does not cover the addresses of
        #: webhooks: seals the references in them. Several while it rotates: the first one seals.
        self._seals: tuple[str, ...] = ()

    @property
    def settings(self) -> Settings:
        """The gateway's settings."""
        settings: Settings = self.gateway.settings  # type: ignore[attr-defined]
        return settings

    @property
    def reports(self) -> bool:
        return Can.REPORTS in self.capabilities

    # --- sending -------------------------------------------------------------------------------

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        """Check what the message asks for, then :meth:`submit` it."""
        if sender_kind(self.sender_of(message)) == "alphanumeric":
            self._need(Can.ALPHANUMERIC, "a sender id of letters")
        if message.provider_options.expires is not None:
            self._need(Can.VALIDITY, "the expires option")
        self.submit(message)
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

    def callback_url(self, path: str, message: OutgoingMessage | None = None) -> str | None:
        """The public address of a webhook of ours, with the message's reference in its query.

        It is the same in all repetitions with one ``dedup_key``. None if SMSQUEUE_PUBLIC_URL or
        SMSQUEUE_RECEIVER_PREFIX is not set: then the address in the provider's own console counts.
        """
        s = self.settings
        if not (s.public_url and s.receiver_prefix):
            return None
        prefix = s.receiver_prefix[0].strip("/")
        url = f"{s.public_url.rstrip('/')}/{prefix}/{self.name}/{path}"
        reference = (message.dedup_key or message.reference) if message is not None else None
        if not reference:
            return url
        sealed = seal(reference, self._seals[0], self.name) if self._seals else reference
        return f"{url}?ref={quote(sealed)}"

    def balance(self) -> Balance:
        """What is left on the account.

        Raises:
            UnsupportedError: the provider does not say.
        """
        raise exc.UnsupportedError("this provider does not tell its balance", provider=self.name)

    # --- receiving -----------------------------------------------------------------------------

    def need_secret(self, *others: object, name: str = "secret") -> None:
        """Refuse to make a receiver that could not tell a forged webhook.

        Args:
            others: What else webhooks could be authenticated with.

        Raises:
            SettingsError: there is nothing, and ``insecure=True`` was not said.
        """
        if not (self._secrets or any(others) or self.insecure):
            raise SettingsError(
                f"the provider {self.name!r} ({type(self).__name__}) has no {name}: its webhooks "
                f"could be anybody's. Give it {name}=..., or insecure=True if the prefix is to be "
                "the only secret"
            )

    def seen_url(self) -> str:
        """The address of the running request, as the provider called it: many sign it.

        Behind a TLS proxy the request itself does not tell it; SMSQUEUE_PUBLIC_URL does.
        """
        from flask import request

        query = request.query_string.decode("latin-1")
        if not self.settings.public_url:
            return f"{request.base_url}{'?' if query else ''}{query}"
        path = quote(request.path, safe="/~!$&'()*+,;=:@%")
        return f"{self.settings.public_url.rstrip('/')}{path}{'?' if query else ''}{query}"

    def seen_reference(self) -> str | None:
        """The reference in the running request's address, if :meth:`callback_url` put it there.

        Else None: what is reported is genuine all the same, and counts by the provider's own id.
        So it is with messages that were sent before the key of the seals changed.
        """
        from flask import request

        given = request.args.get("ref")
        return unseal(given, self._seals, self.name) if given and self._seals else given

    def report(
        self, status: str, msgid: Any, *, code: Any = None, kind: type[MessageStatus] | None = None
    ) -> MessageStatus:
        """A delivery report, by the table of statuses.

        Args:
            kind: What it means, if the table alone does not tell.
        """
        if not isinstance(status, str):
            raise Malformed(f"status is a {type(status).__name__}")
        found = kind or self.statuses.get(status)
        shown = status if _WORD.fullmatch(status) else "(not a word)"
        if found is None and shown not in self._surprises and len(self._surprises) < 100:
            self._surprises.add(shown)
            _log.warning("%s reports a status that is not known: %s", self.name, shown)
        made = (found or MessageStatus)(msgid)
        made.status = status
        made.status_code = code
        return made

    def _receive_message(self, message: IncomingMessage) -> IncomingMessage:
        return super()._receive_message(checked(message))

    def _receive_status(self, status: MessageStatus) -> MessageStatus:
        return super()._receive_status(checked(status))


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
