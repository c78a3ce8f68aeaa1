"""Pausing a provider, a tag or everything, and resuming it: pause, resume."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

import click

from smsqueue.cli.gateways import open_gateway
from smsqueue.cli.options import json_option, parse_duration, parse_tag, parse_zoned_time
from smsqueue.cli.output import format_count, format_time, print_json, printable
from smsqueue.cli.providers import check_provider
from smsqueue.ledger import OperatorPause, Worker

__all__ = [
    "describe_pause",
    "disobedient",
    "older_workers_text",
    "operator_pause_document",
    "pause",
    "resume",
    "resume_command",
]


def _scope_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --provider, --tag and --all, of which one is given."""
    options = (
        click.option("--provider", help="A provider. Others of a route are called instead."),
        click.option("--tag", callback=parse_tag, help="Messages with this tag."),
        click.option("--all", "everything", is_flag=True, help="All messages."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _check_one(provider: str | None, tag: str | None, everything: bool) -> None:
    if sum((provider is not None, tag is not None, everything)) != 1:
        raise click.UsageError("what? Give one of --provider NAME, --tag TAG and --all")


@click.command()
@_scope_options
@click.option("--reason", default="", help="Shown in status, and in show of messages that wait.")
@click.option(
    "--for",
    "length",
    callback=parse_duration,
    metavar="TIME",
    help="How long: 90s, 30m, 2h or 1d. Default: until smsqueue resume.",
)
@click.option(
    "--until",
    callback=parse_zoned_time,
    metavar="TIME",
    help="Until when: an ISO time with its zone, as 2030-01-31T09:00+01:00.",
)
@json_option
def pause(
    provider: str | None,
    tag: str | None,
    everything: bool,
    reason: str,
    length: timedelta | None,
    until: datetime | None,
    as_json: bool,
) -> None:
    """Send nothing over a provider, nothing with a tag, or nothing at all.

    Calls in flight are finished. Messages are still accepted and wait; one whose validity ends
    meanwhile expires. A second pause of the same replaces the first.
    """
    _check_one(provider, tag, everything)
    if length is not None and until is not None:
        raise click.UsageError("give --for or --until, not both")
    with open_gateway() as gateway:
        if provider is not None:
            check_provider(gateway, provider)
        try:
            new_pause = gateway.pause(
                provider=provider,
                tag=tag,
                everything=everything,
                reason=reason,
                length=length,
                until=until,
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        workers = disobedient([new_pause], gateway.ledger.workers())
    if as_json:
        print_json(operator_pause_document(new_pause) | {"older_workers": workers})
    else:
        click.echo(f"{describe_pause(new_pause)}; to end it: {resume_command(new_pause)}")
    if workers:
        click.echo(f"warning: {older_workers_text(workers)}", err=True)


@click.command()
@_scope_options
@json_option
def resume(provider: str | None, tag: str | None, everything: bool, as_json: bool) -> None:
    """End a pause at once; of a provider also one that its errors began.

    What waited goes out in order, single messages first. --all ends the pause of --all only: what
    was paused by its name stays paused.
    """
    _check_one(provider, tag, everything)
    with open_gateway() as gateway:
        if provider is not None:
            check_provider(gateway, provider)
        try:
            resumed = gateway.resume(provider=provider, tag=tag, everything=everything)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        others = gateway.pauses()
    if as_json:
        print_json({"resumed": resumed, "pauses": [operator_pause_document(p) for p in others]})
    else:
        name = "everything" if everything else f"tag {tag}" if tag else f"provider {provider}"
        click.echo(f"{printable(name)} {'goes on' if resumed else 'was not paused'}")
        for other in others:
            click.echo(f"still paused: {describe_pause(other)}")
    if not resumed:
        raise click.exceptions.Exit(1)


def resume_command(paused: OperatorPause) -> str:
    """The command that ends a pause."""
    name = printable(paused.name)
    return f"smsqueue resume {f'--{paused.kind} {name}' if name else '--all'}"


def describe_pause(paused: OperatorPause) -> str:
    """``"tag sale is paused by alice until 2030-01-31 09:00:00 (wrong price), 3 messages wait"``"""
    until = f" until {format_time(paused.until)}" if paused.until else ""
    reason = f" ({printable(paused.reason)})" if paused.reason else ""
    about = "about " if paused.kind == "provider" and paused.waiting else ""
    waiting = format_count(paused.waiting, "message", "waits")
    return f"{paused} is paused by {printable(paused.by)}{until}{reason}, {about}{waiting}"


def operator_pause_document(paused: OperatorPause) -> dict[str, Any]:
    """A pause for --json."""
    return {
        "kind": paused.kind,
        "name": paused.name or None,
        "by": paused.by,
        "reason": paused.reason or None,
        "since": paused.since,
        "until": paused.until,
        "waiting": paused.waiting,
    }


def disobedient(pauses: Iterable[OperatorPause], workers: Iterable[Worker]) -> list[str]:
    """Names of live workers of older versions, which send what is paused: they know pauses of
    providers only."""
    if all(each.kind == "provider" for each in pauses):
        return []
    return [worker.name for worker in workers if worker.alive and not worker.pauses]


def older_workers_text(names: list[str]) -> str:
    """What workers of older versions do."""
    workers = printable(", ".join(names))
    return f"older workers do not know this pause and send what is paused: {workers}"
