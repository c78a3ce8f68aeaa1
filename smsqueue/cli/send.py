"""Sending a message by hand."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from datetime import datetime
from typing import Any

import click

from smsqueue import exc
from smsqueue.cli.output import json_option, opened, show_json
from smsqueue.cli.shown import message_shown
from smsqueue.cli.tally import consumed, start_worker
from smsqueue.cli.times import aware
from smsqueue.cli.words import clean, local
from smsqueue.gateway import Gateway
from smsqueue.ledger import Record, diagnosed
from smsqueue.message.messages import OutgoingMessage
from smsqueue.message.states import ENDED_BADLY, ENDED_WELL, State

__all__ = ["send"]

#: Waiting longer is of no use: an unknown message may stay so for days.
_BAD = ENDED_BADLY | {State.UNKNOWN}
#: Nothing more comes of these when a report was asked for.
_REPORTED = _BAD | {State.DELIVERED}


@click.command()
@click.argument("number")
@click.argument("text")
@click.option("--src", help="Number or sender id that it comes from.")
@click.option("--provider", help="Name of the provider; without one, the router decides.")
@click.option("--route", multiple=True, help="A value for the router; may be repeated.")
@click.option("--key", help="Idempotency key: sends with the same key are one message.")
@click.option("--at", callback=aware, help="When to send, with time zone: 2030-01-31T09:00+01:00.")
@click.option("--expires", type=float, metavar="MINUTES", help="Not to be sent after this long.")
@click.option("--report", is_flag=True, help="Ask for a delivery report.")
@click.option("--wait", is_flag=True, help="Wait until it is sent (--report: reported).")
@click.option("--timeout", type=float, default=60.0, show_default=True, help="Of --wait, seconds.")
@json_option
def send(number: str, text: str, wait: bool, timeout: float, as_json: bool, **given: Any) -> None:
    """Queue TEXT for NUMBER; TEXT '-' is read from standard input."""
    message = _message(number, text, **given)
    with opened() as gateway:
        try:
            gateway.send(message)
        except exc.QueueUnavailable as error:
            found = diagnosed(gateway.settings, error)
            raise click.ClickException(f"{found}. {_outcome(found, given['key'])}") from None
        except (TypeError, ValueError) as error:
            raise click.ClickException(str(error)) from None
        if not as_json:
            _tell(message, wait)
        with suppress(exc.QueueUnavailable):  # the message is in, whatever happens now
            for warning in gateway.check():
                click.echo(f"warning: {warning}", err=True)
            if not (wait or _consumed(gateway)):
                click.echo(f"warning: {start_worker(gateway.settings.send_queue)}", err=True)
        record, problem = None, None
        if wait:
            try:
                record = _waited(gateway, message, timeout)
                problem = _problem(gateway, message, record, timeout)
            except exc.QueueUnavailable as error:
                problem = str(error)
    if as_json:
        shown: dict[str, Any] = {"id": message.id, "duplicate": message.duplicate}
        show_json(shown | (message_shown(record, False) if record else {}))
    elif record and not problem:
        by = f" by {clean(record.provider)}" if record.provider else ""
        click.echo(f"{record.state}{by} at {local(record.changed_at)}")
    if problem:
        raise click.ClickException(problem)


def _message(
    number: str, text: str, src: str | None, provider: str | None, route: tuple[str, ...],
    key: str | None, at: datetime | None, expires: float | None, report: bool,
) -> OutgoingMessage:  # fmt: skip
    body = sys.stdin.read().rstrip("\n") if text == "-" else text
    message = OutgoingMessage(number, body, src=src, provider=provider)
    if route:
        message.route(*route)
    try:
        message.options(
            status_report=report,
            expires=expires,
            idempotency_key=key,
            send_at=at,
        )
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    return message


def _outcome(error: exc.QueueUnavailable, key: str | None) -> str:
    """What became of a message that the ledger did not confirm."""
    if error.refused:
        return "The message was not queued"
    again = (
        "running it again with the same --key is safe"
        if key
        else "each run of this command makes a new message, so running it again may send it twice "
        "(with --key it would not)"
    )
    return f"The message may be queued: {again}"


def _waited(gateway: Gateway, message: OutgoingMessage, timeout: float) -> Record:
    """The record once nothing more is to come, or at the end of the patience."""
    final = _REPORTED if message.provider_options.status_report else ENDED_WELL | _BAD
    until = time.monotonic() + timeout
    while True:
        record = gateway.lookup(message.id or "")
        left = until - time.monotonic()
        if record.state in final or left <= 0:
            return record
        time.sleep(min(0.2, left))


def _problem(
    gateway: Gateway, message: OutgoingMessage, record: Record, timeout: float
) -> str | None:
    """Why waiting did not end well."""
    state = record.state
    look = f"smsqueue show {record.id}"
    wanted = _REPORTED if message.provider_options.status_report else ENDED_WELL
    if state in ENDED_WELL and state in wanted:
        return None
    if state in ENDED_WELL:
        return f"no delivery report within {timeout:g} s, it is {state}: {look}"
    if state in _BAD:
        return f"it is {state}: {look}"
    if state == State.QUEUED and not record.attempts:
        queue = gateway.settings.send_queue
        if not _consumed(gateway):
            return f"still queued after {timeout:g} s: {start_worker(queue)}"
        paused = [pause.provider for pause in gateway.ledger.pauses()]
        if paused:
            names = ", ".join(map(clean, paused))
            return f"still queued after {timeout:g} s, {names} is paused: smsqueue status"
        waiting = gateway.ledger.queued_triggers()[queue]
        return f"still queued after {timeout:g} s, {waiting} triggers wait: the workers are busy"
    return f"it is {state} after {timeout:g} s, and goes on by itself: {look}"


def _consumed(gateway: Gateway) -> bool:
    """Is a live worker consuming the queue of what is to be sent?"""
    return gateway.settings.send_queue in consumed(gateway.ledger.workers())


def _tell(message: OutgoingMessage, wait: bool) -> None:
    before = "sent before with this key as" if message.duplicate else "queued as"
    click.echo(f"{before} {message.id}")
    if not wait:
        click.echo(f"look with: smsqueue show {message.id}")
