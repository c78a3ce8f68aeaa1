"""The base class of providers with accounts, secrets and webhooks: all bundled services.

A provider is one file: ``submit`` makes the call, ``make_receiver_blueprint`` returns the views of
the webhooks, and tables at class level map the provider's codes and statuses.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote, unquote_plus

from smsqueue import exc
from smsqueue.logs import get_logger
from smsqueue.message.masking import word
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.numbers import sender_kind
from smsqueue.message.statuses import MessageStatus
from smsqueue.providers.authentic import Secrets, seal, secrets_of, unseal
from smsqueue.providers.base.event_validation import ID, validate_event
from smsqueue.providers.base.replay_protection import record_once
from smsqueue.providers.base.webhook_errors import Malformed
from smsqueue.providers.capabilities import Can
from smsqueue.providers.http import HttpProvider
from smsqueue.settings import Settings, SettingsError

__all__ = ["AccountProvider", "Balance", "beside", "form_value", "merged", "table"]

_log = get_logger(__name__)
_Event = TypeVar("_Event", bound=IncomingMessage | MessageStatus)

#: Most unknown statuses that one provider logs.
_MAX_LOGGED_STATUSES = 100


@dataclass(frozen=True)
class Balance:
    """The money left on an account."""

    amount: Decimal
    #: ISO 4217, if the provider names it.
    currency: str | None = None


class AccountProvider(HttpProvider):
    """Base class.

    Args:
        url: Base URL of the provider's API; ``base_url`` by default.
        sender: Number or sender id of messages that name none.
        ignore: Capabilities whose lack is no error: what a message asks of them is left out.
        codes: More error codes, mapped to subclasses of ``ProviderError``.
        secret: Authenticates webhooks; several while they rotate: all verify, the first signs.
        insecure: Accept webhooks without authentication. Anybody who learns their URL can then
            write messages and reports: the prefix is the only secret.
        statuses: More statuses of reports, mapped to subclasses of ``MessageStatus``.
        config: What :class:`~smsqueue.providers.http.HttpProvider` takes.
    """

    #: Default base URL of the API.
    base_url: ClassVar[str] = ""
    capabilities: frozenset[Can] = frozenset()
    #: Names of the arguments that user and password of a settings URL stand for.
    url_arguments: ClassVar[tuple[str, str]] = ("", "")
    #: Report classes by the provider's statuses. An unknown status is kept raw and logged once.
    statuses: ClassVar[Mapping[str, type[MessageStatus]]] = {}
    #: Form of the provider's message ids: their characters and a length are enough, as a provider
    #: may change the rest.
    ids: ClassVar[re.Pattern[str]] = ID
    #: Can the provider authenticate its webhooks? If not, the secret URL prefix is the only
    #: protection.
    authenticates: ClassVar[bool] = True

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        url: str | None = None,
        sender: str | None = None,
        ignore: Collection[str] = (),
        codes: Mapping[str | int, type[exc.ProviderError]] | None = None,
        secret: Secrets = None,
        insecure: bool = False,
        statuses: Mapping[str, type[MessageStatus]] | None = None,
        **config: Any,
    ) -> None:
        super().__init__(gateway, name, url=url or self.base_url, **config)
        self.sender = sender
        self.ignore = frozenset(map(Can, ignore))
        self.insecure = insecure
        self.statuses = _extend_table("statuses", self.statuses, statuses, MessageStatus)  # type: ignore[misc]
        self.codes = _extend_table("codes", self.codes, codes, exc.ProviderError)  # type: ignore[misc]
        self._secrets = secrets_of(secret)
        self._logged_statuses: set[str] = set()
        #: Secrets that sign the references in callback URLs; the first signs, all verify. For
        #: providers whose signature does not cover the URL.
        self._seals: tuple[str, ...] = ()

    @property
    def reports(self) -> bool:
        return Can.REPORTS in self.capabilities

    @property
    def settings(self) -> Settings:
        """The gateway's settings."""
        settings: Settings = self.gateway.settings  # type: ignore[attr-defined]
        return settings

    # --- Sending -----------------------------------------------------------------------------

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        """Check the capabilities that the message needs, then :meth:`submit` it."""
        if sender_kind(self.sender_of(message)) == "alphanumeric":
            self._require_capability(Can.ALPHANUMERIC, "a sender id of letters")
        if message.provider_options.expires is not None:
            self._require_capability(Can.VALIDITY, "the expires option")
        self.submit(message)
        ids = message.msgid if isinstance(message.msgid, list) else [message.msgid]
        if not ids or not all(msgid is None or isinstance(msgid, str | int) for msgid in ids):
            raise exc.ServerError(
                "the provider answered with a message id that is neither text nor a number",
                provider=self.name,
                ambiguous=True,
            )
        return message

    def submit(self, message: OutgoingMessage) -> None:
        """Make the call; set the message's ``msgid`` and ``meta``. To be overridden."""
        raise NotImplementedError

    def _require_capability(self, capability: Can, feature: str) -> None:
        if capability not in self.capabilities and capability not in self.ignore:
            raise exc.UnsupportedError(
                f"{type(self).__name__} does not support {feature} ({capability}); leave it out, "
                f"or add the provider with ignore=[{str(capability)!r}]",
                provider=self.name,
            )

    def sender_of(self, message: OutgoingMessage) -> str | None:
        """The number or sender id of a message."""
        return message.provider_options.senderId or message.src or self.sender

    def need_sender(self, message: OutgoingMessage) -> str:
        """The number or sender id of a message.

        Raises:
            UnsupportedError: The message names no sender, and this provider needs one.
        """
        sender = self.sender_of(message)
        if not sender:
            raise exc.UnsupportedError(
                f"{type(self).__name__} needs a sender: set one on the message, or add the "
                "provider with sender=...",
                provider=self.name,
            )
        return sender

    def validity_of(self, message: OutgoingMessage, least: float, most: float) -> int | None:
        """A message's validity in whole seconds, limited to the range that the provider accepts."""
        minutes = message.provider_options.expires
        if minutes is None or Can.VALIDITY not in self.capabilities:
            return None
        return int(min(max(minutes * 60, least), most))

    def balance(self) -> Balance:
        """The money left on the account.

        Raises:
            UnsupportedError: the provider has no such query.
        """
        raise exc.UnsupportedError("this provider does not tell its balance", provider=self.name)

    # --- Webhook URLs ------------------------------------------------------------------------

    def callback_url(self, path: str, message: OutgoingMessage | None = None) -> str | None:
        """The public URL of one of our webhooks, with the message's reference in its query.

        It is the same in all repetitions with one ``dedup_key``. None if SMSQUEUE_PUBLIC_URL is not
        set, or the provider has no prefix (its own, or SMSQUEUE_RECEIVER_PREFIX): then the URL in
        the provider's own console applies.
        """
        settings, gateway = self.settings, self.gateway
        # A gateway that an application's tests made may lack this method.
        prefixes_of = getattr(gateway, "webhook_prefixes", None)
        prefixes: tuple[str, ...] = (
            prefixes_of(self.name) if prefixes_of else settings.receiver_prefix
        )
        if not (settings.public_url and prefixes):
            return None
        prefix = prefixes[0].strip("/")
        url = f"{settings.public_url.rstrip('/')}/{prefix}/{self.name}/{path}"
        reference = (message.dedup_key or message.reference) if message is not None else None
        if not reference:
            return url
        sealed = seal(reference, self._seals[0], self.name) if self._seals else reference
        return f"{url}?ref={quote(sealed)}"

    def seen_url(self) -> str:
        """The URL of the running request as the provider called it: many sign it.

        Behind a TLS proxy only SMSQUEUE_PUBLIC_URL has the scheme and host that were called.
        """
        from flask import request

        query = request.query_string.decode("latin-1")
        if not self.settings.public_url:
            return f"{request.base_url}{'?' if query else ''}{query}"
        path = quote(request.path, safe="/~!$&'()*+,;=:@%")
        return f"{self.settings.public_url.rstrip('/')}{path}{'?' if query else ''}{query}"

    def seen_reference(self) -> str | None:
        """The reference in the URL of the running request, as :meth:`callback_url` wrote it.

        None if it is absent or its seal does not verify, for example because the message was sent
        before the key of the seals changed. The report is then matched by the provider's id.
        """
        from flask import request

        reference = request.args.get("ref")
        if reference and self._seals:
            return unseal(reference, self._seals, self.name)
        return reference

    # --- Receiving ---------------------------------------------------------------------------

    def need_secret(self, *others: object, name: str = "secret") -> None:
        """Refuse to make a receiver that could not detect forged webhooks.

        Args:
            others: Other values that could authenticate webhooks.

        Raises:
            SettingsError: No secret is set, and ``insecure`` is not set either.
        """
        if not (self._secrets or any(others) or self.insecure):
            raise SettingsError(
                f"the provider {self.name!r} ({type(self).__name__}) has no {name}: anybody could "
                f"forge its webhooks. Set {name}=..., or insecure=True if the prefix is to be the "
                "only secret"
            )

    def unsigned(self) -> str:
        """Why anybody who knows the URL of the webhooks can forge them; "" if nobody can."""
        if self.insecure:
            return "insecure=True accepts webhooks from anybody who knows their address"
        if not (self.authenticates or self._secrets):
            return "its webhooks are not signed: anybody who knows their address can forge them"
        return ""

    def report(
        self, status: str, msgid: Any, *, code: Any = None, kind: type[MessageStatus] | None = None
    ) -> MessageStatus:
        """Make a delivery report, of the class that ``statuses`` maps the status to.

        Args:
            kind: The class, if it depends on more than the status.
        """
        if not isinstance(status, str):
            raise Malformed(f"status is a {type(status).__name__}")
        mapped = kind or self.statuses.get(status)
        if mapped is None:
            self._log_unknown_status(word(status))
        report = (mapped or MessageStatus)(msgid)
        report.status = status
        report.status_code = code
        return report

    def _log_unknown_status(self, status: str) -> None:
        known = self._logged_statuses
        if status not in known and len(known) < _MAX_LOGGED_STATUSES:
            known.add(status)
            extra = {"provider": self.name, "code": status}
            _log.warning("%s reports an unknown status: %s", self.name, status, extra=extra)

    def validated(self, event: _Event) -> _Event:
        """The event; Malformed if a field is invalid, see :func:`validate_event`."""
        return validate_event(event, self.ids)

    def _receive_message(self, message: IncomingMessage) -> IncomingMessage:
        message.provider = self.name
        gateway: Any = self.gateway
        return record_once(gateway, self.validated(message), super()._receive_message)

    def _receive_status(self, status: MessageStatus) -> MessageStatus:
        status.provider = self.name
        gateway: Any = self.gateway
        return record_once(gateway, self.validated(status), super()._receive_status)


