"""Who reaches the webhooks of a provider: its own secret prefix, and addresses that may call."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from smsqueue.providers.authentic import Refused
from smsqueue.settings import UNIX, SettingsError, check_prefix, networks_of

__all__ = ["WebhookAccess", "client_address"]

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class WebhookAccess:
    """Who reaches the webhooks of one provider."""

    #: Prefixes of its own, without slashes around them; none: it is served under the general ones.
    prefixes: tuple[str, ...] = field(default=(), repr=False)
    #: Networks that may call it; none: all.
    sources: tuple[_Network, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        prefix: str | Sequence[str] | None,
        sources: str | Iterable[str] | None,
        taken: Iterable[str],
    ) -> WebhookAccess:
        """What ``add_provider`` was given for a provider.

        Args:
            taken: Prefixes of others.

        Raises:
            TypeError, SettingsError: it cannot be used. The prefix is not shown.
        """
        where = f"webhook_prefix of the provider {name!r}"
        found = tuple(each.strip("/") for each in _texts(where, prefix))
        if prefix is not None and not found:
            raise SettingsError(f"{where} is empty: leave it out for the general one")
        for each in found:
            check_prefix(where, each)
            if any(_overlap(each, other.strip("/")) for other in taken):
                raise SettingsError(
                    f"{where} is, or begins with, the prefix of others, or theirs with it: who "
                    "knows one would know the other. Give it another one, as "
                    "`openssl rand -hex 16` prints"
                )
        where = f"webhook_sources of the provider {name!r}"
        networks = networks_of(where, _texts(where, sources))
        if sources is not None and not networks:
            raise SettingsError(
                f"{where} is empty: nobody could call it. Leave it out to allow all"
            )
        return cls(found, networks)

    def serves(self, path: str) -> bool:
        """May a provider with its own prefix be called at this address?"""
        if not self.prefixes:
            return True
        return any(f"/{prefix}/" in path for prefix in self.prefixes)

    def check_source(self, client: _Address | None) -> None:
        """Raise Refused unless an address may call the webhooks."""
        if not self.sources:
            return
        if client is None or not any(client in network for network in self.sources):
            raise Refused(
                f"{client or 'an unknown address'} is not one of webhook_sources (if it is your "
                "proxy's, SMSQUEUE_TRUSTED_PROXIES must name it)"
            )


def client_address(
    peer: str | None, forwarded: str | None, trusted: Iterable[str]
) -> _Address | None:
    """The address that a request comes from; None: it cannot be read.

    Args:
        peer: Whoever made the connection; of a Unix socket no address.
        forwarded: The X-Forwarded-For header. It counts only as far as proxies of ours wrote it:
            from its end on, up to the first address that is none of theirs.
        trusted: Our proxies, as SMSQUEUE_TRUSTED_PROXIES has them.
    """
    names = set(trusted)
    ours = networks_of("SMSQUEUE_TRUSTED_PROXIES", names - {UNIX})
    client = _address(peer or "")
    believed = (UNIX in names) if client is None else any(client in each for each in ours)
    hops = [hop.strip() for hop in (forwarded or "").split(",")] if forwarded else []
    while believed and hops:
        client = _address(hops.pop())
        believed = client is not None and any(client in each for each in ours)
    return client


#: As some proxies write it: with a port, in brackets.
_HOST = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::\d+)?|(\d+\.\d+\.\d+\.\d+):\d+")


def _address(text: str) -> _Address | None:
    match = _HOST.fullmatch(text)
    try:
        found = ip_address((match[1] or match[2]) if match else text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def _texts(where: str, given: str | Iterable[str] | None) -> tuple[str, ...]:
    parts: Iterable[object] = given.split(",") if isinstance(given, str) else given or ()
    texts = [*parts] if isinstance(parts, Iterable) else [parts]
    if not all(isinstance(each, str) for each in texts):
        raise TypeError(f"{where} must be a text or several")
    return tuple(each.strip() for each in map(str, texts) if each.strip())


def _overlap(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
