"""Deleting events that webhooks made: purge."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import click

from smsqueue import exc
from smsqueue.cli.output import json_option, loaded, opened, show_json
from smsqueue.cli.tally import tallies
from smsqueue.cli.times import past
from smsqueue.cli.words import clean, counted, size
from smsqueue.configuration.loader import LoaderError
from smsqueue.gateway import Gateway
from smsqueue.ledger import Purged
from smsqueue.message.states import EventState

__all__ = ["purge"]

#: Events that a worker has in its hands are left alone.
_STATES = [state for state in EventState if state != EventState.RUNNING]


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
    callback=past,
    metavar="TIME",
    help="Only those that were made in the last 30m, 2h or 1d, or since an ISO time.",
)
@click.option(
    "--before",
    callback=past,
    metavar="TIME",
    help="Only those that are older than 30m, 2h or 1d, or from before an ISO time.",
)
@click.option("--all", "everything", is_flag=True, help="All of them, without any other filter.")
@click.option("--dry-run", is_flag=True, help="Only count them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def purge(
    everything: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    states: tuple[str, ...],
    **given: Any,
) -> None:
    """Delete incoming messages and delivery reports that webhooks brought, as after a flood.

    They are counted first. No handler hears of them any more. Sent messages, and what was reported
    of them, stay as they are.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    if everything and (chosen or states):
        raise click.UsageError("--all takes no filters: leave it out, or them")
    if not (everything or chosen or states):
        raise click.UsageError(
            "which events? Give --provider, --kind, --state, --since or --before, or else --all"
        )
    since, before = chosen.get("since"), chosen.get("before")
    if since and before and before < since:
        raise click.UsageError("--before lies earlier than --since: no event is from between them")
    chosen["states"] = [EventState(state) for state in states] or list(EventState)
    with opened() as gateway:
        found = _run(gateway, chosen, dry=True)
        if "provider" in chosen and not (found.number or found.running):
            _check_provider(gateway, chosen["provider"])
        what = f"{counted(found.number, 'event')}, {size(found.bytes)}"
        if not (dry_run or yes) and found.number:
            if not (sys.stdin.isatty() and sys.stderr.isatty()):
                raise click.UsageError(f"{what} would be deleted: --yes does it")
            click.confirm(f"Delete {what}?", abort=True, err=True)
        done = found if dry_run else _run(gateway, chosen, dry=False)
    if as_json:
        show_json({"dry_run": dry_run} | done._asdict())
        return
    verb = "would be deleted" if dry_run else "deleted"
    click.echo(f"{counted(done.number, 'event')} {verb}, {size(done.bytes)}")
    if done.running:
        number = counted(done.running, "event", "is")
        click.echo(f"{number} in the hands of a worker, and left alone: run it again", err=True)


def _check_provider(gateway: Gateway, name: str) -> None:
    """Refuse a name that nothing knows; one that is gone may have events, or has had some."""
    known = {each.provider for each in gateway.ledger.room().webhooks}
    known |= tallies(gateway.ledger.counters()).keys()
    try:
        known |= loaded(gateway.settings).providers.keys()
    except LoaderError:
        what = "the gateway cannot be loaded here to say whether it has such a provider"
        if name not in known:
            click.echo(f"no event is known of {clean(repr(name))}; {what}", err=True)
        return
    if name not in known:
        there = f"there are {clean(', '.join(sorted(known)))}" if known else "there is none"
        raise click.UsageError(f"no provider {clean(repr(name))} is known; {there}")


def _run(gateway: Gateway, chosen: dict[str, Any], *, dry: bool) -> Purged:
    since: datetime | None = chosen.get("since")
    before: datetime | None = chosen.get("before")
    total = [0, 0, 0]
    try:
        for step in gateway.ledger.purge(
            provider=chosen.get("provider"),
            kind=chosen.get("kind"),
            states=chosen["states"],
            since=since.timestamp() if since else None,
            until=before.timestamp() if before else None,
            dry=dry,
        ):
            total = [one + other for one, other in zip(total, step, strict=True)]
    except exc.QueueUnavailable as error:
        if not dry and total[0]:
            done = f"{counted(total[0], 'event')} deleted so far"
            raise click.ClickException(f"{clean(error)}. {done}: the same again goes on") from None
        raise
    return Purged(*total)