def beside(params: Mapping[str, Any], *ours: str) -> dict[str, Any]:
    """A message's parameters, without those that would replace fields of ours: the recipient, the
    URLs of reports and the reference.

    A name is left out in every spelling: ``To``, ``to[]``, ``to.0``, ``%74o``,
    ``status_callback`` for ``StatusCallback``. APIs differ in which they accept.

    Args:
        ours: The API's names of these fields.
    """
    reserved = {_normalize(name) for name in ours}
    return {name: value for name, value in params.items() if _normalize(name) not in reserved}


def _normalize(name: Any) -> str:
    """The name of a parameter, or of the first part of a nested one, in one spelling."""
    text = str(name)
    for _ in range(3):
        text = unquote_plus(text)
    text = unicodedata.normalize("NFKC", text).casefold()
    parts = [re.sub("[^a-z0-9]", "", part) for part in re.split(r"[][.:/]", text)]
    return next(filter(None, parts), "")


def form_value(value: Any) -> str:
    """The text of a parameter in a form."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def merged(ours: dict[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Our fields updated with parameters, recursively."""
    both = [n for n in ours if isinstance(ours[n], dict) and isinstance(params.get(n), dict)]
    return ours | dict(params) | {n: merged(ours[n], params[n]) for n in both}


def table(*rows: tuple[type[Any], Iterable[Any]]) -> dict[Any, type[Any]]:
    """A table of codes: ``table((exc.AuthError, [1, 2]), (exc.CreditError, [3]))``."""
    return {code: kind for kind, codes in rows for code in codes}


def _extend_table(
    name: str, ours: Mapping[Any, type[Any]], more: Mapping[Any, Any] | None, base: type[Any]
) -> dict[Any, type[Any]]:
    """A table of codes or statuses, extended with a user's entries.

    Keys get the type of ours: ``"30007"`` becomes 30007 where all of ours are numbers.

    Raises:
        TypeError: a value is no subclass of ``base``.
    """
    extended, key_is_number = dict(ours), {isinstance(key, int) for key in ours}
    for key, kind in (more or {}).items():
        if not (isinstance(kind, type) and issubclass(kind, base)):
            raise TypeError(
                f"{name} has a {type(kind).__name__} in it: use subclasses of {base.__name__}"
            )
        if key_is_number == {True} and isinstance(key, str) and key.isdecimal():
            extended[int(key)] = kind
        else:
            extended[str(key) if key_is_number == {False} else key] = kind
    return extended
