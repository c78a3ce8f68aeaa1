"""Listing and showing messages and events: list, show, find."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from smsqueue import exc
from smsqueue.cli.gateways import open_gateway
from smsqueue.cli.options import (
    MessageFilters,
    filter_options,
    json_option,
    limit_type,
    parse_tag,
    reveal_option,
)
from smsqueue.cli.output import (
    format_count,
    format_time,
    make_console,
    make_table,
    print_json,
    printable,
)
from smsqueue.cli.pauses import describe_pause
from smsqueue.gateway import Gateway
from smsqueue.ledger import ContextValue, Damaged, Place, Record, Search
from smsqueue.ledger.records import read_event_data
from smsqueue.message import numbers
from smsqueue.message.ids import time_of
from smsqueue.message.masking import mask
from smsqueue.message.media import media_of
from smsqueue.message.states import DAMAGED, EventState, State
from smsqueue.settings import Settings

__all__ = ["find", "list_", "message_document", "repair_command", "show"]

_STATES: dict[str, State | EventState] = {str(s): s for s in (*State, *EventState)}
_DEFAULT_LIMIT = 100

#: Fields that `show` prints as a table, or not at all.
_NOT_A_LINE = ("timeline", "length")
_TIME_FIELDS = ("accepted_at", "changed_at", "send_at", "expires_at", "at", "next")


# --- Options -----------------------------------------------------------------


def _parse_context(
    context: click.Context, option: click.Parameter, texts: tuple[str, ...]
) -> tuple[ContextValue, ...]:
    try:
        return tuple(map(ContextValue.parse, texts))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _parse_place(context: click.Context, option: click.Parameter, text: str | None) -> Place | None:
    try:
        return None if text is None else Place.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


# --- Commands ----------------------------------------------------------------


@click.command("list")
@filter_options(_STATES, default_limit=_DEFAULT_LIMIT)
@click.option(
    "--damaged",
    is_flag=True,
    help="Records that workers or commands found damaged and put aside.",
)
@reveal_option
@json_option
def list_(damaged: bool, reveal: bool, as_json: bool, **filter_values: Any) -> None:
    """List messages or events, the newest in their state first. Without filters: count them.

    Events can be filtered by --state only.
    """
    filters = MessageFilters(**filter_values)
    limit = filters.limit or _DEFAULT_LIMIT
    with open_gateway() as gateway:
        if damaged:
            _list_damaged(gateway, filters, limit, as_json)
            return
        counts = gateway.ledger.counts()
        if not filters.states and not filters.by_details:
            _print_counts(counts, as_json)
            return
        states = [_STATES[state] for state in dict.fromkeys(filters.states)] or list(State)
        items = _list_states(gateway, filters, states, limit + 1, reveal)
    total, more = sum(counts[state] for state in states), len(items) > limit
    items = items[:limit]
    if as_json:
        names = list(map(str, states))
        print_json({"states": names, "total": total, "more": more, "items": items})
    elif not items:
        in_states = f"no message or event is {' or '.join(states)}"
        click.echo("no message matches" if filters.by_details else in_states)
    else:
        make_console().print(_table(items))
        if more:
            shown = "are shown, there are more" if filters.by_details else f"of {total} are shown"
            click.echo(f"{len(items)} {shown}: raise --limit")


def _list_states(
    gateway: Gateway,
    filters: MessageFilters,
    states: Sequence[State | EventState],
    limit: int,
    reveal: bool,
) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    wanted = [state for state in states if isinstance(state, State)]
    if filters.tag is not None and len(wanted) == len(states):
        damaged: list[Damaged] = []
        records = islice(filters.select(gateway, wanted, on_damaged=damaged.append), limit)
        items += [message_document(record, reveal) for record in records]
        return items + [_damaged_document(record) for record in damaged]
    for state in states:
        left = limit - len(items)
        if isinstance(state, State):
            damaged = []
            records = islice(filters.select(gateway, [state], on_damaged=damaged.append), left)
            items += [message_document(record, reveal) for record in records]
            items += [_damaged_document(record) for record in damaged]
        elif filters.by_details:
            raise click.UsageError(
                "--provider, --error, --tag and --since are for messages, "
                f"{state} is a state of events: "
                f"smsqueue list --state {state}"
            )
        else:
            documents = (_lookup(gateway, id, reveal) for id in gateway.ledger.ids_in(state, left))
            items += [document for document in documents if document is not None]
    return items


def _list_damaged(gateway: Gateway, filters: MessageFilters, limit: int, as_json: bool) -> None:
    if filters.states or filters.by_details:
        raise click.UsageError(
            "--damaged accepts no filter but --limit: the fields of damaged records cannot be read"
        )
    damaged = gateway.ledger.damaged()
    items, more = [_damaged_document(record) for record in damaged[:limit]], len(damaged) > limit
    if as_json:
        print_json({"states": [DAMAGED], "total": len(damaged), "more": more, "items": items})
    elif not items:
        click.echo(
            "no damaged record was put aside; that happens when a worker, or a command that "
            "changes a record, finds it damaged"
        )
    else:
        make_console().print(_table(items))
        if more:
            click.echo(f"{limit} of {len(damaged)} are shown: raise --limit")


def _print_counts(counts: dict[str, int], as_json: bool) -> None:
    groups = {
        "messages": {str(s): counts[s] for s in State},
        "events": {str(s): counts[s] for s in EventState},
    }
    if as_json:
        print_json(groups)
        return
    table = make_table("", "state", "count")
    table.columns[2].justify = "right"
    for group, states in groups.items():
        for state, count in states.items():
            table.add_row(group, state, str(count))
    make_console().print(table)
    click.echo("to list them: smsqueue list --state STATE")


@click.command()
@click.argument("query", metavar="ID")
@reveal_option
@json_option
def show(query: str, reveal: bool, as_json: bool) -> None:
    """Show a message with its timeline, or an event.

    ID may also be what names a message elsewhere: its idempotency key, its provider's message id, a
    number, a tag, or a value of its context as NAME=VALUE. If several match, they are listed.
    """
    with open_gateway() as gateway:
        document = _lookup(gateway, query, reveal)
        matches = {query: "id"} if document else _matches_of(gateway, query)
        if document is None and len(matches) != 1:
            _list_matches(gateway, query, matches, reveal, as_json)
            return
        ((id, found_by),) = matches.items()
        document = document or _lookup(gateway, id, reveal)
        if document is None:
            raise LookupError(f"{id} was deleted just now")
        damaged = document["state"] == DAMAGED
        if document["kind"] == "message" and not damaged:
            document |= _validity(gateway, document)
            paused = gateway.ledger.pause_of(id)
            document["paused"] = describe_pause(paused) if paused else None
    if as_json:
        print_json(document | {"found_by": found_by})
        return
    console = make_console()
    if found_by != "id":
        console.print(f"found by     {found_by}")
    if damaged:
        console.print(_format_damaged(document), soft_wrap=True)
        return
    if not reveal and "text" in document:
        length = document["length"]
        document["text"] = f"({length} characters, hidden: --reveal shows number and text)"
    if document.get("replaced"):
        document["replaced"] = _format_replaced(document["replaced"])
    for name, value in document.items():
        if name not in _NOT_A_LINE and value is not False and value not in (None, "", {}, []):
            value = format_time(value) if name in _TIME_FIELDS else value
            value = ", ".join(value) if name == "tags" else value
            console.print(f"{name.replace('_', ' '):<12} {printable(value)}", soft_wrap=True)
    if "timeline" in document:
        console.print()
        console.print(_timeline_table(document["timeline"]))


def _format_replaced(replaced: list[dict[str, Any]]) -> str:
    """What smart encoding replaced in a text. Characters may be invisible, so they are named."""
    return ", ".join(
        f"{entry['times']} x {_code_points(entry['written'])} by {entry['sent']!r}"
        for entry in replaced
    )


def _code_points(characters: str) -> str:
    return " ".join(f"U+{ord(character):04X}" for character in characters)


def _matches_of(gateway: Gateway, query: str) -> dict[str, str]:
    """Ids of what a text that is no id names, and what it was found by; a few more than shown."""
    matches: dict[str, str] = {}

    def add(found_by: str, search: Search) -> None:
        damaged: list[Damaged] = []
        for page in gateway.ledger.search(search, on_damaged=damaged.append):
            for id in [one.id for one in page.records] + [one.id for one in damaged]:
                matches.setdefault(id, found_by)
            if len(matches) > _DEFAULT_LIMIT:
                return

    add("idempotency key", Search(idempotency_key=query))
    add("provider's message id", Search(msgid=query))
    if any(character.isdecimal() for character in query):
        address = numbers.searched_address(query, gateway.settings.region)
        for id in islice(gateway.ledger.find(address), _DEFAULT_LIMIT + 1):
            matches.setdefault(id, "number")
    with suppress(ValueError):  # not a tag
        add("tag", Search(tag=query))
    if not matches and "=" in query.lstrip("="):
        add("context", Search(context=(ContextValue.parse(query),)))
    return matches


def _list_matches(
    gateway: Gateway, query: str, matches: dict[str, str], reveal: bool, as_json: bool
) -> None:
    """List several messages and events.

    Raises:
        LookupError: there is none.
    """
    documents = [
        document | {"found_by": found_by}
        for id, found_by in islice(matches.items(), _DEFAULT_LIMIT)
        if (document := _lookup(gateway, id, reveal))
    ]
    if not documents:
        reason = _describe_retention(gateway.settings)
        if any(character.isdecimal() for character in query):
            reason = _reason_for_no_result(query, gateway.settings)
        raise LookupError(
            f"no message or event has the id {printable(query)!r}, and none this idempotency key, "
            f"provider's message id, number, tag or context value ({reason})"
        )
    more = len(matches) > _DEFAULT_LIMIT
    if as_json:
        print_json({"more": more, "items": documents})
        return
    make_console().print(_table(documents))
    number = f"the first {len(documents)}" if more else str(len(documents))
    ways = ", ".join(dict.fromkeys(document["found_by"] for document in documents))
    click.echo(f"{number} found by {ways}: show one by its id")


def _validity(gateway: Gateway, document: dict[str, Any]) -> dict[str, Any]:
    """From when and until when a message may be sent, as its sender requested."""
    first = document["timeline"][0]
    return {
        "send_at": first.get("next") if first["state"] == State.SCHEDULED else None,
        "expires_at": gateway.ledger.expires(document["id"]),
    }


def _timeline_table(timeline: list[dict[str, Any]]) -> Table:
    table = make_table("time", "state", "attempt", "provider", "what", "next")
    for entry in timeline:
        details = [entry.get("error"), entry.get("code"), entry.get("why")]
        if entry.get("times"):
            details.append(f"({entry['times']} times, last {format_time(entry.get('last'))})")
        if entry.get("by"):
            details.append(f"({entry['by']})")
        if entry.get("dropped"):
            details.append(f"({entry['dropped']} earlier entries were dropped)")
        cells = (entry["state"], entry.get("attempt"), entry.get("provider"))
        table.add_row(
            format_time(entry["at"]),
            *map(printable, cells),
            _join(details),
            format_time(entry.get("next")),
        )
    return table


@click.command()
@click.argument("number", required=False)
@click.option("--key", help="The idempotency key that it was sent with.")
@click.option("--msgid", metavar="ID", help="The provider's message id, of any attempt.")
@click.option("--provider", help="The provider of this id, or else of the last attempt.")
@click.option("--tag", callback=parse_tag, help="A tag.")
@click.option(
    "--context",
    multiple=True,
    callback=_parse_context,
    metavar="NAME=VALUE",
    help="A value of its context; may be repeated.",
)
@click.option(
    "--limit",
    type=limit_type,
    default=_DEFAULT_LIMIT,
    show_default=True,
    help="At most this many, the newest.",
)
@click.option(
    "--continue", "place", callback=_parse_place, help="Where an interrupted search ended."
)
@reveal_option
@json_option
def find(
    number: str | None,
    limit: int,
    place: Place | None,
    reveal: bool,
    as_json: bool,
    **criteria: Any,
) -> None:
    """Find messages by a number, or by what else is known of them, the newest first.

    NUMBER may also be another address of a sender: INFO4242, whatsapp:+15551234567. With nothing
    but a number, what was received from it is listed, too. Several criteria must all match. With
    --context alone all messages are read, in steps of a few milliseconds.
    """
    with open_gateway() as gateway:
        address = number and numbers.searched_address(number, gateway.settings.region)
        key, provider = criteria.pop("key"), criteria["provider"]
        search = Search(address=address, idempotency_key=key, **criteria)
        if not search:
            raise click.UsageError(
                "find what? Give a number, --key, --msgid, --tag or --context"
                + (", beside --provider" if provider else "")
            )
        if address and search == Search(address=address):
            documents = (_lookup(gateway, id, reveal) for id in gateway.ledger.find(address))
            items = list(islice((item for item in documents if item is not None), limit + 1))
            ended: Place | None = None
        else:
            items, ended, number_read = _search(gateway, search, place, limit, reveal)
        more, items = len(items) > limit, items[:limit]
        if number and not items and not any(c.isdecimal() for c in str(address)):
            raise click.BadParameter(
                "not a phone number, as it has no digit, and no message came from this address",
                param_hint="NUMBER",
            )
        if as_json:
            shown = address if reveal or not address else mask(address)
            document = {"number": shown, "more": more, "items": items}
            print_json(document | {"continue": str(ended) if ended else None})
        elif items:
            make_console().print(_table(items))
            if more:
                click.echo(f"{len(items)} are shown, there are more: raise --limit")
        elif not ended:
            reason = _describe_retention(gateway.settings)
            if number:
                reason = _reason_for_no_result(number, gateway.settings)
            click.echo(f"nothing found{f' for {mask(address)}' if number else ''}: {reason}")
    if ended:
        raise click.ClickException(
            f"interrupted after {format_count(number_read, 'message')}: the same command with "
            f"--continue {ended} goes on there"
        )


def _search(
    gateway: Gateway, search: Search, place: Place | None, limit: int, reveal: bool
) -> tuple[list[dict[str, Any]], Place | None, int]:
    """Documents of what a search finds, with a progress bar at a terminal.

    Returns:
        The documents, one more than the limit if there are more; where the search was interrupted,
        or None; the messages that were read.
    """
    items: list[dict[str, Any]] = []
    damaged: list[Damaged] = []
    number_read = 0
    is_long = search == Search(context=search.context, provider=search.provider)
    total = sum(gateway.ledger.counts()[state] for state in State) if is_long else None
    console = make_console(stderr=True)
    columns = (TextColumn("searched"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not (is_long and console.is_terminal)) as bar:
        task = bar.add_task("searched", total=total)
        try:
            for page in gateway.ledger.search(search, place, on_damaged=damaged.append):
                place, number_read = page.place, number_read + page.number_read
                items += [message_document(record, reveal) for record in page.records]
                bar.update(task, completed=number_read)
                if len(items) > limit:
                    return items, None, number_read
        except KeyboardInterrupt:
            if place is None:
                raise
            return items, place, number_read
    # A damaged record has none of the criteria that can be seen in it.
    if search.tag or search.idempotency_key or search.msgid:
        items += [_damaged_document(record) for record in damaged]
    return items, None, number_read


def _reason_for_no_result(number: str, settings: Settings) -> str:
    """Why no message can have gone to this number; else, how long records are kept."""
    problem = numbers.resolved(number, settings.region)[1]
    if problem and numbers.destination(number, settings.region)[0]:
        return problem
    return _describe_retention(settings)


def _describe_retention(settings: Settings) -> str:
    return f"records are kept {settings.retention / 86400:g} days after their end"


def _table(items: list[dict[str, Any]]) -> Table:
    """Messages and events, one in a row."""
    table = make_table("id", "kind", "state", "number", "provider", "since", "what")
    table.columns[0].min_width = max(len(item["id"]) for item in items)  # ids are copied
    table.columns[3].min_width = table.columns[6].min_width = 12
    for item in items:
        if item["state"] == DAMAGED:
            details = [item["why"], item["do"]]
        elif item["kind"] == "message":
            details = [item["error"], item["code"], item["text"]]
        else:
            about = f"of {item['message']}" if item["message"] else None
            details = [item.get("report"), item.get("code"), about, item["why"], item.get("text")]
        cells = (item["id"], item["kind"], item["state"], item.get("number"), item.get("provider"))
        since = format_time(item.get("changed_at") or item.get("at"))
        table.add_row(*map(printable, cells), since, _join(details))
    return table


def _join(details: list[Any]) -> str:
    return " ".join(printable(detail) for detail in details if detail not in (None, ""))


# --- Messages and events as documents: what --json prints --------------------


def _lookup(gateway: Gateway, id: str, reveal: bool) -> dict[str, Any] | None:
    """The document of a message or an event; None if there is none (any more)."""
    try:
        kind = "message"
        record = gateway.ledger.read(id)
        if record is not None:
            return message_document(record, reveal)
        kind = "event"
        fields = gateway.ledger.read_event(id)
        if fields:
            read_event_data(id, fields)
            return _event_document(id, fields, reveal)
    except exc.DamagedRecord as error:
        return _damaged_document(Damaged(id, kind, error.cause))
    except (ValueError, TypeError, AttributeError, OverflowError, OSError) as error:
        cause = f"its fields cannot be read: {type(error).__name__}"
        return _damaged_document(Damaged(id, kind, cause))
    entry = gateway.ledger.damaged_entry(id)
    return _damaged_document(entry) if entry else None


def message_document(record: Record, reveal: bool) -> dict[str, Any]:
    """A message and its timeline.

    Args:
        reveal: Include numbers, the text and the sender's arguments.
    """
    message = record.message
    document = {
        "id": record.id,
        "kind": "message",
        "state": record.state,
        "number": message.dst if reveal else mask(message.dst),
        "src": message.src if reveal else mask(message.src) or None,
        "text": message.body if reveal else None,
        "length": len(message.body),
        "redirected": message.redirected_from is not None,
        "replaced": [replacement._asdict() for replacement in message.replaced],
        "provider": record.provider,
        "msgid": record.msgid,
        "tags": list(record.tags),
        "attempts": record.attempts,
        "error": record.error,
        "code": record.code,
        "accepted_at": record.accepted_at,
        "changed_at": record.changed_at,
        "timeline": record.timeline,
    }
    if reveal:
        document["asked_for"] = message.provider
        document["route"] = message.routing_values
        document["params"] = message.provider_params
        document["options"] = vars(message.provider_options)
        document["meta"] = message.meta
    return document


def _event_document(id: str, fields: dict[str, str], reveal: bool) -> dict[str, Any]:
    """An incoming message, a delivery report, or the event that a message was sent."""
    data = json.loads(fields.get("data") or "{}")
    src, dst, body = data.get("src"), data.get("dst"), data.get("body")
    created_at = time_of(id[:20])
    document = {
        "id": id,
        "kind": fields.get("kind"),
        "state": fields.get("state"),
        "message": fields.get("message"),
        "provider": data.get("provider"),
        "msgid": data.get("msgid"),
        "tries": int(fields.get("tries", 0)),
        "why": _event_reason(fields, reveal),
        "at": datetime.fromtimestamp(created_at, UTC) if created_at else None,
        "next": _parse_ms(fields.get("not_before")),
    }
    if fields.get("kind") == "received":
        document["number"] = src if reveal else mask(src)
        document["dst"] = dst if reveal else mask(dst) or None
        document["text"] = body if reveal else None
        document["length"] = len(body or "")
        media = media_of(data.get("media"))
        document["channel"] = data.get("channel")
        # The URL of a picture is as personal as the text.
        document["media"] = [file._asdict() for file in media] if reveal else len(media) or None
    else:
        document["report"] = data.get("class")
        document["code"] = data.get("status_code", data.get("code"))
    if reveal:
        document["status"] = data.get("status")
        document["meta"] = data.get("meta")
    return document


def _event_reason(fields: dict[str, str], reveal: bool) -> str | None:
    """Why an event is in its state.

    A handler's error is stored as "handler: class: text". Without ``reveal`` the text is left
    out, as it may quote the message.
    """
    why = fields.get("why") or None
    if why is None or reveal or fields.get("state") == "unheard":
        return why
    return ": ".join(why.split(": ")[:2])


def _parse_ms(ms: str | None) -> datetime | None:
    return datetime.fromtimestamp(int(ms) / 1000, UTC) if ms else None


def _damaged_document(damaged: Damaged) -> dict[str, Any]:
    """A record that cannot be read."""
    return {
        "id": damaged.id,
        "kind": damaged.kind,
        "state": DAMAGED,
        "why": damaged.cause,
        "do": repair_command(damaged),
        "at": damaged.at,
    }


def repair_command(damaged: Damaged) -> str:
    """The command that repairs a damaged record. An index can only be removed from the list."""
    return f"smsqueue repair {damaged.id}" + (" --remove" if damaged.kind == "index" else "")


def _format_damaged(item: dict[str, Any]) -> str:
    kind, id, why, command = item["kind"], item["id"], item["why"], item["do"]
    return f"damaged {kind} {printable(id)}: {printable(why)}: {printable(command)}"
