"""The state of a running gateway, for people and for monitoring: status."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click
from rich.table import Table

from smsqueue import exc
from smsqueue.cli.gateways import open_gateway
from smsqueue.cli.options import json_option, parse_past_time, parse_tag
from smsqueue.cli.output import (
    format_count,
    format_duration,
    format_size,
    make_console,
    make_table,
    print_json,
    printable,
)
from smsqueue.cli.problems import (
    Level,
    Problem,
    Snapshot,
    find_problems,
    split_advice,
    take_snapshot,
)
from smsqueue.cli.providers import (
    ProviderTotals,
    format_errors,
    format_pause,
    pause_document,
)
from smsqueue.cli.tags import describe_waiting_tags, show_progress, waiting_tags_document
from smsqueue.ledger import RedisMisconfigured, Room, Worker
from smsqueue.ledger.server_facts import Server
from smsqueue.message.states import EventState, State
from smsqueue.settings import SettingsError

__all__ = ["status"]

_MESSAGE_STATES = (
    State.QUEUED,
    State.SCHEDULED,
    State.RETRYING,
    State.SENDING,
    State.UNKNOWN,
    State.FAILED,
)
_EVENT_STATES = (EventState.WAITING, EventState.RUNNING, EventState.DEAD, EventState.UNHEARD)


@click.command()
@click.option(
    "--max-oldest",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Warn when anything is overdue by more than this.",
)
@click.option(
    "--since",
    callback=parse_past_time,
    metavar="TIME",
    help="Ignore what became unknown, dead or unheard before: 30m, 2h, 1d, or an ISO time.",
)
@click.option(
    "--tag", callback=parse_tag, help="Show how far the messages of this tag are, nothing else."
)
@json_option
def status(max_oldest: float, since: datetime | None, tag: str | None, as_json: bool) -> None:
    """Show the state of the gateway, and a remedy for each problem.

    The first line is a summary. Exit code 0: no problem. 1: something needs attention.
    2: messages do not move. 3: a setting is invalid, so the state is not known.
    """
    if tag is not None:
        show_progress(tag, as_json)
        return
    snapshot: Snapshot | None = None
    try:
        with open_gateway() as gateway:
            gateway.ping()
            snapshot = take_snapshot(gateway, since)
            problems = find_problems(snapshot, max_oldest)
        summary = _summary(snapshot, problems)
    except RedisMisconfigured as error:
        problems = [Problem(Level.CRITICAL, *split_advice(str(error)))]
        summary = "Redis cannot be used as it is"
    except exc.LedgerError as error:
        problems = [Problem(Level.CRITICAL, *split_advice(str(error)))]
        summary = "the ledger cannot be read, though Redis answers"
    except exc.QueueUnavailable as error:
        problems = [Problem(Level.CRITICAL, *split_advice(str(error)))]
        summary = "Redis does not answer"
    except SettingsError as error:
        problems = [Problem(Level.UNKNOWN, *split_advice(str(error)))]
        summary = "a setting is invalid"
    level = problems[0].level if problems else Level.OK
    if as_json:
        print_json(_document(level, summary, problems, snapshot))
    else:
        click.echo(f"{level.name}: {summary}")
        if snapshot is not None:
            _print_tables(snapshot, problems)
    if snapshot is None:
        click.echo(f"{level.name}: {problems[0]}", err=True)
    raise click.exceptions.Exit(int(level))


def _summary(snapshot: Snapshot, problems: list[Problem]) -> str:
    paused = printable(snapshot.waiting_for_pauses)
    if problems:
        others = len(problems) - 1
        more = f", and {format_count(others, 'more problem')}" if others else ""
        return problems[0].text + more + (f"; {paused}" if paused else "")
    waiting = snapshot.waiting[snapshot.send_queue]
    messages = paused or format_count(waiting, "message", "waits")
    return f"{messages}, {format_count(len(snapshot.workers), 'worker')}"


# --- For people --------------------------------------------------------------


def _print_tables(snapshot: Snapshot, problems: list[Problem]) -> None:
    console = make_console()
    tables = (_overview_table(snapshot), _provider_table(snapshot), _worker_table(snapshot.workers))
    for table in tables:
        if table.rows:
            click.echo()
            console.print(table)
    if problems:
        click.echo("\nproblems")
    for problem in problems:
        console.print(f"  {problem.level.name:<8} {problem}", soft_wrap=True)


def _overview_table(snapshot: Snapshot) -> Table:
    counts = snapshot.counts
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("messages", ", ".join(f"{counts[state]} {state}" for state in _MESSAGE_STATES))
    if snapshot.oldest_queued:
        table.add_row("", f"the oldest is queued for {format_duration(snapshot.oldest_queued)}")
    if snapshot.waiting_for_pauses:
        table.add_row("", printable(snapshot.waiting_for_pauses))
    if snapshot.tags.tags:
        table.add_row("tags", describe_waiting_tags(snapshot.tags))
    table.add_row("events", ", ".join(f"{counts[state]} {state}" for state in _EVENT_STATES))
    if snapshot.oldest_event:
        age = format_duration(snapshot.oldest_event)
        table.add_row("", f"the oldest has waited for its handlers for {age}")
    for lane, backlog in snapshot.backlog.items():
        overdue = f" for up to {format_duration(backlog.oldest)}" if backlog.due else ""
        table.add_row(f"lane {lane}", f"{backlog.due} due{overdue}, of {backlog.held}")
    table.add_row("broker", ", ".join(f"{n} in {queue}" for queue, n in snapshot.queues.items()))
    if snapshot.damaged:
        table.add_row("damaged", format_count(len(snapshot.damaged), "record"))
    for webhooks in snapshot.webhooks:
        waiting = f"{format_size(webhooks.held)} in {webhooks.waiting} events"
        quota, kept = format_size(snapshot.room.quota), format_size(webhooks.kept)
        name = printable(webhooks.provider)
        table.add_row("webhooks", f"{name}: {waiting}, of {quota}; {kept} in handled events")
    table.add_row("redis", _describe_server(snapshot.server, snapshot.room))
    return table


def _describe_server(server: Server, room: Room) -> str:
    left = f", {format_size(max(0, room.left))} left for new messages" if room.max else ""
    return f"{server}{left}"


def _provider_table(snapshot: Snapshot) -> Table:
    table = make_table("provider", "attempts", "sent", "errors", "paused")
    for name in sorted({*snapshot.totals, *snapshot.pauses}):
        totals = snapshot.totals.get(name, ProviderTotals())
        table.add_row(
            printable(name),
            str(totals.attempts),
            str(totals.sent),
            format_errors(totals),
            format_pause(snapshot.pauses.get(name)),
        )
    return table


def _worker_table(workers: list[Worker]) -> Table:
    table = make_table("worker", "queues", "slots", "hung calls", "heartbeat", "version")
    for worker in workers:
        age = format_duration(worker.ago)
        table.add_row(
            printable(worker.name),
            ", ".join(worker.queues),
            str(worker.concurrency),
            str(sum(worker.hung.values())),
            f"{age} ago" if worker.alive else f"none for {age}: killed?",
            printable(worker.version),
        )
    return table


# --- For machines ------------------------------------------------------------


def _document(
    level: Level, summary: str, problems: list[Problem], snapshot: Snapshot | None
) -> dict[str, Any]:
    """What --json prints; without a snapshot its fields are null."""
    document: dict[str, Any] = {
        "status": level.name,
        "exit_code": int(level),
        "summary": summary,
        "problems": [{"level": p.level.name, "what": p.text, "do": p.remedy} for p in problems],
    }
    if snapshot is None:
        names = ("messages", "oldest_queued", "events", "oldest_event", "damaged", "unrouted")
        others = ("tags", "backlog", "queues", "webhooks", "providers", "workers", "redis")
        return document | dict.fromkeys((*names, *others))
    return document | {
        "messages": {state: snapshot.counts[state] for state in _MESSAGE_STATES},
        "oldest_queued": round(snapshot.oldest_queued, 1),
        "events": {state: snapshot.counts[state] for state in _EVENT_STATES},
        "oldest_event": round(snapshot.oldest_event, 1),
        "damaged": len(snapshot.damaged),
        "unrouted": snapshot.unrouted.number,
        "tags": waiting_tags_document(snapshot.tags),
        "backlog": {
            lane: {"due": b.due, "oldest": round(b.oldest, 1), "held": b.held}
            for lane, b in snapshot.backlog.items()
        },
        "queues": snapshot.queues,
        "webhooks": [webhooks._asdict() for webhooks in snapshot.webhooks],
        "providers": [
            {"name": name}
            | vars(snapshot.totals.get(name, ProviderTotals()))
            | {"paused": pause_document(snapshot.pauses.get(name))}
            for name in sorted({*snapshot.totals, *snapshot.pauses})
        ],
        "workers": [
            {
                "name": worker.name,
                "alive": worker.alive,
                "ago": round(worker.ago, 1),
                "queues": worker.queues,
                "slots": worker.concurrency,
                "hung_calls": worker.hung,
                "version": worker.version,
                "failing": worker.failing,
            }
            for worker in snapshot.workers
        ],
        "redis": snapshot.server.document()
        | {
            "reserved": snapshot.room.reserved,
            "left": snapshot.room.left,
            "webhooks_left": snapshot.room.webhooks_left,
            "webhook_quota": snapshot.room.quota,
        },
    }
