"""What must have come of all that happened: hooks that ran, and one effect of each webhook."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import redis

from tests.chaos.records import Record

if TYPE_CHECKING:
    from tests.chaos.rig import Rig

__all__ = ["unmet", "untold"]

#: How a message ends without a report: how onStatus calls it.
ENDS = {"failed": "undelivered", "cancelled": "undelivered", "expired": "expired"}
RANK = {"sent": 1, "accepted": 2, "expired": 3, "undelivered": 4, "delivered": 5}


def untold(rig: Rig, known: dict[str, Record]) -> Iterator[tuple[str, str, str]]:
    """Messages that were sent, or ended, without onSend or onStatus: kind, message, text."""
    if rig.plain:
        return  # nobody listens there
    heard = {(line["kind"], line["id"], line.get("state")) for line in rig.heard() if "id" in line}
    for id, record in known.items():
        for line in record.timeline:
            state, why = line["state"], line.get("why") or ""
            if state == "sent" and not why and ("sent", id, None) not in heard:
                yield "unheard", id, "was sent"
            end = ENDS.get(state) if not why.startswith(("report", "late")) else None
            if end and ("status", id, end) not in heard:
                yield "unheard", id, f"{state}, and nobody was told"


def unmet(rig: Rig, known: dict[str, Record]) -> Iterator[tuple[str, str, str]]:
    """What a webhook that was answered 2xx did not bring about, or twice: kind, message, text."""
    paths = {json.dumps(each): each for each in rig.book.told}  # each once, however often it came
    heard = Counter(_name(line) for line in rig.heard() if line["kind"] in ("received", "status"))
    events = _events(rig.direct, rig.settings.namespace)
    for path, fields in paths.values():
        if path.endswith("/im"):
            found = events[fields["id"]]
            if found != ["done"]:
                yield "webhook", "", f"{fields['id']} is {found or 'not there'}"
            if not heard["received", fields["id"]]:
                yield "unheard", "", f"{fields['id']} came in"
            continue
        report = ("status", fields["id"], fields.get("reference"), fields["state"])
        id, attempt = _about(known, fields, path.partition("/")[0])
        if not heard[report]:
            yield "unheard", id, f"report {fields}"
        if id:
            yield from _moved(known[id], attempt, fields)


def _name(line: dict[str, Any]) -> tuple[Any, ...]:
    if line["kind"] == "received":
        return "received", line["msgid"]
    return "status", line["msgid"], line["reference"], line["state"]


def _events(client: redis.Redis, namespace: str) -> dict[str, list[str]]:
    """The states of the events of each incoming message."""
    found: dict[str, list[str]] = defaultdict(list)
    keys = list(client.scan_iter(f"{namespace}:event:*", count=1000))
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.hmget(key, "kind", "state", "data")
    for kind, state, data in pipe.execute():
        if kind == "received":
            found[json.loads(data)["msgid"]].append(state)
    return found


def _about(known: dict[str, Record], fields: dict[str, Any], account: str) -> tuple[str, int]:
    """The message and the attempt that a report must have been found to be about; "": none.

    By the provider's id alone it is found only if that was ever told, as the answer to a send.
    """
    reference = fields.get("reference") or str(fields["id"]).removeprefix(f"{account}-")
    id, _, attempt = reference.rpartition(".")
    if id not in known or not 1 <= int(attempt) <= known[id].attempts:
        return "", 0
    told = any(
        line.get("attempt") == int(attempt)
        and (line["state"] == "sent" or line.get("why") == "late outcome: sent")
        for line in known[id].timeline
    )
    return (id, int(attempt)) if told or "reference" in fields else ("", 0)


def _moved(record: Record, attempt: int, fields: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    lines = [
        line.get("times", 1)
        for line in record.timeline
        if (line.get("why"), line.get("attempt")) == ("report", attempt)
        and line["state"] == fields["state"]
    ]
    if lines != [1]:
        yield "report", record.id, f"{fields} is in the timeline {sum(lines)} times"
    # Who resends waits for the next attempt: what became of the one before is not the end.
    if RANK.get(record.state, 0) < RANK[fields["state"]] and not record.resend:
        yield "report", record.id, f"{fields}, and it is {record.state}"
