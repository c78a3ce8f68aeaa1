"""Tags in ``status``: the progress of one, and those with the most waiting messages."""

from __future__ import annotations

from typing import Any

import click

from smsqueue.cli.gateways import open_gateway
from smsqueue.cli.output import (
    format_count,
    format_duration,
    format_time,
    make_console,
    make_table,
    print_json,
    printable,
)
from smsqueue.ledger import Progress, WaitingTags
from smsqueue.message.states import State

__all__ = ["describe_waiting_tags", "show_progress", "waiting_tags_document"]


def show_progress(tag: str, as_json: bool) -> None:
    """Print how far the messages of a tag are.

    Raises:
        LookupError: no message has the tag.
    """
    with open_gateway() as gateway:
        progress = gateway.progress(tag)
        pauses = [pause for pause in gateway.pauses() if pause.scope in ("all", f"tag:{tag}")]
        retention = gateway.settings.retention
    if not (progress.total or progress.damaged):
        raise LookupError(
            f"no message has the tag {tag!r} (records are kept {retention / 86400:g} days after "
            "their end)"
        )
    if as_json:
        print_json(_document(progress) | {"pauses": [vars(pause) for pause in pauses]})
        return
    click.echo(f"{tag}: {_summary(progress)}")
    for pause in pauses:
        until = f"until {format_time(pause.until)}" if pause.until else "until it is resumed"
        click.echo(f"{pause} is paused {until} by {printable(pause.by)}: {printable(pause.reason)}")
    click.echo()
    table = make_table("state", "messages", "")
    table.columns[1].justify = table.columns[2].justify = "right"
    for state in State:
        number = progress.states.get(state, 0)
        if number:
            table.add_row(state, str(number), f"{100 * number / progress.total:.1f} %")
    if progress.damaged:
        table.add_row("damaged", str(progress.damaged), "")
    make_console().print(table)
    click.echo(
        f"\naccepted from {format_time(progress.first_accepted_at)} to "
        f"{format_time(progress.last_accepted_at)}"
    )


def _summary(progress: Progress) -> str:
    """How many wait, how fast they are sent, and how long that will take."""
    scheduled = progress.states.get(State.SCHEDULED, 0)
    later = f", {scheduled} are scheduled" if scheduled else ""
    total = format_count(progress.total, "message")
    if not progress.waiting:
        return f"none of {total} waits to be sent{later}"
    text = (
        f"{progress.waiting} of {total} {'waits' if progress.waiting == 1 else 'wait'} to be sent"
    )
    if progress.seconds_left is None:
        return f"{text}, and none was sent in the last minute{later}"
    speed = f"{progress.per_second:.3g} per second"
    return f"{text}, {speed}, about {format_duration(progress.seconds_left)} left{later}"


def _document(progress: Progress) -> dict[str, Any]:
    left = progress.seconds_left
    return {
        "tag": progress.tag,
        "total": progress.total,
        "waiting": progress.waiting,
        "states": {str(state): progress.states.get(state, 0) for state in State},
        "damaged": progress.damaged,
        "per_second": round(progress.per_second, 3),
        "seconds_left": None if left is None else round(left, 1),
        "first_accepted_at": progress.first_accepted_at,
        "last_accepted_at": progress.last_accepted_at,
    }


def describe_waiting_tags(waiting: WaitingTags) -> str:
    """``"about 120000 black-friday, about 800 otp"``; "": no waiting message has a tag."""

    def shown(number: int) -> str:
        return str(number) if waiting.exact else f"about {float(f'{number:.2g}'):.0f}"

    return ", ".join(f"{shown(number)} {printable(tag)}" for tag, number in waiting.tags.items())


def waiting_tags_document(waiting: WaitingTags) -> list[dict[str, Any]]:
    """What ``status --json`` prints."""
    return [
        {"tag": tag, "waiting": number, "exact": waiting.exact}
        for tag, number in waiting.tags.items()
    ]
