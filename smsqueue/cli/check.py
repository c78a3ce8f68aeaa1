"""What is to be checked before going live, point by point."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from smsqueue import exc
from smsqueue.cli.providers import class_of
from smsqueue.cli.tally import consumed, start_worker
from smsqueue.cli.words import clean, counted, size
from smsqueue.configuration.environment import named
from smsqueue.gateway import Gateway
from smsqueue.policy.router import default_router
from smsqueue.providers.http import HttpProvider
from smsqueue.settings import SettingsError, misspelled

__all__ = ["HOOKS", "Point", "of_environment", "of_gateway", "of_redis", "router_of"]

HOOKS = ("onSend", "onReceive", "onStatus")


class Point(NamedTuple):
    """Something that was looked at."""

    #: ok | note | warning | problem
    level: str
    about: str
    what: str
    #: What to do about it.
    do: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.do}" if self.do else self.what


def of_gateway(gateway: Gateway, desk: Gateway) -> Iterator[Point]:
    """The application's gateway; ``desk`` has the settings that workers have."""
    variables = ", ".join(variable for _, variable in named(os.environ))
    yield Point("ok", "gateway", desk.settings.gateway or f"its providers are from {variables}")
    for name in ("redis_url", "namespace", "hash_key"):
        if getattr(gateway.settings, name) != getattr(desk.settings, name):
            variable = f"SMSQUEUE_{name.upper()}"
            what = f"the gateway was made with another {name} than {variable}"
            yield Point("problem", "gateway", what, "workers take what the variable says; set it")
    for name, provider in gateway.providers.items():
        default = ", the default" if name == gateway.default_provider else ""
        what = f"{clean(name)}: {class_of(provider)}{default}"
        plain = sorted(set(_plain_hosts(provider)))
        if plain:
            what += (
                f", calls {clean(', '.join(plain))} by plain http://: anybody between can read it"
            )
            yield Point("warning", "provider", what, "give it an address with https://")
        else:
            yield Point("ok", "provider", what)
    if not gateway.providers:
        do = "add one with gateway.add_provider(name, Provider, ...)"
        yield Point("problem", "provider", "there is none, and workers do not start", do)
    router = router_of(gateway)
    yield Point("ok", "router", router or "none: the default provider takes all")
    for hook in HOOKS:
        names = [clean(handler.name) for handler in getattr(gateway, hook)]
        yield Point("ok" if names else "note", hook, ", ".join(names) or "no handler")


def _plain_hosts(thing: Any, depth: int = 3) -> Iterator[str]:
    """Hosts beyond this machine that a provider, or what it consists of, calls without TLS."""
    if isinstance(thing, str):
        host = urlsplit(thing).hostname if thing[:7].lower() == "http://" else None
        if host and not re.fullmatch(r"localhost|127(\.\d+){3}|::1", host):
            yield host
    elif depth and isinstance(thing, Mapping):
        for each in thing.values():
            yield from _plain_hosts(each, depth - 1)
    elif depth and isinstance(thing, list | tuple):
        for each in thing:
            yield from _plain_hosts(each, depth - 1)
    elif depth and type(thing).__module__.startswith("smsqueue.providers."):
        yield from _plain_hosts(vars(thing), depth)
    elif isinstance(thing, HttpProvider):  # the application's own
        yield from _plain_hosts(thing.url)


def of_environment(environment: Iterable[str]) -> Iterator[Point]:
    """Names of variables that look like a setting's and are none."""
    for name, meant in misspelled(environment):
        yield Point(
            "warning", "settings", f"{name} is not a known setting", f"did you mean {meant}?"
        )


def router_of(gateway: Gateway) -> str | None:
    """Name of the router; None: there is none."""
    router: Any = gateway.router
    if router is default_router:
        return None
    name = getattr(router, "__qualname__", type(router).__qualname__)
    return f"{getattr(router, '__module__', '?')}:{name}"


def of_redis(desk: Gateway) -> Iterator[Point]:
    """Redis, and who works on it."""
    unverified = desk.settings.unverified_tls
    if unverified:
        what = (
            f"{unverified} in SMSQUEUE_REDIS_URL: whoever is between here and Redis can pose as it"
        )
        do = "remove it, and name a private CA in SMSQUEUE_REDIS_CA"
        yield Point("warning", "redis", what, do)
    try:
        desk.ledger.verify_server()
        server, warnings = desk.ledger.server(), desk.check()
        room, packed = desk.ledger.room(), desk.ledger.packs_records()
        workers = desk.ledger.workers()
        former = desk.settings.hash_key and desk.ledger.hidden_before("any")
    except (exc.QueueUnavailable, SettingsError) as error:
        what, _, do = str(error).partition(": ")
        yield Point("problem", "redis", what, do)
        return
    where = desk.settings.safe_redis_url
    aof = {True: "AOF", False: "no AOF", None: "AOF unknown"}[server.aof]
    about = f"{where}, version {server.version}, {aof}, {server.policy}"
    yield Point("ok", "redis", f"{about}, {size(server.used)} in use")
    for warning in warnings:
        what, _, do = warning.partition(": ")
        yield Point("problem", "redis", what, do)
    if former:
        what = "the key that SMSQUEUE_HASH_KEY took the place of is still in Redis"
        do = (
            f"delete {desk.settings.namespace}:secret when SMSQUEUE_RETENTION has passed since then"
        )
        yield Point("note", "redis", what, do)
    if room.refuses_webhooks:
        what = "webhooks are refused, but for reports of accepted messages: it is nearly full"
        do = f"raise its maxmemory above {size(server.max)}; smsqueue purge deletes events"
        yield Point("problem", "redis", what, do)
    if room.refuses:
        what = "new messages are refused: what was accepted needs the rest of its maxmemory"
        do = f"raise it above {size(server.max)}, or wait until messages are final"
        yield Point("problem", "redis", what, do)
    elif server.max:
        left = f"{size(room.left)} are left for new messages"
        yield Point("ok", "redis", f"maxmemory is {size(server.max)}, {left}")
    else:
        do = "set it below the machine's memory"
        yield Point("warning", "redis", "maxmemory is not set", do)
    if packed is False:
        what = "a record of a message takes twice the memory that it needs"
        do = "set hash-max-listpack-value 4096 and hash-max-listpack-entries 64 in its"
        more = "configuration (hash-max-ziplist-... before Redis 7)"
        yield Point("warning", "redis", what, f"{do} {more}")
    live, queues = consumed(workers), (desk.settings.send_queue, desk.settings.hook_queue)
    alive = sum(worker.alive for worker in workers)
    idle = [queue for queue in queues if queue not in live]
    if idle:
        what, _, do = start_worker(*idle).partition(": ")
        yield Point("warning", "workers", what, do)
    else:
        yield Point("ok", "workers", f"{counted(alive, 'live worker')} for {' and '.join(queues)}")
