"""Before going live: check."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import click

from smsqueue.cli.check import HOOKS, Point, of_environment, of_gateway, of_redis, router_of
from smsqueue.cli.output import json_option, loaded, opened, screen, show_json
from smsqueue.cli.providers import class_of
from smsqueue.cli.receiving import address, found_webhooks, of_receivers, probed
from smsqueue.cli.words import counted
from smsqueue.configuration.loader import LoaderError
from smsqueue.gateway import Gateway

__all__ = ["check"]


@click.command()
@click.option("--probe", is_flag=True, help="Ask the receivers at SMSQUEUE_PUBLIC_URL.")
@click.option("--reveal", is_flag=True, help="Show the secret prefix of the webhooks.")
@json_option
def check(probe: bool, reveal: bool, as_json: bool) -> None:
    """Check settings, gateway, Redis, workers and receivers, as they are seen from here.

    Exit code 0: nothing is wrong, though there may be warnings. 1: there are problems.
    """
    told: dict[str, Any] = {"gateway": None, "webhooks": []}
    points = list(of_environment(os.environ))
    with opened() as desk:
        try:
            gateway = loaded(desk.settings)
        except LoaderError as error:
            points += [Point("problem", "gateway", str(error)), *of_redis(desk)]
        else:
            settings = gateway.settings
            webhooks, troubles = found_webhooks(gateway)
            told["gateway"] = _about(gateway, desk.settings.gateway)
            told["webhooks"] = [
                {
                    "provider": webhook.provider,
                    "url": address(gateway, webhook, reveal=reveal),
                    "methods": webhook.methods,
                }
                for webhook in webhooks
            ]
            points += [*of_gateway(gateway, desk), *of_redis(desk)]
            points += troubles
            if webhooks or not troubles:
                points += of_receivers(gateway, webhooks, reveal=reveal)
            points += [probed(settings)] if probe else []
    levels = Counter(point.level for point in points)
    if as_json:
        listed = [point._asdict() for point in points]
        show_json({"ok": not levels["problem"], "points": listed} | told)
    else:
        _print(points, levels)
    if levels["problem"]:
        raise click.exceptions.Exit(1)


def _about(gateway: Gateway, where: str) -> dict[str, Any]:
    return {
        "where": where,
        "providers": [
            {
                "name": name,
                "class": class_of(provider),
                "default": name == gateway.default_provider,
            }
            for name, provider in gateway.providers.items()
        ],
        "router": router_of(gateway),
        "handlers": {hook: [handler.name for handler in getattr(gateway, hook)] for hook in HOOKS},
    }


def _print(points: list[Point], levels: Counter[str]) -> None:
    console = screen()
    for point in points:
        console.print(f"{point.level:<8} {point.about:<10} {point}", soft_wrap=True)
    found = [counted(levels[level], level) for level in ("problem", "warning") if levels[level]]
    click.echo(", ".join(found) or "all is well")
