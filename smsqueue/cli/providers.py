"""The providers of the application's gateway, their totals and their pauses: providers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import click

from smsqueue.cli.gateways import load_application_gateway, open_gateway
from smsqueue.cli.options import json_option
from smsqueue.cli.output import (
    format_duration,
    format_time,
    make_console,
    make_table,
    print_json,
    printable,
)
from smsqueue.configuration.loader import LoaderError
from smsqueue.gateway import Gateway
from smsqueue.ledger import Activity, Counts, Pause
from smsqueue.providers.base import IProvider
from smsqueue.providers.base.installed_providers import provider_names

__all__ = [
    "ProviderTotals",
    "Traffic",
    "check_provider",
    "class_name",
    "errors_header",
    "format_errors",
    "format_pause",
    "needs_operator",
    "pause_document",
    "pause_remedy",
    "provider_traffic",
    "providers",
    "router_traffic",
    "traffic_document",
]

#: What an operator must do to end a pause. Pauses for other errors end without one.
_REMEDIES = {"CreditError": "top up the account", "AuthError": "correct the credentials"}
#: Pauses in a row from which on the outage does not seem to pass. Each pause is twice as long as
#: the one before, up to a limit.
_PERSISTENT = 6


# --- The command -------------------------------------------------------------


@click.command()
@click.option("--installed", is_flag=True, help="List all providers that could be added instead.")
@json_option
def providers(installed: bool, as_json: bool) -> None:
    """Show the providers of the gateway that SMSQUEUE_GATEWAY names, their totals and pauses."""
    if installed:
        if as_json:
            print_json({"installed": provider_names()})
        else:
            click.echo("\n".join(provider_names()))
        return
    with open_gateway() as ledger_gateway:
        gateway = load_application_gateway(ledger_gateway.settings)
        pauses = {pause.provider: pause for pause in ledger_gateway.ledger.pauses()}
        ledger = ledger_gateway.ledger
        counters = ledger.counters()
        activity = ledger.activity(counters, ledger.counts())
    traffic = provider_traffic(counters, activity, gateway.providers)
    if as_json:
        items = [
            _describe(gateway, provider)
            | traffic_document(traffic[name])
            | {"paused": pause_document(pauses.get(name))}
            for name, provider in gateway.providers.items()
        ]
        print_json({"providers": items})
        return
    names = ("name", "class", "can", "deadline", "attempts", "sent")
    table = make_table(*names, errors_header(activity), "errors in total", "paused")
    for name, provider in gateway.providers.items():
        counted = traffic[name]
        table.add_row(
            f"{printable(name)} (default)" if name == gateway.default_provider else printable(name),
            type(provider).__qualname__,
            _directions(provider),
            f"{provider.deadline:g} s",
            str(counted.total.attempts),
            str(counted.total.sent),
            format_errors(counted.recent),
            format_errors(counted.total),
            format_pause(pauses.get(name)),
        )
    if table.rows:
        make_console().print(table)
    else:
        click.echo("the gateway has no provider: add one with gateway.add_provider()")


def _describe(gateway: Gateway, provider: IProvider) -> dict[str, Any]:
    return {
        "name": provider.name,
        "class": class_name(provider),
        "default": provider.name == gateway.default_provider,
        "sends": _sends(provider),
        "receives": _receives(provider),
        "deadline": provider.deadline,
    }


def check_provider(gateway: Gateway, name: str) -> None:
    """Refuse an unknown provider. One that the gateway lost is known by its events and totals.

    The application's gateway is loaded only if the ledger does not know the provider.

    Raises:
        click.UsageError: there is no such provider.
    """
    ledger = gateway.ledger
    known = {webhooks.provider for webhooks in ledger.room().webhooks}
    known |= provider_traffic(ledger.counters(), None).keys()
    known |= {pause.provider for pause in ledger.pauses()}
    if name in known:
        return
    try:
        known |= load_application_gateway(gateway.settings).providers.keys()
    except LoaderError:
        click.echo(
            f"no event and no call of a provider {printable(repr(name))} is known; the gateway "
            "cannot be loaded here to see whether it has this provider",
            err=True,
        )
        return
    if name not in known:
        names = printable(", ".join(sorted(known))) if known else "none"
        raise click.UsageError(f"no provider {printable(repr(name))}; known providers: {names}")


def class_name(provider: IProvider) -> str:
    """A provider's class, with its module."""
    return f"{type(provider).__module__}.{type(provider).__qualname__}"


def _directions(provider: IProvider) -> str:
    receives = _receives(provider)
    directions = ["send"] if _sends(provider) else []
    if receives is None:
        directions.append("receive? (see smsqueue check)")
    return ", ".join([*directions, "receive"] if receives else directions)


def _sends(provider: IProvider) -> bool:
    return type(provider).send is not IProvider.send


