"""Running smsqueue on one machine, for development: dev, demo, simulator."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

import click
from rich.console import Console

from smsqueue.cli.options import json_option
from smsqueue.cli.output import print_json
from smsqueue.settings import secret_text

__all__ = ["demo", "dev", "simulator"]


@click.command()
def dev() -> None:
    """Run the whole stack on this machine, with simulator and Flower, until Ctrl-C."""
    from smsqueue.demo import run_dev

    raise click.exceptions.Exit(_run(run_dev, Console()))


@click.command()
@click.option(
    "--provider",
    type=click.Choice(["simulator", "twilio"]),
    default="simulator",
    show_default=True,
    help="Provider whose API the simulator speaks.",
)
@json_option
def demo(provider: str, as_json: bool) -> None:
    """Send SMS both ways through a carrier simulator, on this machine only.

    Exit code 0: every message reached the state that its magic number stands for. With --json,
    the table goes to stderr.
    """
    from smsqueue.demo import run

    code = _run(lambda console: run(console, provider), Console(stderr=as_json))
    if as_json:
        print_json({"ok": code == 0, "exit_code": code})
    raise click.exceptions.Exit(code)


def _run(program: Callable[[Console], int], console: Console) -> int:
    from smsqueue.stack import StackError

    try:
        return program(console)
    except StackError as error:
        raise click.ClickException(str(error)) from None


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8800,
    show_default=True,
    help="0: any free port.",
)
@click.option(
    "--webhook",
    "webhooks",
    multiple=True,
    metavar="[ACCOUNT=]URL",
    help="URL for an account's reports and replies (default account: main); may be repeated.",
)
@json_option
def simulator(host: str, port: int, webhooks: tuple[str, ...], as_json: bool) -> None:
    """Run the carrier simulator alone, until Ctrl-C.

    SMSQUEUE_SIMULATOR_TOKEN, or the file that SMSQUEUE_SIMULATOR_TOKEN_FILE names, is the password
    of the accounts and the key of the signatures.
    """
    urls = dict(_parse_webhook(text) for text in webhooks)
    from smsqueue.simulator import Simulator

    token = secret_text(os.environ, "SMSQUEUE_SIMULATOR_TOKEN") or "simulator"
    with suppress(KeyboardInterrupt):
        try:
            server = Simulator(urls, token, host=host, port=port)
        except OSError as error:
            raise click.ClickException(f"cannot serve on {host}:{port}: {error}") from None
        if as_json:
            print_json({"url": server.url})
        else:
            click.echo(f"carrier simulator on {server.url}, until Ctrl-C")
        server.serve_forever()


def _parse_webhook(text: str) -> tuple[str, str]:
    """Split ``ACCOUNT=URL`` into account and URL; the default account is main."""
    account, _, url = ("main", "", text) if text.startswith("http") else text.partition("=")
    if not account or not url.startswith(("http://", "https://")) or "," in url:
        raise click.BadParameter(
            "write it as ACCOUNT=http://host:port/PREFIX/PROVIDER", param_hint="--webhook"
        )
    return account, url
