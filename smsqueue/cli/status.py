"""The state of a running gateway, for people and for monitoring: status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import click
from rich.table import Table

from smsqueue import exc
from smsqueue.cli.diagnosis import (
    Level,
    Problem,
    Snapshot,
    find_problems,
    split_advice,
    take_snapshot,
)
from smsqueue.cli.gateways import open_gateway
from smsqueue.cli.options import json_option, parse_past_time, parse_tag
from smsqueue.cli.output import (
    format_count,
    format_duration,
    format_rate,
    format_size,
    format_time,
    make_console,
    make_table,
    print_json,
    printable,
)
from smsqueue.cli.pauses import describe_pause, operator_pause_document
from smsqueue.cli.providers import (
    Traffic,
    errors_header,
    format_errors,
    format_pause,
    pause_document,
    traffic_document,
)
from smsqueue.cli.tag_progress import describe_waiting_tags, show_progress, waiting_tags_document
from smsqueue.ledger import (
    Activity,
    Direction,
    RedisMisconfigured,
    Room,
    SlotUse,
    Window,
    Worker,
    total_slots,
)
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
    messages = paused or format_count(waiting, "message", "waits") + _trend(snapshot.activity)
    return f"{messages}, {format_count(len(snapshot.workers), 'worker')}"


def _trend(activity: Activity | None) -> str:
    """Where the backlog is heading, if it is heading anywhere."""
    if activity and activity.backlog.seconds_left:
        return f" (gone in about {format_duration(activity.backlog.seconds_left)})"
    if activity and activity.backlog.direction is Direction.GROWING:
        return f" (growing by {format_rate(activity.backlog.growth or 0.0)})"
    return ""


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
    table.add_row("time", format_time(snapshot.at))
    table.add_row("messages", ", ".join(f"{counts[state]} {state}" for state in _MESSAGE_STATES))
    if snapshot.oldest_queued:
        table.add_row("", f"the oldest is queued for {format_duration(snapshot.oldest_queued)}")
    if snapshot.waiting_for_pauses:
        table.add_row("", printable(snapshot.waiting_for_pauses))
    for paused in snapshot.operator_pauses or ():
        table.add_row("paused", f"{describe_pause(paused)}, since {format_time(paused.since)}")
    table.add_row("", _describe_backlog(snapshot.activity))
    table.add_row("rates", _describe_rates(snapshot.activity))
    if snapshot.tags.tags:
        table.add_row("tags", describe_waiting_tags(snapshot.tags))
    table.add_row("events", ", ".join(f"{counts[state]} {state}" for state in _EVENT_STATES))
    if snapshot.oldest_event:
        age = format_duration(snapshot.oldest_event)
        table.add_row("", f"the oldest has waited for its handlers for {age}")
    for lane, backlog in snapshot.backlog.items():
        overdue = f" for up to {format_duration(backlog.oldest)}" if backlog.due else ""
        table.add_row(f"lane {lane}", f"{backlog.due} due{overdue}, of {backlog.held}")
    table.add_row("slots", _describe_slots(_total(total_slots(snapshot.workers).values())))
    if len(builds := Counter(_build(worker) for worker in snapshot.workers)) > 1:
        several = (
            f"{format_count(number, 'worker')} of {build}" for build, number in builds.items()
        )
        table.add_row("builds", ", ".join(several))
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


def _describe_backlog(activity: Activity | None) -> str:
    if activity is None:
        return "rates are not known: this account may not read them, see smsqueue acl"
    backlog = activity.backlog
    waiting = format_count(backlog.waiting, "message", "waits")
    change = format_rate(abs(backlog.growth or 0.0))
    match backlog.direction:
        case Direction.EMPTY:
            return "none waits to be sent"
        case Direction.SHRINKING:
            return f"{waiting}: gone in about {format_duration(backlog.seconds_left or 0.0)}"
        case Direction.GROWING:
            return f"{waiting}: growing by {change}"
        case Direction.STEADY:
            return f"{waiting}: steady, as many come as go"
        case Direction.STUCK:
            return f"{waiting}: none has left {_last(activity.minute)}"
        case Direction.UNKNOWN:
            return f"{waiting}: how long is not known yet"


def _describe_rates(activity: Activity | None) -> str:
    minute = activity.minute if activity else None
    if minute is None:
        return "not known until a worker has run for some seconds"
    rates = (
        ("accepted", minute.per_second("accepted")),
        ("sent", minute.per_second("sent")),
        ("failed", minute.per_second("ended", "failed")),
        ("events handled", minute.events_handled / minute.seconds),
    )
    shown = ", ".join(f"{format_rate(rate)} {what}" for what, rate in rates)
    return f"{shown} {_last(minute)}"


def _last(window: Window | None) -> str:
    return f"in the last {format_duration(window.seconds)}" if window else ""


def _total(uses: Iterable[SlotUse]) -> SlotUse:
    return SlotUse(*(sum(numbers) for numbers in zip((0, 0, 0), *uses, strict=True)))


def _describe_slots(use: SlotUse | None, *, short: bool = False) -> str:
    """``"12 of 64"``, with the highest limit if it is not reached now; ``"?"``: not known.

    Args:
        short: Without the highest limit.
    """
    if use is None or not use.most:
        return "?"
    most = "" if short or use.most == use.limit else f" (at most {use.most})"
    return f"{use.in_use} of {use.limit}{most}"


def _provider_table(snapshot: Snapshot) -> Table:
    header = errors_header(snapshot.activity)
    table = make_table(
        *("provider", "attempts", "sent", "rate", "slots in use"),
        *(header, "errors in total", "paused"),
    )
    slots = total_slots(snapshot.workers)
    for name, traffic in snapshot.traffic.items():
        rate = traffic.sent_per_second
        table.add_row(
            printable(name),
            str(traffic.total.attempts),
            str(traffic.total.sent),
            "?" if rate is None else format_rate(rate),
            _describe_slots(slots.get(name)),
            format_errors(traffic.recent),
            format_errors(traffic.total),
            format_pause(snapshot.pauses.get(name)),
        )
    if snapshot.router.total.errors:
        errors = format_errors(snapshot.router.recent), format_errors(snapshot.router.total)
        table.add_row("(router)", "", "", "", "", *errors, "")
    return table


def _worker_table(workers: list[Worker]) -> Table:
    hung = any(worker.hung for worker in workers)
    table = make_table(
        *("worker", "queues", "slots in use", "handlers", "memory"),
        *(("hung calls",) if hung else ()),
        *("heartbeat", "up", "build"),
    )
    for worker in workers:
        calls = [str(sum(worker.hung.values()))] if hung else []
        table.add_row(
            printable(worker.name),
            ", ".join(map(printable, worker.queues)),
            _describe_slots(_total(worker.slots.values()), short=True),
            _describe_slots(worker.handlers, short=True) if worker.handlers else "",
            "?" if worker.memory is None else format_size(worker.memory),
            *calls,
            f"{format_duration(worker.ago)} ago",
            "?" if worker.uptime is None else format_duration(worker.uptime),
            _build(worker),
        )
    return table


def _build(worker: Worker) -> str:
    python = f"Python {worker.python}" if worker.python else None
    parts = (worker.version or "?", worker.build, python)
    return printable(" ".join(part for part in parts if part))


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
        return document | dict.fromkeys(_FIELDS)
    redis = snapshot.server.document() | {
        "reserved": snapshot.room.reserved,
        "left": snapshot.room.left,
        "webhooks_left": snapshot.room.webhooks_left,
        "webhook_quota": snapshot.room.quota,
        "clock_ahead": round(snapshot.clock_ahead, 3),
    }
    return document | {
        "time": snapshot.at,
        "messages": {state: snapshot.counts[state] for state in _MESSAGE_STATES},
        "oldest_queued": round(snapshot.oldest_queued, 1),
        "waiting": _backlog_document(snapshot.activity),
        "rates": _rates_document(snapshot.activity),
        "events": {state: snapshot.counts[state] for state in _EVENT_STATES},
        "oldest_event": round(snapshot.oldest_event, 1),
        "damaged": len(snapshot.damaged),
        "unrouted": snapshot.unrouted.number,
        "pauses": None
        if snapshot.operator_pauses is None
        else [operator_pause_document(each) for each in snapshot.operator_pauses],
        "tags": waiting_tags_document(snapshot.tags),
        "backlog": {
            lane: {"due": b.due, "oldest": round(b.oldest, 1), "held": b.held}
            for lane, b in snapshot.backlog.items()
        },
        "queues": snapshot.queues,
        "webhooks": [webhooks._asdict() for webhooks in snapshot.webhooks],
        "providers": [_provider_document(name, snapshot) for name in snapshot.traffic],
        "router": _router_document(snapshot.router),
        "slots": _total(total_slots(snapshot.workers).values())._asdict(),
        "workers": [_worker_document(worker) for worker in snapshot.workers],
        "redis": redis,
    }


#: Fields that are null if the state is not known.
_FIELDS = (
    *("time", "messages", "oldest_queued", "waiting", "rates", "events", "oldest_event"),
    *("damaged", "unrouted", "pauses", "tags", "backlog", "queues", "webhooks", "providers"),
    *("router", "slots", "workers", "redis"),
)


def _backlog_document(activity: Activity | None) -> dict[str, Any] | None:
    if activity is None:
        return None
    backlog = activity.backlog
    growth, left = backlog.growth, backlog.seconds_left
    return {
        "messages": backlog.waiting,
        "direction": backlog.direction,
        "growth": None if growth is None else round(growth, 3),
        "seconds_left": None if left is None else round(left, 1),
    }


def _rates_document(activity: Activity | None) -> dict[str, float] | None:
    minute = activity.minute if activity else None
    if minute is None:
        return None
    return {
        "seconds": round(minute.seconds, 1),
        "accepted": round(minute.per_second("accepted"), 3),
        "sent": round(minute.per_second("sent"), 3),
        "failed": round(minute.per_second("ended", "failed"), 3),
        "events": round(minute.events_handled / minute.seconds, 3),
    }


def _provider_document(name: str, snapshot: Snapshot) -> dict[str, Any]:
    slots = total_slots(snapshot.workers).get(name)
    return {
        "name": name,
        **traffic_document(snapshot.traffic[name]),
        "slots": slots and slots._asdict(),
        "paused": pause_document(snapshot.pauses.get(name)),
    }


def _router_document(router: Traffic) -> dict[str, Any]:
    return {"errors": router.total.errors, "recent": router.recent and router.recent.errors}


def _worker_document(worker: Worker) -> dict[str, Any]:
    return {
        "name": worker.name,
        "alive": worker.alive,
        "ago": round(worker.ago, 1),
        "uptime": worker.uptime,
        "queues": worker.queues,
        "slots": worker.concurrency,
        "slots_in_use": {name: use._asdict() for name, use in sorted(worker.slots.items())},
        "handlers": worker.handlers and worker.handlers._asdict(),
        "memory": worker.memory,
        "hung_calls": worker.hung,
        "failing": worker.failing,
        "version": worker.version,
        "build": worker.build,
        "python": worker.python,
    }
