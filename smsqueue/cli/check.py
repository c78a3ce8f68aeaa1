"""Checks a gateway before it goes live: settings, providers, Redis, workers, webhooks: check."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import click

from smsqueue import exc
from smsqueue.cli.diagnosis import Advice, consumed_queues, no_consumer, split_advice
from smsqueue.cli.gateways import load_application_gateway, open_gateway
from smsqueue.cli.options import json_option
from smsqueue.cli.output import format_count, format_size, make_console, print_json, printable
from smsqueue.cli.providers import class_name
from smsqueue.configuration.environment_providers import named
from smsqueue.configuration.loader import LoaderError
from smsqueue.gateway import Gateway
from smsqueue.ledger import Room, Worker
from smsqueue.policy.router import default_router
from smsqueue.providers.account import AccountProvider
from smsqueue.providers.base import IProvider
from smsqueue.providers.forward.auth import Guard
from smsqueue.providers.http import HttpProvider
from smsqueue.settings import Settings, SettingsError, misspelled

__all__ = ["check"]

_HOOKS = ("onSend", "onReceive", "onStatus")
#: Seconds within which the receivers must answer --probe.
_PROBE_TIMEOUT = 5.0
#: Shorter prefixes are accepted, but get a warning.
_MIN_PREFIX_LENGTH = 12


class Finding(NamedTuple):
    """The result of one check."""

    level: Literal["ok", "note", "warning", "problem"]
    #: What was checked: ``redis``, ``webhook`` ...
    subject: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return str(Advice(self.text, self.remedy))


class Webhook(NamedTuple):
    """An address that a provider calls."""

    provider: str
    #: Without host and prefix: ``/main/status``.
    path: str
    methods: tuple[str, ...]


# --- The command -------------------------------------------------------------


@click.command()
@click.option("--probe", is_flag=True, help="Call the receivers at SMSQUEUE_PUBLIC_URL.")
@click.option("--reveal", is_flag=True, help="Show the secret prefix of the webhooks.")
@json_option
def check(probe: bool, reveal: bool, as_json: bool) -> None:
    """Check settings, gateway, Redis, workers and receivers from this machine.

    Exit code 0: no problem, but there may be warnings. 1: there are problems.
    """
    document: dict[str, Any] = {"gateway": None, "redis": None, "webhooks": []}
    findings = list(_check_variable_names(os.environ))
    with open_gateway() as ledger_gateway:
        try:
            gateway = load_application_gateway(ledger_gateway.settings)
        except LoaderError as error:
            findings.append(Finding("problem", "gateway", str(error)))
            findings += _check_redis(ledger_gateway, document)
        else:
            webhooks, failures = _find_webhooks(gateway)
            document["gateway"] = _gateway_document(gateway, ledger_gateway.settings.gateway)
            document["webhooks"] = [
                {
                    "provider": webhook.provider,
                    "url": _webhook_url(gateway, webhook, reveal=reveal),
                    "methods": webhook.methods,
                }
                for webhook in webhooks
            ]
            findings += _check_gateway(gateway, ledger_gateway.settings)
            findings += _check_redis(ledger_gateway, document)
            findings += failures
            if webhooks or not failures:
                findings += _check_receivers(gateway, webhooks)
                findings += _check_webhooks(gateway, webhooks, reveal=reveal)
            if probe:
                findings.append(_probe_receivers(gateway.settings))
    levels = Counter(finding.level for finding in findings)
    if as_json:
        points = [
            {"level": f.level, "about": f.subject, "what": f.text, "do": f.remedy} for f in findings
        ]
        print_json({"ok": not levels["problem"], "points": points} | document)
    else:
        console = make_console()
        for f in findings:
            console.print(f"{f.level:<8} {f.subject:<10} {f}", soft_wrap=True)
        totals = [
            format_count(levels["problem"], "problem") if levels["problem"] else "",
            format_count(levels["warning"], "warning") if levels["warning"] else "",
        ]
        click.echo(", ".join(filter(None, totals)) or "no problem")
    if levels["problem"]:
        raise click.exceptions.Exit(1)


def _gateway_document(gateway: Gateway, where: str) -> dict[str, Any]:
    return {
        "where": where,
        "providers": [
            {
                "name": name,
                "class": class_name(provider),
                "default": name == gateway.default_provider,
            }
            for name, provider in gateway.providers.items()
        ],
        "router": _router_name(gateway),
        "handlers": {hook: [handler.name for handler in getattr(gateway, hook)] for hook in _HOOKS},
    }


# --- Settings and gateway ----------------------------------------------------


def _check_variable_names(environment: Iterable[str]) -> Iterator[Finding]:
    """Variables whose names are similar to a setting's."""
    for name, similar in misspelled(environment):
        text = f"{name} is not a known setting"
        yield Finding("warning", "settings", text, f"did you mean {similar}?")


