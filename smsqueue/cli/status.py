"""How it goes, for people and for monitoring: status."""

from __future__ import annotations

from datetime import datetime

import click

from smsqueue import exc
from smsqueue.cli.diagnosis import Level, Problem, problems
from smsqueue.cli.health import Health, examine
from smsqueue.cli.output import json_option, opened, show_json
from smsqueue.cli.reporting import as_document, report
from smsqueue.cli.times import past
from smsqueue.cli.words import clean, counted
from smsqueue.ledger import RedisMisconfigured
from smsqueue.settings import SettingsError

__all__ = ["status"]


@click.command()
@click.option(
    "--max-oldest",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="So long may something be due.",
)
@click.option(
    "--since",
    callback=past,
    metavar="TIME",
    help="What became unknown, dead or unheard before is no problem: 30m, 2h, 1d, or an ISO time.",
)
@json_option
def status(max_oldest: float, since: datetime | None, as_json: bool) -> None:
    """Show how it goes, and what to do where it does not.

    The first line sums it up. Exit code 0: all is well. 1: something needs attention.
    2: messages do not move. 3: a setting cannot be used, so nobody knows.
    """
    health: Health | None = None
    try:
        with opened() as gateway:
            gateway.ping()
            health = examine(gateway, since)
            found = problems(health, max_oldest)
        summary = _summary(health, found)
    except RedisMisconfigured as error:
        found = [_problem(Level.CRITICAL, str(error))]
        summary = "Redis cannot be used as it is"
    except exc.LedgerError as error:
        found = [_problem(Level.CRITICAL, str(error))]
        summary = "the ledger cannot be read, though Redis answers"
    except exc.QueueUnavailable as error:
        found = [_problem(Level.CRITICAL, str(error))]
        summary = "Redis does not answer"
    except SettingsError as error:
        found = [_problem(Level.UNKNOWN, str(error))]
        summary = "a setting cannot be used"
    level = found[0].level if found else Level.OK
    if as_json:
        show_json(as_document(level, summary, found, health))
    else:
        click.echo(f"{level.name}: {summary}")
        if health is not None:
            report(health, found)
    if health is None:
        click.echo(f"{level.name}: {found[0]}", err=True)
    raise click.exceptions.Exit(int(level))


def _problem(level: Level, text: str) -> Problem:
    what, _, do = text.partition(": ")
    return Problem(level, what, do)


def _summary(health: Health, found: list[Problem]) -> str:
    paused = clean(health.waiting_for_pauses)
    if found:
        more = f", and {counted(len(found) - 1, 'more problem')}" if found[1:] else ""
        return found[0].what + more + (f"; {paused}" if paused else "")
    waiting = paused or counted(health.waiting[health.send_queue], "message", "waits")
    return f"{waiting}, {counted(len(health.workers), 'worker')}"
