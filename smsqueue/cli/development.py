"""Running things: dev, demo, simulator."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

import click
from rich.console import Console

from smsqueue.cli.output import json_option, show_json
from smsqueue.settings import secret_text

__all__ = ["demo", "dev", "simulator"]


@click.command()
def dev() -> None:
    """Run the whole stack on this machine, with Flower, until Ctrl-C."""
    from smsqueue.demo import run_dev

    raise click.exceptions.Exit(_run(run_dev, Console()))


@click.command()
@click.option(
    "--provider",
    type=click.Choice(["simulator", "twilio"]),
    default="simulator",
    show_default=True,
    help="Whose dialect to speak with the simulator.",
)
@json_option
def demo(provider: str, as_json: bool) -> None:
    """Send SMS both ways through a carrier simulator, on this machine only.

    Exit code 0: every message ended as its number says. With --json the table is on stderr.
    """
    from smsqueue.demo import run

    code = _run(lambda console: run(console, provider), Console(stderr=as_json))
    if as_json:
        show_json({"ok": code == 0, "exit_code": code})
    raise click.exceptions.Exit(code)


def _run(what: Callable[[Console], int], console: Console) -> int:
    from smsqueue.stack import StackError

    try:
        return what(console)
    except StackError as error:
        raise click.ClickException(str(error)) from None


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8800,
    show_default=True,
    help="0: a free one.",
)
@click.option(
    "--webhook",
    "webhooks",
    multiple=True,
    metavar="[ACCOUNT=]URL",
    help="Receiver of an account's reports and replies (account main, if not named); repeatable.",
)
@json_option
def simulator(host: str, port: int, webhooks: tuple[str, ...], as_json: bool) -> None:
    """Run the carrier simulator alone, until Ctrl-C.

    SMSQUEUE_SIMULATOR_TOKEN (or the file that SMSQUEUE_SIMULATOR_TOKEN_FILE names): password of
    the accounts, and key of the signatures.
    """
    where = dict(_webhook(text) for text in webhooks)
    from smsqueue.simulator import Simulator

    token = secret_text(os.environ, "SMSQUEUE_SIMULATOR_TOKEN") or "simulator"
    with suppress(KeyboardInterrupt):
        try:
            server = Simulator(where, token, host=host, port=port)
        except OSError as error:
            raise click.ClickException(f"cannot serve on {host}:{port}: {error}") from None
        if as_json:
            show_json({"url": server.url})
        else:
            click.echo(f"carrier simulator on {server.url}, until Ctrl-C")
        server.serve_forever()


def _webhook(text: str) -> tuple[str, str]:
    account, _, url = ("main", "", text) if text.startswith("http") else text.partition("=")
    if not account or not url.startswith(("http://", "https://")) or "," in url:
        raise click.BadParameter(
            "write it as ACCOUNT=http://host:port/PREFIX/PROVIDER", param_hint="--webhook"
        )
    return account, url