def _check_gateway(gateway: Gateway, settings: Settings) -> Iterator[Finding]:
    """The application's gateway.

    Args:
        settings: Those that workers have.
    """
    variables = ", ".join(variable for _, variable in named(os.environ))
    yield Finding("ok", "gateway", settings.gateway or f"its providers are from {variables}")
    for name in ("redis_url", "namespace", "hash_key"):
        if getattr(gateway.settings, name) != getattr(settings, name):
            variable = f"SMSQUEUE_{name.upper()}"
            text = f"the gateway has another {name} than {variable}"
            yield Finding("problem", "gateway", text, f"set {variable}, which workers use")
    for name, provider in gateway.providers.items():
        default = ", the default" if name == gateway.default_provider else ""
        text = f"{printable(name)}: {class_name(provider)}{default}"
        hosts = sorted(set(_plain_http_hosts(provider)))
        if hosts:
            text += f", calls {printable(', '.join(hosts))} over plain http://, without encryption"
            yield Finding("warning", "provider", text, "give it a URL with https://")
        else:
            yield Finding("ok", "provider", text)
    if not gateway.providers:
        remedy = "add one with gateway.add_provider(name, Provider, ...)"
        yield Finding(
            "problem", "provider", "the gateway has none, so workers do not start", remedy
        )
    router = _router_name(gateway)
    yield Finding("ok", "router", router or "none: all messages go to the default provider")
    for hook in _HOOKS:
        handlers = [printable(handler.name) for handler in getattr(gateway, hook)]
        yield Finding("ok" if handlers else "note", hook, ", ".join(handlers) or "no handler")


def _router_name(gateway: Gateway) -> str | None:
    """The router's module and name; None for the default router."""
    router: Any = gateway.router
    if router is default_router:
        return None
    name = getattr(router, "__qualname__", type(router).__qualname__)
    return f"{getattr(router, '__module__', '?')}:{name}"


def _plain_http_hosts(value: Any, depth: int = 3) -> Iterator[str]:
    """Hosts on other machines that a provider, or an object it consists of, calls without TLS."""
    if isinstance(value, str):
        host = urlsplit(value).hostname if value[:7].lower() == "http://" else None
        if host and not re.fullmatch(r"localhost|127(\.\d+){3}|::1", host):
            yield host
    elif depth and isinstance(value, Mapping):
        for item in value.values():
            yield from _plain_http_hosts(item, depth - 1)
    elif depth and isinstance(value, list | tuple):
        for item in value:
            yield from _plain_http_hosts(item, depth - 1)
    elif depth and type(value).__module__.startswith("smsqueue.providers."):
        yield from _plain_http_hosts(vars(value), depth)
    elif isinstance(value, HttpProvider):  # a class of the application
        yield from _plain_http_hosts(value.url)


# --- Redis and workers -------------------------------------------------------


def _check_redis(gateway: Gateway, document: dict[str, Any]) -> Iterator[Finding]:
    """Redis, its configuration and memory, and the workers that use it.

    Args:
        document: Gets the server's facts.
    """
    settings, ledger = gateway.settings, gateway.ledger
    if settings.unverified_tls:
        text = f"{settings.unverified_tls} in SMSQUEUE_REDIS_URL lets others impersonate the server"
        remedy = "remove it; if the server's CA is private, name it in SMSQUEUE_REDIS_CA"
        yield Finding("warning", "redis", text, remedy)
    try:
        ledger.verify_server()
        server = ledger.server(configuration=True)
        room, packed = ledger.room(), ledger.packs_records()
        workers = ledger.workers()
        former_key = settings.hash_key and ledger.former_hash_of("any")
    except (exc.QueueUnavailable, SettingsError) as error:
        yield Finding("problem", "redis", *split_advice(str(error)))
        return
    document["redis"] = server.document()
    yield Finding("ok", "redis", f"{settings.safe_redis_url}: {server}")
    for risk in server.risks(settings):
        yield Finding(risk.level, "redis", risk.text, risk.remedy)
    if former_key:
        text = "the key that SMSQUEUE_HASH_KEY replaced is still in Redis"
        key = f"{settings.namespace}:secret"
        remedy = f"delete {key} once SMSQUEUE_RETENTION has passed since the replacement"
        yield Finding("note", "redis", text, remedy)
    yield from _check_memory(room, packed)
    yield _check_workers(workers, (settings.send_queue, settings.hook_queue))


