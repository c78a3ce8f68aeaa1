"""Sending a message: send."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from datetime import datetime
from typing import Any

import click

from smsqueue import exc
from smsqueue.cli.diagnosis import consumed_queues, no_consumer
from smsqueue.cli.gateways import open_gateway
from smsqueue.cli.messages import message_document
from smsqueue.cli.options import json_option, parse_zoned_time
from smsqueue.cli.output import format_time, print_json, printable
from smsqueue.gateway import Gateway
from smsqueue.ledger import Record, diagnosed
from smsqueue.message.messages import OutgoingMessage
from smsqueue.message.states import ENDED_BADLY, ENDED_WELL, State

__all__ = ["send"]

#: --wait ends with these and exit code 1. A message can stay unknown for days.
_BAD = ENDED_BADLY | {State.UNKNOWN}
#: --wait --report ends with these.
_REPORTED = _BAD | {State.DELIVERED}


@click.command()
@click.argument("number")
@click.argument("text")
@click.option("--src", help="Number or sender id of the sender.")
@click.option("--provider", help="Name of the provider. Default: the router decides.")
@click.option("--route", multiple=True, help="A value for the router; may be repeated.")
@click.option("--key", help="Idempotency key: calls with the same key send one message.")
@click.option("--tag", "tags", multiple=True, help="A tag; may be repeated.")
@click.option(
    "--at",
    callback=parse_zoned_time,
    help="When to send, with time zone: 2030-01-31T09:00+01:00.",
)
@click.option("--expires", type=float, metavar="MINUTES", help="Do not send it later than this.")
@click.option("--report", is_flag=True, help="Request a delivery report.")
@click.option("--wait", is_flag=True, help="Wait until it is sent; with --report: reported.")
@click.option(
    "--timeout", type=float, default=60.0, show_default=True, help="Seconds that --wait may take."
)
@json_option
def send(
    number: str, text: str, wait: bool, timeout: float, as_json: bool, **arguments: Any
) -> None:
    """Queue TEXT for NUMBER. TEXT '-' is read from standard input."""
    message = _make_message(number, text, **arguments)
    with open_gateway() as gateway:
        try:
            gateway.send(message)
        except exc.QueueUnavailable as error:
            cause = diagnosed(gateway.settings, error)
            consequence = _describe_failure(cause, arguments["key"])
            raise click.ClickException(f"{cause}. {consequence}") from None
        except (TypeError, ValueError) as error:
            raise click.ClickException(str(error)) from None
        if not as_json:
            _print_id(message, wait)
        with suppress(exc.QueueUnavailable):  # the message is queued, so this is no error of send
            for warning in gateway.check():
                click.echo(f"warning: {warning}", err=True)
            if not (wait or _has_consumer(gateway)):
                click.echo(f"warning: {no_consumer(gateway.settings.send_queue)}", err=True)
        record, problem = None, None
        if wait:
            try:
                record = _wait(gateway, message, timeout)
                problem = _wait_problem(gateway, message, record, timeout)
            except exc.QueueUnavailable as error:
                problem = str(error)
    if as_json:
        document: dict[str, Any] = {"id": message.id, "duplicate": message.duplicate}
        print_json(document | (message_document(record, False) if record else {}))
    elif record and not problem:
        by = f" by {printable(record.provider)}" if record.provider else ""
        click.echo(f"{record.state}{by} at {format_time(record.changed_at)}")
    if problem:
        raise click.ClickException(problem)


def _make_message(
    number: str, text: str, src: str | None, provider: str | None, route: tuple[str, ...],
    key: str | None, tags: tuple[str, ...], at: datetime | None, expires: float | None,
    report: bool,
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
            tag=tags,
        )
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    return message


def _describe_failure(error: exc.QueueUnavailable, key: str | None) -> str:
    """Whether a message that the ledger did not confirm may be queued all the same."""
    if error.refused:
        return "The message was not queued"
    repetition = (
        "running it again with the same --key is safe"
        if key
        else "each run creates a new message, so running it again may send the text twice; with "
        "--key it would not"
    )
    return f"The message may be queued: {repetition}"


def _print_id(message: OutgoingMessage, wait: bool) -> None:
    queued = "sent before with this key as" if message.duplicate else "queued as"
    click.echo(f"{queued} {message.id}")
    if not wait:
        click.echo(f"show its state with: smsqueue show {message.id}")


def _wait(gateway: Gateway, message: OutgoingMessage, timeout: float) -> Record:
    """The record once it is sent (or reported, if a report was requested), or at the timeout."""
    final = _REPORTED if message.provider_options.status_report else ENDED_WELL | _BAD
    deadline = time.monotonic() + timeout
    while True:
        record = gateway.lookup(message.id or "")
        left = deadline - time.monotonic()
        if record.state in final or left <= 0:
            return record
        time.sleep(min(0.2, left))


def _wait_problem(
    gateway: Gateway, message: OutgoingMessage, record: Record, timeout: float
) -> str | None:
    """Why the message was not sent or reported; None if it was."""
    state = record.state
    show = f"smsqueue show {record.id}"
    wanted = _REPORTED if message.provider_options.status_report else ENDED_WELL
    if state in ENDED_WELL and state in wanted:
        return None
    if state in ENDED_WELL:
        return f"no delivery report within {timeout:g} s, the message is {state}: {show}"
    if state in _BAD:
        return f"the message is {state}: {show}"
    if state == State.QUEUED and not record.attempts:
        still = f"still queued after {timeout:g} s"
        queue = gateway.settings.send_queue
        if not _has_consumer(gateway):
            return f"{still}: {no_consumer(queue)}"
        paused = [pause.provider for pause in gateway.ledger.pauses()]
        if paused:
            names = ", ".join(map(printable, paused))
            return f"{still}, {names} {'is' if len(paused) == 1 else 'are'} paused: smsqueue status"
        triggers = gateway.ledger.queued_triggers()[queue]
        return f"{still}, {triggers} triggers wait in the broker: the workers are busy"
    return f"the message is {state} after {timeout:g} s, and sending goes on: {show}"


def _has_consumer(gateway: Gateway) -> bool:
    """True if a live worker consumes the send queue."""
    return gateway.settings.send_queue in consumed_queues(gateway.ledger.workers())
