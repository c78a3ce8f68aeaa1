"""Messages and events as dictionaries: masked, unless they are to be revealed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from smsqueue import exc
from smsqueue.cli.words import clean
from smsqueue.gateway import Gateway
from smsqueue.ledger import Damaged, Record
from smsqueue.ledger.records import read_event_data
from smsqueue.message.ids import time_of
from smsqueue.message.masking import mask
from smsqueue.message.media import media_of
from smsqueue.message.states import DAMAGED

__all__ = ["damaged_line", "damaged_shown", "event_shown", "looked_up", "message_shown", "remedy"]


def looked_up(gateway: Gateway, id: str, reveal: bool) -> dict[str, Any] | None:
    """A message or an event; None if there is none (any more)."""
    try:
        kind = "message"
        record = gateway.ledger.read(id)
        if record is not None:
            return message_shown(record, reveal)
        kind = "event"
        fields = gateway.ledger.read_event(id)
        if fields:
            read_event_data(id, fields)
            return event_shown(id, fields, reveal)
    except exc.DamagedRecord as error:
        return damaged_shown(Damaged(id, kind, error.cause))
    except (ValueError, TypeError, AttributeError, OverflowError, OSError) as error:
        cause = f"its fields cannot be read: {type(error).__name__}"
        return damaged_shown(Damaged(id, kind, cause))
    entry = gateway.ledger.damaged_entry(id)
    return damaged_shown(entry) if entry else None


def damaged_shown(damaged: Damaged) -> dict[str, Any]:
    """A record that cannot be read, in place of what it would show."""
    return {
        "id": damaged.id,
        "kind": damaged.kind,
        "state": DAMAGED,
        "why": damaged.cause,
        "do": remedy(damaged),
        "at": damaged.at,
    }


def remedy(damaged: Damaged) -> str:
    """The command that ends it. Of an index only the entry is left, to be removed."""
    return f"smsqueue repair {damaged.id}" + (" --remove" if damaged.kind == "index" else "")


def damaged_line(item: dict[str, Any]) -> str:
    """The one line in which people see it."""
    return f"damaged {item['kind']} {clean(item['id'])}: {clean(item['why'])}: {clean(item['do'])}"


def message_shown(record: Record, reveal: bool) -> dict[str, Any]:
    """A message and its timeline."""
    message = record.message
    shown = {
        "id": record.id,
        "kind": "message",
        "state": record.state,
        "number": message.dst if reveal else mask(message.dst),
        "src": message.src if reveal else mask(message.src) or None,
        "text": message.body if reveal else None,
        "length": len(message.body),
        "provider": record.provider,
        "msgid": record.msgid,
        "attempts": record.attempts,
        "error": record.error,
        "code": record.code,
        "accepted_at": record.accepted_at,
        "changed_at": record.changed_at,
        "timeline": record.timeline,
    }
    if reveal:
        shown["asked_for"] = message.provider
        shown["route"] = message.routing_values
        shown["params"] = message.provider_params
        shown["options"] = vars(message.provider_options)
        shown["meta"] = message.meta
    return shown


def event_shown(id: str, fields: dict[str, str], reveal: bool) -> dict[str, Any]:
    """An event: an incoming message, a report, or that a message was sent."""
    data = json.loads(fields.get("data") or "{}")
    incoming = fields.get("kind") == "received"
    src, dst, body = data.get("src"), data.get("dst"), data.get("body")
    made = time_of(id[:20])
    shown = {
        "id": id,
        "kind": fields.get("kind"),
        "state": fields.get("state"),
        "message": fields.get("message"),
        "provider": data.get("provider"),
        "msgid": data.get("msgid"),
        "tries": int(fields.get("tries", 0)),
        "why": _why(fields, reveal),
        "at": datetime.fromtimestamp(made, UTC) if made else None,
        "next": _time(fields.get("not_before")),
    }
    if incoming:
        shown["number"] = src if reveal else mask(src)
        shown["dst"] = dst if reveal else mask(dst) or None
        shown["text"] = body if reveal else None
        shown["length"] = len(body or "")
        media = media_of(data.get("media"))
        shown["channel"] = data.get("channel")
        # Addresses of pictures are as personal as the text.
        shown["media"] = [each._asdict() for each in media] if reveal else len(media) or None
    else:
        shown["report"] = data.get("class")
        shown["code"] = data.get("status_code", data.get("code"))
    if reveal:
        shown["status"] = data.get("status")
        shown["meta"] = data.get("meta")
    return shown


def _why(fields: dict[str, str], reveal: bool) -> str | None:
    """Why an event is where it is: without the text of a handler's error, which may quote."""
    why = fields.get("why") or None
    if why is None or reveal or fields.get("state") == "unheard":
        return why
    return ": ".join(why.split(": ")[:2])


def _time(ms: str | None) -> datetime | None:
    return datetime.fromtimestamp(int(ms) / 1000, UTC) if ms else None
