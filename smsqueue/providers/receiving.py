"""What a provider needs to receive: addresses for its webhooks, and who may call them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote

from smsqueue.logs import get_logger
from smsqueue.message.masking import word
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.statuses import MessageStatus
from smsqueue.providers.authentic import Secrets, seal, secrets_of, unseal
from smsqueue.providers.checked import ID, Malformed, checked
from smsqueue.providers.http import HttpProvider
from smsqueue.providers.used import record
from smsqueue.settings import Settings, SettingsError

__all__ = ["Receiving", "extended"]

_log = get_logger(__name__)
_Event = TypeVar("_Event", bound=IncomingMessage | MessageStatus)


class Receiving(HttpProvider):
    """The receiving half of :class:`~smsqueue.providers.account.AccountProvider`.

    Args:
        secret: What webhooks are authenticated with; several while they rotate: all verify,
            the first one signs.
        insecure: Take webhooks without any authentication. Then whoever learns the address can
            write messages and reports: the prefix is the only secret.
        statuses: Words of reports that you know more of.
        config: As :class:`~smsqueue.providers.http.HttpProvider` has it.
    """

    #: What the provider's statuses mean. One that is not in here is kept raw and logged once.
    statuses: ClassVar[Mapping[str, type[MessageStatus]]] = {}
    #: How the provider's message ids look; of most the characters and a length, not more, as a
    #: provider may change the rest.
    ids: ClassVar[re.Pattern[str]] = ID
    #: Are the webhooks authenticated at all? If the provider cannot, its secret path is it.
    authenticates: ClassVar[bool] = True

    def __init__(
        self,
        gateway: Any,
        name: str,
        *,
        secret: Secrets = None,
        insecure: bool = False,
        statuses: Mapping[str, type[MessageStatus]] | None = None,
        **config: Any,
    ) -> None:
        super().__init__(gateway, name, **config)
        self.insecure = insecure
        self.statuses = extended("statuses", self.statuses, statuses, MessageStatus)  # type: ignore[misc]
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

    def callback_url(self, path: str, message: OutgoingMessage | None = None) -> str | None:
        """The public address of a webhook of ours, with the message's reference in its query.

        It is the same in all repetitions with one ``dedup_key``. None if SMSQUEUE_PUBLIC_URL is not
        set, or the provider has no prefix (its own, else SMSQUEUE_RECEIVER_PREFIX): then the
        address in the provider's own console counts.
        """
        s, gateway = self.settings, self.gateway
        # A gateway of an application's own tests may know no prefixes of providers.
        known = getattr(gateway, "webhook_prefixes", None)
        prefixes: tuple[str, ...] = known(self.name) if known else s.receiver_prefix
        if not (s.public_url and prefixes):
            return None
        prefix = prefixes[0].strip("/")
        url = f"{s.public_url.rstrip('/')}/{prefix}/{self.name}/{path}"
        reference = (message.dedup_key or message.reference) if message is not None else None
        if not reference:
            return url
        sealed = seal(reference, self._seals[0], self.name) if self._seals else reference
        return f"{url}?ref={quote(sealed)}"

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

    def unsigned(self) -> str:
        """Why anybody who knows the address of the webhooks can forge them; "": nobody can."""
        if self.insecure:
            return "insecure=True takes webhooks of anybody who knows their address"
        if not (self.authenticates or self._secrets):
            return "its webhooks are not signed: anybody who knows their address can forge them"
        return ""

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
        shown = word(status)
        if found is None and shown not in self._surprises and len(self._surprises) < 100:
            self._surprises.add(shown)
            _log.warning("%s reports a status that is not known: %s", self.name, shown)
        made = (found or MessageStatus)(msgid)
        made.status = status
        made.status_code = code
        return made

    def validated(self, event: _Event) -> _Event:
        """The event; Malformed if the provider could not have meant it so."""
        return checked(event, self.ids)

    def _receive_message(self, message: IncomingMessage) -> IncomingMessage:
        message.provider = self.name
        gateway: Any = self.gateway
        return record(gateway, self.validated(message), super()._receive_message)

    def _receive_status(self, status: MessageStatus) -> MessageStatus:
        status.provider = self.name
        gateway: Any = self.gateway
        return record(gateway, self.validated(status), super()._receive_status)


def extended(
    name: str, ours: Mapping[Any, type[Any]], given: Mapping[Any, Any] | None, base: type[Any]
) -> dict[Any, type[Any]]:
    """A table of codes or statuses with what the user knows more of.

    A key is written as ours are: ``"30007"`` where all of ours are numbers is 30007.

    Raises:
        TypeError: a value is no subclass of ``base``.
    """
    both, numbers = dict(ours), {isinstance(key, int) for key in ours}
    for key, kind in (given or {}).items():
        if not (isinstance(kind, type) and issubclass(kind, base)):
            raise TypeError(
                f"{name} has {type(kind).__name__} in it: give subclasses of {base.__name__}"
            )
        if numbers == {True} and isinstance(key, str) and key.isdecimal():
            both[int(key)] = kind
        else:
            both[str(key) if numbers == {False} else key] = kind
    return both
