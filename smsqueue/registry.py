"""The gateway's providers, and which of them a message may go to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from smsqueue.compat import adapted
from smsqueue.message.messages import OutgoingMessage
from smsqueue.policy.router import Router, default_router, resolve
from smsqueue.providers.access import WebhookAccess
from smsqueue.providers.arguments import check_arguments, parameters, unknown_argument
from smsqueue.providers.base import IProvider
from smsqueue.providers.capabilities import Can
from smsqueue.settings import Settings

__all__ = ["Registry", "valid_name"]


def valid_name(name: object) -> bool:
    """Can a provider have this name? It is a part of the webhooks' addresses."""
    return isinstance(name, str) and bool(re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name))


class Registry:
    """Providers by name."""

    #: Decides who sends a message: called with it and its routing values, answers None (the
    #: default provider), a name, or a list of names in order of preference. Replace it with a
    #: function of your own; it is called for messages with routing values only.
    router: Router = staticmethod(default_router)

    settings: Settings

    def __init__(self) -> None:
        self._providers: dict[str, IProvider] = {}
        self._access: dict[str, WebhookAccess] = {}
        self._in_flight: dict[str, int] = {}
        self._default_provider: str | None = None
        #: Names of those that the environment added.
        self.from_environment: set[str] = set()

    def add_provider(
        self,
        name: str,
        Provider: type[IProvider],
        *,
        webhook_prefix: str | Sequence[str] | None = None,
        webhook_sources: str | Iterable[str] | None = None,
        max_in_flight: int | None = None,
        **config: Any,
    ) -> IProvider:
        """Register a provider; the first one becomes the default.

        Args:
            webhook_prefix: A secret prefix of its own for its webhooks, in place of
                SMSQUEUE_RECEIVER_PREFIX: who knows this one knows no other. Several while it is
                changed: all are served, the first is told to the provider.
            webhook_sources: Addresses and networks (``192.0.2.0/24``, ``2001:db8::/32``) that may
                call its webhooks; None: all. Behind a proxy, see SMSQUEUE_TRUSTED_PROXIES.
            max_in_flight: Calls of it at once in one worker process. None: SMSQUEUE_MAX_IN_FLIGHT,
                or fewer if it bears only those; SMSQUEUE_CONCURRENCY at most if it is not called
                over :mod:`smsqueue.providers.http`.
            config: What the provider's class takes.

        Raises:
            AssertionError: not a provider class, or the name cannot be used or is taken.
            TypeError, ValueError: an argument has the wrong type, or a value that cannot be used.
        """
        Provider = adapted(Provider)  # a plugin of smsframework becomes a provider of ours
        if not (isinstance(Provider, type) and issubclass(Provider, IProvider)):
            raise AssertionError("Provider does not implement IProvider")
        if not valid_name(name):
            raise AssertionError(
                f"Provider name is {name!r}: use 1 to 64 letters, digits, dots, dashes and "
                "underscores; it is a part of the webhooks' addresses"
            )
        if name in self._providers:
            raise AssertionError(f"Provider is already registered: {name!r}")
        if Provider.through_http_layer or Provider.__module__.startswith("smsqueue.providers."):
            config = check_arguments(Provider, config)
        others = (prefix for each in self._access.values() for prefix in each.prefixes)
        taken = (*self.settings.receiver_prefix, *others) if webhook_prefix else ()
        if max_in_flight is not None:
            if type(max_in_flight) is not int or max_in_flight < 1:
                raise ValueError(f"max_in_flight of provider {name!r} must be a number from 1 on")
            self._in_flight[name] = max_in_flight
        access = WebhookAccess.of(name, webhook_prefix, webhook_sources, taken)
        try:
            provider = Provider(self, name, **config)
        except TypeError as error:
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if not (unknown and unknown[1] in config.keys() - parameters(Provider).keys()):
                raise
            raise TypeError(unknown_argument(Provider, unknown[1])) from None
        self._providers[name] = provider
        self._access[name] = access
        if self._default_provider is None:
            self._default_provider = name
        return provider

    @property
    def default_provider(self) -> str | None:
        """Name of the provider for messages that nothing routes elsewhere."""
        return self._default_provider

    @default_provider.setter
    def default_provider(self, name: str) -> None:
        if name not in self._providers:
            raise AssertionError(f"Provider {name!r} is not registered")
        self._default_provider = name

    def get_provider(self, name: str) -> IProvider:
        """A provider by name; KeyError if there is none."""
        return self._providers[name]

    @property
    def providers(self) -> dict[str, IProvider]:
        """All providers by name, in the order of their registration."""
        return dict(self._providers)

    def max_in_flight(self, name: str) -> int:
        """Calls of a provider at once in one worker process."""
        provider, usual = self._providers[name], self.settings.max_in_flight
        if not provider.through_http_layer:  # each call has a thread
            usual = min(usual, self.settings.concurrency)
        usual = min(usual, getattr(provider, "most_at_once", None) or usual)
        return self._in_flight.get(name, usual)

    def webhook_access(self, name: str) -> WebhookAccess:
        """Who reaches a provider's webhooks."""
        return self._access.get(name) or WebhookAccess()

    def webhook_prefixes(self, name: str) -> tuple[str, ...]:
        """The prefixes that a provider's webhooks are served under: its own, else
        SMSQUEUE_RECEIVER_PREFIX. The first is the one to enter at the provider."""
        return self.webhook_access(name).prefixes or self.settings.receiver_prefix

    def unreported(self) -> list[str]:
        """Names of the providers that are told with each message where its report is to go, while
        SMSQUEUE_PUBLIC_URL or their prefix is missing: they are asked for none."""
        told = [
            name
            for name, each in self._providers.items()
            if Can.CALLBACK in getattr(each, "capabilities", ())
        ]
        if not self.settings.public_url:
            return told
        return [name for name in told if not self.webhook_prefixes(name)]

    def route(self, message: OutgoingMessage) -> list[str]:
        """Names of the providers for a message; see :func:`smsqueue.policy.router.resolve`."""
        return resolve(message, self.router, self._providers, self._default_provider)
