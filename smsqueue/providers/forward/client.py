"""The side without provider accounts: it sends through the server, and hears from it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.providers.forward.formats import format_named
from smsqueue.providers.forward.guard import Guard, signer_of
from smsqueue.providers.forward.hops import CONTEXT, Hops
from smsqueue.providers.forward.link import Link
from smsqueue.providers.forward.parts import Event, Passed
from smsqueue.providers.forward.receiving import client_views
from smsqueue.providers.used import record

if TYPE_CHECKING:
    from flask import Blueprint

__all__ = ["ForwardClientProvider"]


class ForwardClientProvider(Link):
    """Sends through another application's :class:`ForwardServerProvider`, and hears from it.

    Args:
        server_url: Where the server's provider receives; may hold user and password of HTTP
            Basic, percent-encoded.
        secret: Signs requests and verifies the server's; a list while it is exchanged.
        users: Passwords by user that the server may show instead of a signature.
        insecure: Let everybody in, because something in front of the receiver checks.
        speak: ``"smsqueue"``, or ``"smsframework"`` for a server that runs that.
        window: Seconds that a signed request is good for.
        dedup_window: Seconds for which a message whose answer was lost is repeated: the server
            knows what it took. Shorter than its retention. Without effect on one that runs
            smsframework, which knows nothing.
        max_hops: Gateways that an incoming message or a report may have passed.
        origin: A name of this application, to find circles; made by itself if not given.
        config: ``connect_timeout``, ``read_timeout``, ``pool_size`` as
            :class:`~smsqueue.providers.http.HttpProvider` has them.

    Raises:
        SettingsError: an option cannot be used.
    """

    #: The argument that an address from the environment is.
    url_name: ClassVar[str] = "server_url"

    def __init__(
        self,
        gateway: Any,
        name: str,
        server_url: str,
        *,
        secret: str | Sequence[str] | None = None,
        users: Mapping[str, str] | None = None,
        insecure: bool = False,
        speak: str = "smsqueue",
        window: float = 300.0,
        dedup_window: float = 3600.0,
        max_hops: int = 4,
        origin: str | None = None,
        **config: Any,
    ) -> None:
        signer = signer_of(secret, window)
        super().__init__(
            gateway,
            name,
            url=server_url,
            side="server",
            signer=signer,
            format=format_named(speak),
            **config,
        )
        self.dedup_window = dedup_window if self.format.knows_repetitions else 0.0
        self.hops = Hops(gateway, origin, max_hops)
        self.guard = Guard(name, signer, users, insecure)

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        """Pass a message to the server; ``msgid`` is then the server's id of it.

        Raises:
            ProviderError: what the server or its provider raised, by class.
        """
        id, _, attempt = (message.reference or "").rpartition(".")
        known = id and attempt.isdigit()
        passed = Passed(
            message,
            # Without a ledger an id for this one call, so that its repetition is known.
            id=id if known else secrets.token_hex(10),
            attempt=int(attempt) if known else 1,
            hops=self.hops.onward(message.provider_options.context),
            repeated=message.repeated,
        )
        document = self.format.dump_outgoing(passed)
        self.ask("im", document, lambda told: self.format.load_taken(told, message))
        return message

    def make_receiver_blueprint(self) -> Blueprint:
        """The receiver that the server posts to; SettingsError if nothing protects it."""
        self.guard.require()
        return client_views(self)

    def hear(self, event: Event) -> None:
        """Report what the server passed on, under this provider's name.

        Raises:
            RequestError: it goes round in a circle.
        """
        self.hops.check(event.hops)
        thing = event.thing
        told = {"provider": thing.provider, "msgid": thing.msgid, "hops": list(event.hops)}
        thing.meta = {**(thing.meta or {}), CONTEXT: told}
        if event.id is not None:
            thing.msgid = event.id
        gateway: Any = self.gateway
        thing.provider = self.name
        if isinstance(thing, IncomingMessage):
            record(gateway, thing, self._receive_message)
            return
        thing.reference = self._reference(thing.reference, thing.msgid)
        record(gateway, thing, self._receive_status)

    def _reference(self, reference: str | None, msgid: Any) -> str | None:
        """The reference that a report came with, unless the ledger knows the server's id.

        The server names the attempt that it took first. If that one's answer was lost and a
        later one was answered, the server's id stands for the later one.
        """
        gateway: Any = self.gateway
        if reference is None or gateway.eager:
            return reference
        try:
            record = gateway.lookup(reference.rpartition(".")[0])
        except LookupError:
            return reference
        return None if msgid is not None and record.msgid == msgid else reference
