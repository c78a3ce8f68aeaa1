"""Deleting the events that webhooks recorded: purge."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import click

from smsqueue import exc
from smsqueue.cli.gateways import open_gateway
from smsqueue.cli.options import json_option, parse_past_time
from smsqueue.cli.output import format_count, format_size, is_interactive, print_json, printable
from smsqueue.cli.providers import check_provider
from smsqueue.gateway import Gateway
from smsqueue.ledger import Action, Purged
from smsqueue.message.states import EventState

__all__ = ["purge"]

#: Events that a worker handles are kept.
_STATES = [state for state in EventState if state != EventState.RUNNING]


@dataclass(frozen=True)
class EventFilters:
    """Which events to delete; None or empty: no restriction."""

    provider: str | None
    kind: str | None
    states: tuple[str, ...]
    since: datetime | None
    before: datetime | None

    def __bool__(self) -> bool:
        return any((self.provider is not None, self.kind, self.states, self.since, self.before))


@click.command()
@click.option("--provider", help="Only events of this provider's webhooks.")
@click.option(
    "--kind",
    type=click.Choice(["received", "status"]),
    help="Only incoming messages (received) or delivery reports (status).",
)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(sorted(map(str, _STATES))),
    help="Only events in this state; may be repeated.",
)
@click.option(
    "--since",
    callback=parse_past_time,
    metavar="TIME",
    help="Only events recorded in the last 30m, 2h or 1d, or since an ISO time.",
)
@click.option(
    "--before",
    callback=parse_past_time,
    metavar="TIME",
    help="Only events older than 30m, 2h or 1d, or recorded before an ISO time.",
)
@click.option("--all", "everything", is_flag=True, help="All events; not with other filters.")
@click.option("--dry-run", is_flag=True, help="Count the events, delete nothing.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
def purge(
    provider: str | None,
    kind: str | None,
    states: tuple[str, ...],
    since: datetime | None,
    before: datetime | None,
    everything: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete incoming messages and delivery reports that webhooks recorded, as after a flood.

    They are counted first. Their handlers do not run any more. Sent messages, and the reports that
    they already have, stay.
    """
    filters = EventFilters(provider, kind, states, since, before)
    if everything and filters:
        raise click.UsageError("--all accepts no filters: leave out --all, or the filters")
    if not (everything or filters):
        raise click.UsageError(
            "which events? Give --provider, --kind, --state, --since or --before, or else --all"
        )
    if since and before and before < since:
        raise click.UsageError("--before is earlier than --since: no event is between them")
    with open_gateway() as gateway:
        matching = _run(gateway, filters, dry_run=True)
        if provider is not None and not (matching.number or matching.running):
            check_provider(gateway, provider)
        amount = f"{format_count(matching.number, 'event')}, {format_size(matching.bytes)}"
        if not (dry_run or yes) and matching.number:
            if not is_interactive():
                raise click.UsageError(f"{amount} would be deleted: to delete them, add --yes")
            click.confirm(f"Delete {amount}?", abort=True, err=True)
        purged = matching if dry_run else _purge(gateway, filters, matching)
    if as_json:
        print_json({"dry_run": dry_run} | purged._asdict())
        return
    verb = "would be deleted" if dry_run else "deleted"
    click.echo(f"{format_count(purged.number, 'event')} {verb}, {format_size(purged.bytes)}")
    if purged.running:
        running = format_count(purged.running, "event", "is")
        click.echo(f"{running} being handled by a worker and kept: run it again later", err=True)


def _purge(gateway: Gateway, filters: EventFilters, matching: Purged) -> Purged:
    """Delete the matching events, as one action in the audit."""
    with gateway.acting("purge", vars(filters), matched=matching.number) as action:
        return _run(gateway, filters, dry_run=False, action=action)


def _run(
    gateway: Gateway, filters: EventFilters, *, dry_run: bool, action: Action | None = None
) -> Purged:
    number = size = running = 0
    try:
        for step in gateway.ledger.purge(
            provider=filters.provider,
            kind=filters.kind,
            states=[EventState(state) for state in filters.states] or list(EventState),
            since=filters.since.timestamp() if filters.since else None,
            until=filters.before.timestamp() if filters.before else None,
            dry=dry_run,
            action=action,
        ):
            number, size = number + step.number, size + step.bytes
            running += step.running
    except exc.QueueUnavailable as error:
        if not dry_run and number:
            so_far = f"{format_count(number, 'event')} deleted so far"
            raise click.ClickException(
                f"{printable(error)}. {so_far}: run the same command again to go on"
            ) from None
        raise
    return Purged(number, size, running)