def _check_memory(room: Room, packed: bool | None) -> Iterator[Finding]:
    limit = format_size(room.max)
    if room.refuses_webhooks:
        text = "webhooks are refused, except reports of accepted messages, as it is nearly full"
        remedy = f"raise its maxmemory above {limit}; smsqueue purge deletes events"
        yield Finding("problem", "redis", text, remedy)
    if room.refuses:
        text = "new messages are refused, as accepted messages need the rest of its maxmemory"
        remedy = f"raise it above {limit}, or wait until messages are final"
        yield Finding("problem", "redis", text, remedy)
    elif room.max:
        left = format_size(room.left)
        yield Finding("ok", "redis", f"maxmemory is {limit}, {left} are left for new messages")
    if packed is False:
        remedy = (
            "set hash-max-listpack-value 4096 and hash-max-listpack-entries 64 in its "
            "configuration (hash-max-ziplist-... before Redis 7)"
        )
        text = "the record of a message takes twice the memory that it needs"
        yield Finding("warning", "redis", text, remedy)


def _check_workers(workers: list[Worker], queues: tuple[str, str]) -> Finding:
    consumed = consumed_queues(workers)
    idle = [queue for queue in queues if queue not in consumed]
    if idle:
        return Finding("warning", "workers", *no_consumer(*idle))
    live = format_count(sum(worker.alive for worker in workers), "live worker")
    return Finding("ok", "workers", f"{live} for {' and '.join(queues)}")


# --- Receivers and webhooks --------------------------------------------------


def _find_webhooks(gateway: Gateway) -> tuple[list[Webhook], list[Finding]]:
    """The webhooks of all providers, and a finding for each provider that cannot make its own."""
    webhooks: list[Webhook] = []
    failures: list[Finding] = []
    for name in gateway.providers:
        try:
            webhooks += _webhooks_of(gateway, name)
        except ModuleNotFoundError as error:
            if error.name in ("flask", "werkzeug"):
                text = "the receivers extra is not installed"
                remedy = "pip install 'smsqueue-gateway[receivers]' where webhooks are received"
                return [], [Finding("note", "receivers", text, remedy)]
            text = f"{name} cannot receive, as there is no module {error.name!r}"
            failures.append(Finding("problem", "receivers", text, "install it"))
        except SettingsError as error:
            failures.append(Finding("problem", "receivers", *split_advice(str(error))))
        except Exception as error:  # of the application's provider: its text may be confidential
            text = f"{name} cannot make its webhooks ({type(error).__name__})"
            remedy = "correct its make_receiver_blueprint()"
            failures.append(Finding("problem", "receivers", text, remedy))
    return webhooks, failures


def _webhooks_of(gateway: Gateway, name: str) -> list[Webhook]:
    """A provider's webhooks; none if it cannot receive.

    Raises:
        ModuleNotFoundError: Flask, or a module that the provider needs, is not installed.
    """
    from flask import Flask  # an optional dependency

    app = Flask(__name__, static_folder=None)
    try:
        app.register_blueprint(gateway.receiver_blueprint_for(name), url_prefix=f"/{name}")
    except NotImplementedError:
        return []
    webhooks = []
    for rule in app.url_map.iter_rules():
        methods = sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
        webhooks.append(Webhook(name, rule.rule, tuple(methods)))
    return webhooks