def _receives(provider: IProvider) -> bool | None:
    """True if a provider has webhooks; None if they cannot be made here.

    ``smsqueue check`` says why not.
    """
    try:
        provider.make_receiver_blueprint()
    except NotImplementedError:
        return False
    except Exception:  # Flask is not installed, or the application's class raises anything
        return None
    return True


# --- Traffic -----------------------------------------------------------------


@dataclass
class ProviderTotals:
    """What was counted of a provider."""

    attempts: int = 0
    sent: int = 0
    #: By error class.
    errors: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Traffic:
    """Messages and errors of a provider, or of the router."""

    #: Since the ledger began.
    total: ProviderTotals = field(default_factory=ProviderTotals)
    #: In the last quarter of an hour; None: not known.
    recent: ProviderTotals | None = None
    #: Messages that it took in the last minute, per second; None: not known.
    sent_per_second: float | None = None


def provider_traffic(
    counters: Counts, activity: Activity | None, names: Iterable[str] = ()
) -> dict[str, Traffic]:
    """The traffic of each provider; docs/metrics.md explains the counters.

    Args:
        names: Providers that may not have been called yet.
    """
    totals = _totals(counters)
    recent = _totals(activity.quarter_hour.counts) if activity and activity.quarter_hour else None
    minute = activity.minute if activity else None
    return {
        name: Traffic(
            totals.get(name, ProviderTotals()),
            None if recent is None else recent.get(name, ProviderTotals()),
            minute.per_second("sent", name) if minute else None,
        )
        for name in sorted({*totals, *names})
        if name
    }


def router_traffic(counters: Counts, activity: Activity | None) -> Traffic:
    """Errors of messages for which no provider could be called: the router raised, or named a
    provider that the worker does not have."""
    recent = None
    if activity and activity.quarter_hour:
        recent = _totals(activity.quarter_hour.counts).get("", ProviderTotals())
    return Traffic(_totals(counters).get("", ProviderTotals()), recent)


def _totals(counters: Counts) -> dict[str, ProviderTotals]:
    """Sums of the counters by provider; the errors of the router are those of ``""``."""
    totals: dict[str, ProviderTotals] = defaultdict(ProviderTotals)
    for labels, number in counters.items():
        match labels:
            case ("attempts", provider):
                totals[provider].attempts += number
            case ("took", "sent", provider, _) | ("sent", provider):
                totals[provider].sent += number
            case ("errors", provider, error, _) if number:
                totals[provider].errors[error] += number
    return dict(totals)


def format_errors(totals: ProviderTotals | None) -> str:
    """Errors by class, the most frequent first; ``"?"``: not known."""
    if totals is None:
        return "?"
    errors = totals.errors.most_common()
    return ", ".join(f"{number} {printable(error)}" for error, number in errors)


def errors_header(activity: Activity | None) -> str:
    """The heading of a column of recent errors, with the time that it covers."""
    if activity is None or activity.quarter_hour is None:
        return "recent errors"
    return f"errors in {format_duration(activity.quarter_hour.seconds)}"


def traffic_document(traffic: Traffic) -> dict[str, Any]:
    """Traffic for --json."""
    rate = traffic.sent_per_second
    return vars(traffic.total) | {
        "recent": traffic.recent and vars(traffic.recent),
        "sent_per_second": None if rate is None else round(rate, 3),
    }


# --- Pauses ------------------------------------------------------------------


def pause_remedy(pause: Pause) -> str:
    """What to do about a pause."""
    if pause.operator:
        return f"smsqueue resume --provider {printable(pause.provider)}"
    return _REMEDIES.get(pause.error or "", "it ends by itself")


def needs_operator(pause: Pause) -> bool:
    """True if a pause does not end by itself, or has been repeated for too long."""
    return not pause.operator and (pause.error in _REMEDIES or pause.times >= _PERSISTENT)


def format_pause(pause: Pause | None) -> str:
    """A pause for people; None is ``""``."""
    if pause is None:
        return ""
    if pause.operator:
        until_text = f"until {format_time(pause.operator.until)}" if pause.operator.until else ""
        reason = f" ({printable(pause.operator.reason)})" if pause.operator.reason else ""
        return f"by {printable(pause.operator.by)} {until_text}".rstrip() + reason
    over = "over: the next message tries again"
    until = f"until {format_time(pause.until)}" if pause.left else over
    return f"{until} ({printable(pause.error)}, {pause.times} in a row): {pause_remedy(pause)}"


def pause_document(pause: Pause | None) -> dict[str, Any] | None:
    """A pause for --json."""
    if pause is None:
        return None
    return {
        "until": pause.operator.until if pause.operator else pause.until,
        "left": round(pause.left, 1),
        "times": pause.times,
        "error": pause.error,
        "do": pause_remedy(pause),
        "by": pause.operator and pause.operator.by,
        "reason": pause.operator and pause.operator.reason,
    }
