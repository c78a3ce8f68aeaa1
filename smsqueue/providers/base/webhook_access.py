"""Restricts the webhooks of one provider: a secret URL prefix of its own, allowed networks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from smsqueue.providers.base.webhook_errors import Refused
from smsqueue.settings import UNIX, SettingsError, check_prefix, networks_of

__all__ = ["WebhookAccess", "client_address"]

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class WebhookAccess:
    """The URL prefixes and networks under which the webhooks of one provider are reached."""

    #: Prefixes of its own, without slashes around them; empty: SMSQUEUE_RECEIVER_PREFIX.
    prefixes: tuple[str, ...] = field(default=(), repr=False)
    #: Networks that may call it; empty: all.
    sources: tuple[_Network, ...] = ()

    @classmethod
    def from_arguments(
        cls,
        name: str,
        prefix: str | Sequence[str] | None,
        sources: str | Iterable[str] | None,
        taken: Iterable[str],
    ) -> WebhookAccess:
        """Parse ``webhook_prefix`` and ``webhook_sources`` of ``add_provider``.

        Args:
            taken: Prefixes of other providers.

        Raises:
            TypeError, SettingsError: a value is invalid. The prefix is not shown.
        """
        where = f"webhook_prefix of the provider {name!r}"
        prefixes = tuple(text.strip("/") for text in _strings(where, prefix))
        if prefix is not None and not prefixes:
            raise SettingsError(f"{where} is empty: leave it out to use SMSQUEUE_RECEIVER_PREFIX")
        for own in prefixes:
            check_prefix(where, own)
            if any(_overlap(own, other.strip("/")) for other in taken):
                raise SettingsError(
                    f"{where} overlaps with the prefix of other webhooks: anybody who knows one "
                    "would know the other. Choose another one, for example the output of "
                    "`openssl rand -hex 16`"
                )
        where = f"webhook_sources of the provider {name!r}"
        networks = networks_of(where, _strings(where, sources))
        if sources is not None and not networks:
            raise SettingsError(
                f"{where} is empty: nothing could call it. Leave it out to allow all addresses"
            )
        return cls(prefixes, networks)

    def serves(self, path: str) -> bool:
        """Is the path of a request under one of the provider's own prefixes, if it has any?"""
        if not self.prefixes:
            return True
        return any(f"/{prefix}/" in path for prefix in self.prefixes)

    def check_source(self, client: _Address | None) -> None:
        """Raise Refused unless an address is in one of the networks."""
        if not self.sources:
            return
        if client is None or not any(client in network for network in self.sources):
            raise Refused(
                f"{client or 'an unknown address'} is not in webhook_sources (if it is your "
                "proxy's, add it to SMSQUEUE_TRUSTED_PROXIES)"
            )


def client_address(
    peer: str | None, forwarded: str | None, trusted: Iterable[str]
) -> _Address | None:
    """The address of the client that sent a request; None if it cannot be determined.

    Args:
        peer: Remote address of the connection; "" or a name for a Unix socket.
        forwarded: The X-Forwarded-For header. Only the part that our proxies wrote is used: from
            its end to the first address that is not a proxy of ours.
        trusted: Our proxies, as SMSQUEUE_TRUSTED_PROXIES lists them.
    """
    names = set(trusted)
    proxies = networks_of("SMSQUEUE_TRUSTED_PROXIES", names - {UNIX})
    client = _parse_address(peer or "")
    is_proxy = (UNIX in names) if client is None else any(client in net for net in proxies)
    hops = [hop.strip() for hop in (forwarded or "").split(",")] if forwarded else []
    while is_proxy and hops:
        client = _parse_address(hops.pop())
        is_proxy = client is not None and any(client in net for net in proxies)
    return client


#: The notations of some proxies: with a port, in brackets.
_HOST_AND_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::\d+)?|(\d+\.\d+\.\d+\.\d+):\d+")


def _parse_address(text: str) -> _Address | None:
    match = _HOST_AND_PORT.fullmatch(text)
    try:
        address = ip_address((match[1] or match[2]) if match else text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _strings(where: str, value: str | Iterable[str] | None) -> tuple[str, ...]:
    """The parts of a comma-separated string, or the strings of an iterable."""
    parts: Iterable[object] = value.split(",") if isinstance(value, str) else value or ()
    texts = [*parts] if isinstance(parts, Iterable) else [parts]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{where} must be a string or several")
    return tuple(text.strip() for text in map(str, texts) if text.strip())


def _overlap(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