def _check_receivers(gateway: Gateway, webhooks: list[Webhook]) -> Iterator[Finding]:
    """The settings of the receivers."""
    if not webhooks:
        yield Finding("note", "receivers", "no provider has webhooks")
        return
    if not gateway.onReceive:
        remedy = "add one with gateway.onReceive += handler"
        yield Finding("warning", "receivers", "incoming messages have no handler", remedy)
    settings = gateway.settings
    names = dict.fromkeys(webhook.provider for webhook in webhooks)
    own_prefixes = [prefix for name in names for prefix in gateway.webhook_access(name).prefixes]
    prefixes = [prefix.strip("/") for prefix in (*settings.receiver_prefix, *own_prefixes)]
    if not all(gateway.webhook_prefixes(name) for name in names):
        remedy = "the bundled receivers do not start without it"
        yield Finding("warning", "receivers", "SMSQUEUE_RECEIVER_PREFIX is not set", remedy)
    if any(len(prefix) < _MIN_PREFIX_LENGTH for prefix in prefixes):
        text = f"a prefix has less than {_MIN_PREFIX_LENGTH} characters and may be guessed"
        yield Finding("warning", "receivers", text, "use the output of openssl rand -hex 16")
    if len(settings.receiver_prefix) > 1:
        text = f"{len(settings.receiver_prefix)} prefixes are served"
        yield Finding("note", "receivers", text, "enter the first one at the providers")
    with_sources = [name for name in names if gateway.webhook_access(name).sources]
    if with_sources and not settings.trusted_proxies:
        text = (
            f"webhook_sources of {printable(', '.join(with_sources))} are compared with the "
            "address of the connection"
        )
        remedy = (
            "behind a proxy set SMSQUEUE_TRUSTED_PROXIES to its address, else all webhooks are "
            "refused"
        )
        yield Finding("note", "receivers", text, remedy)
    if not settings.public_url:
        remedy = (
            "set it to the URL at which the internet reaches the receivers, as "
            "https://sms.example.org; behind a proxy, webhooks whose URL is signed are refused "
            "without it"
        )
        yield Finding("warning", "receivers", "SMSQUEUE_PUBLIC_URL is not set", remedy)
    elif urlsplit(settings.public_url).path.strip("/") in prefixes:
        remedy = "leave the prefix out, it is appended"
        yield Finding("warning", "receivers", "SMSQUEUE_PUBLIC_URL ends with the prefix", remedy)
    if settings.public_url.lower().startswith("http:"):
        text = "SMSQUEUE_PUBLIC_URL is plain http://, so numbers, texts and the prefix can be read"
        yield Finding("warning", "receivers", text, "use https://")
    if gateway.unreported():
        providers = printable(", ".join(gateway.unreported()))
        text = f"no delivery reports are requested from {providers}"
        remedy = "set SMSQUEUE_PUBLIC_URL and SMSQUEUE_RECEIVER_PREFIX for the workers, too"
        yield Finding("warning", "receivers", text, remedy)


def _check_webhooks(
    gateway: Gateway, webhooks: list[Webhook], *, reveal: bool
) -> Iterator[Finding]:
    """The address of each webhook, and whether others than the provider can forge it."""
    for webhook in webhooks:
        url = _webhook_url(gateway, webhook, reveal=reveal)
        text = f"{printable(webhook.provider)}: {'|'.join(webhook.methods)} {url}"
        weakness = _weakness(gateway.providers[webhook.provider])
        access = gateway.webhook_access(webhook.provider)
        if access.sources:
            text += f", from {format_count(len(access.sources), 'network')} only"
        if not weakness:
            yield Finding("ok", "webhook", text)
        elif access.sources:
            text += f" (from there: {weakness})"
            yield Finding("note", "webhook", text, "keep the prefix secret")
        else:
            own_prefix = (
                "" if access.prefixes else ", give the provider one of its own (webhook_prefix)"
            )
            remedy = (
                f"keep the prefix secret{own_prefix}, and admit only the provider's networks "
                "(webhook_sources), if it publishes them"
            )
            yield Finding("warning", "webhook", f"{text} ({weakness})", remedy)


def _weakness(provider: IProvider) -> str:
    """Why others than the provider can send its webhooks; ``""`` if they cannot."""
    if isinstance(provider, AccountProvider):
        return provider.unsigned()
    guard = getattr(provider, "guard", None)
    if isinstance(guard, Guard):
        weakness = "insecure=True accepts webhooks of anybody who knows their address"
        return weakness if guard.open else ""
    if getattr(provider, "authenticates", False) is True:  # a class of the application
        return ""
    return (
        "its class does not say that it authenticates webhooks: if it does, set authenticates = "
        "True"
    )


def _webhook_url(gateway: Gateway, webhook: Webhook, *, reveal: bool) -> str:
    """The URL to enter at the provider. Its prefix is a secret, masked unless ``reveal``."""
    prefixes = gateway.webhook_prefixes(webhook.provider)
    prefix = prefixes[0].strip("/") if prefixes else "PREFIX"
    shown = prefix if reveal or not prefixes else "***"
    return f"{gateway.settings.public_url.rstrip('/')}/{shown}{printable(webhook.path)}"


def _probe_receivers(settings: Settings) -> Finding:
    """Call the receivers at their public URL."""
    import requests  # slow to import

    if not settings.public_url:
        return Finding("warning", "probe", "skipped, SMSQUEUE_PUBLIC_URL is not set")
    url = f"{settings.public_url.rstrip('/')}/healthz"
    try:
        response = requests.get(url, timeout=_PROBE_TIMEOUT)
    except requests.RequestException as error:
        text = f"{url} does not answer ({type(error).__name__})"
        remedy = "start the receivers, and check the proxy in front of them and its certificate"
        return Finding("problem", "probe", text, remedy)
    if response.status_code == 200 and response.text.strip() == "ok":
        return Finding("ok", "probe", f"{url} answers as the receivers do")
    text = f"{url} answers {response.status_code}, not as the receivers do"
    return Finding("warning", "probe", text, "check that the proxy forwards /healthz to them")
