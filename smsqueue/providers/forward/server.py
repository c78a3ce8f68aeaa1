"""The side with the provider accounts: it sends for its clients, and passes on what comes in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from smsqueue import exc
from smsqueue.message.messages import OutgoingMessage
from smsqueue.providers.base import IProvider
from smsqueue.providers.forward.formats import format_named
from smsqueue.providers.forward.guard import Guard, signer_of
from smsqueue.providers.forward.hops import Hops
from smsqueue.providers.forward.parts import Thing
from smsqueue.providers.forward.receiving import server_views
from smsqueue.providers.forward.spreading import Spreader
from smsqueue.providers.forward.taking import Taker

if TYPE_CHECKING:
    from flask import Blueprint

__all__ = ["ForwardServerProvider"]


class ForwardServerProvider(IProvider):
    """Sends for other applications, and passes incoming messages and reports on to them.

    It connects itself to the gateway's ``onReceive`` and ``onStatus``.

    Args:
        clients: Where the clients' providers receive; an address may hold user and password of
            HTTP Basic, percent-encoded.
        secret: Verifies the clients' requests and signs ours; a list while it is exchanged.
        users: Passwords by user that clients may show instead of a signature.
        insecure: Let everybody in, because something in front of the receiver checks.
        speak: ``"smsqueue"``, or ``"smsframework"`` for clients that run that; or a mapping of
            addresses to these. Clients are answered as they speak.
        params: Names of the parameters that clients may give; None: any. The router judges a
            message by what it sees, and parameters change what the provider is asked for.
        senders: Numbers and sender ids that clients may send from; None: any. A message without
            one is taken.
        window: Seconds that a signed request is good for.
        max_hops: Gateways that a message may have passed when it comes here.
        origin: A name of this application, to find circles; made by itself if not given.
        config: ``connect_timeout``, ``read_timeout``, ``pool_size`` of the calls to clients, as
            :class:`~smsqueue.providers.http.HttpProvider` has them.

    Raises:
        SettingsError: an option cannot be used.
    """

    def __init__(
        self,
        gateway: Any,
        name: str,
        clients: Iterable[str],
        *,
        secret: str | Sequence[str] | None = None,
        users: Mapping[str, str] | None = None,
        insecure: bool = False,
        speak: str | Mapping[str, str] = "smsqueue",
        params: Collection[str] | None = None,
        senders: Collection[str] | None = None,
        window: float = 300.0,
        max_hops: int = 4,
        origin: str | None = None,
        **config: Any,
    ) -> None:
        super().__init__(gateway, name)
        self.clients = [clients] if isinstance(clients, str) else list(clients)
        signer = signer_of(secret, window)
        self.guard = Guard(name, signer, users, insecure)
        hops = Hops(gateway, origin, max_hops)
        self.taker = Taker(gateway, name, hops, params, senders)
        for each in speak.values() if isinstance(speak, Mapping) else [speak]:
            format_named(each)
        self._spreader = Spreader(gateway, name, hops, signer, speak, config)
        for client in self.clients:
            self._spreader.link(client)  # so that an address that is none shows at once
        gateway.onReceive.connect(self.forward, name=f"forward:{name}")
        gateway.onStatus.connect(self.forward, name=f"forward:{name}")

    def choose_clients(self, obj: Thing) -> str | Sequence[str]:
        """Addresses of the clients that are to get an incoming message or a report.

        All of them, unless a subclass overrides this.
        """
        return self.clients

    def forward(self, obj: Thing) -> None:
        """Pass an incoming message or a report on to the clients that are chosen for it.

        Raises:
            ProviderError: not all of them took it; the others are remembered. It is of the class
                that their errors share: ConnectionError, if nobody answered.
        """
        chosen = self.choose_clients(obj)
        self._spreader.spread(obj, [chosen] if isinstance(chosen, str) else chosen)

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        """Not here: clients send through us.

        Raises:
            UnsupportedError: always; the router led a message to the wrong provider.
        """
        raise exc.UnsupportedError(
            f"{self.name!r} takes messages from clients and cannot send: make another provider "
            "the default_provider, or let the router name another one",
            provider=self.name,
        )

    def make_receiver_blueprint(self) -> Blueprint:
        """The receiver that clients post to; SettingsError if nothing protects it."""
        self.guard.require()
        return server_views(self.guard, self.taker)
