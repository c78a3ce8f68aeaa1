"""A status as tables, and as a document."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table

from smsqueue.cli.diagnosis import Level, Problem
from smsqueue.cli.health import Health
from smsqueue.cli.output import columns, screen
from smsqueue.cli.tally import Tally, pause_shown, paused
from smsqueue.cli.words import clean, counted, size, span
from smsqueue.ledger import Room, Worker
from smsqueue.ledger.watching import Server
from smsqueue.message.states import EventState, State

__all__ = ["as_document", "errors_shown", "report"]

_MESSAGES = (
    State.QUEUED,
    State.SCHEDULED,
    State.RETRYING,
    State.SENDING,
    State.UNKNOWN,
    State.FAILED,
)
_EVENTS = (EventState.WAITING, EventState.RUNNING, EventState.DEAD, EventState.UNHEARD)


def report(health: Health, problems: list[Problem]) -> None:
    """Print everything, the problems last."""
    count, console = health.counts, screen()
    rows = Table(box=None, pad_edge=False, show_header=False)
    rows.add_row("messages", ", ".join(f"{count[state]} {state}" for state in _MESSAGES))
    if health.oldest_queued:
        rows.add_row("", f"the oldest is queued for {span(health.oldest_queued)}")
    if health.waiting_for_pauses:
        rows.add_row("", clean(health.waiting_for_pauses))
    rows.add_row("events", ", ".join(f"{count[state]} {state}" for state in _EVENTS))
    if health.oldest_event:
        rows.add_row(
            "", f"the oldest waits since {span(health.oldest_event)} for its handlers to end"
        )
    for lane, backlog in health.backlog.items():
        since = f" since {span(backlog.oldest)}" if backlog.due else ""
        rows.add_row(f"lane {lane}", f"{backlog.due} due{since}, of {backlog.held}")
    rows.add_row("broker", ", ".join(f"{n} in {queue}" for queue, n in health.queues.items()))
    if health.damaged:
        rows.add_row("damaged", f"{counted(len(health.damaged), 'record')}")
    for found in health.webhooks:
        waiting = f"{clean(found.provider)}: {size(found.held)} in {found.waiting} events"
        rows.add_row(
            "webhooks", f"{waiting}, of {size(health.room.quota)}; kept {size(found.kept)}"
        )
    rows.add_row("redis", _server(health.server, health.room))
    for table in (rows, _providers(health), _workers(health.workers)):
        if table.rows:
            click.echo()
            console.print(table)
    if problems:
        click.echo("\nproblems")
    for problem in problems:
        console.print(f"  {problem.level.name:<8} {problem}", soft_wrap=True)


def _server(server: Server, room: Room) -> str:
    limit = f"of {size(server.max)}" if server.max else "without a limit"
    aof = {True: "AOF", False: "no AOF", None: "AOF unknown"}[server.aof]
    left = f", {size(max(0, room.left))} left for new messages" if room.max else ""
    return f"{server.version}, {size(server.used)} {limit}{left}, {aof}"


def errors_shown(tally: Tally) -> str:
    """Errors by class, the most frequent first."""
    return ", ".join(f"{number} {clean(error)}" for error, number in tally.errors.most_common())


def _providers(health: Health) -> Table:
    rows = columns("provider", "attempts", "sent", "errors", "paused")
    for name in sorted({*health.tallies, *health.pauses}):
        tally = health.tallies.get(name, Tally())
        pause = paused(health.pauses.get(name))
        numbers = (str(tally.attempts), str(tally.sent))
        rows.add_row(clean(name), *numbers, errors_shown(tally), pause)
    return rows


def _workers(workers: list[Worker]) -> Table:
    rows = columns("worker", "queues", "slots", "hung calls", "heard of", "version")
    for worker in workers:
        ago = span(worker.ago)
        heard = f"{ago} ago" if worker.alive else f"not heard of for {ago}: killed?"
        slots, version = str(worker.concurrency), clean(worker.version)
        hung = str(sum(worker.hung.values()))
        rows.add_row(clean(worker.name), ", ".join(worker.queues), slots, hung, heard, version)
    return rows


def as_document(
    level: Level, summary: str, problems: list[Problem], health: Health | None
) -> dict[str, Any]:
    """For machines; without ``health`` its fields are null."""
    found: dict[str, Any] = {
        "status": level.name,
        "exit_code": int(level),
        "summary": summary,
        "problems": [{"level": p.level.name, "what": p.what, "do": p.do} for p in problems],
    }
    if health is None:
        names = ("messages", "oldest_queued", "events", "oldest_event", "damaged", "unrouted")
        others = ("backlog", "queues", "webhooks", "providers", "workers", "redis")
        return found | dict.fromkeys((*names, *others))
    providers = sorted({*health.tallies, *health.pauses})
    return found | {
        "messages": {state: health.counts[state] for state in _MESSAGES},
        "oldest_queued": round(health.oldest_queued, 1),
        "events": {state: health.counts[state] for state in _EVENTS},
        "oldest_event": round(health.oldest_event, 1),
        "damaged": len(health.damaged),
        "unrouted": health.unrouted.number,
        "backlog": {
            lane: {"due": b.due, "oldest": round(b.oldest, 1), "held": b.held}
            for lane, b in health.backlog.items()
        },
        "queues": health.queues,
        "webhooks": [found._asdict() for found in health.webhooks],
        "providers": [
            {"name": name}
            | vars(health.tallies.get(name, Tally()))
            | {"paused": pause_shown(health.pauses.get(name))}
            for name in providers
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
            for worker in health.workers
        ],
        "redis": health.server._asdict()
        | {
            "reserved": health.room.reserved,
            "left": health.room.left,
            "webhooks_left": health.room.webhooks_left,
            "webhook_quota": health.room.quota,
        },
    }
