"""Running things: dev, demo, simulator."""

from __future__ import annotations

import click

__all__ = ["demo", "dev", "simulator"]


@click.command()
def dev() -> None:
    """Run the whole stack on this machine, with Flower, until Ctrl-C."""
    from smsqueue.demo import run_dev

    raise click.exceptions.Exit(run_dev())


@click.command()
def demo() -> None:
    """Send SMS both ways through a carrier simulator, on this machine only."""
    from smsqueue.demo import run

    raise click.exceptions.Exit(run())


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0: a free one.")
@click.option("--webhook", help="Where reports and replies go: the URL of a receiver.")
def simulator(port: int, webhook: str | None) -> None:
    """Run the carrier simulator alone, until Ctrl-C."""
    from smsqueue.simulator import serve

    serve(port=port, webhook=webhook)
