"""The format of smsqueue itself, version 1: plain JSON with named fields.

A reader ignores fields that it does not know, and refuses other versions.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from smsqueue import exc
from smsqueue.message.media import media_of
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.providers.forward.errors import dump_facts, load_facts
from smsqueue.providers.forward.failing import speaks_original
from smsqueue.providers.forward.fields import (
    flag,
    mapping,
    named,
    number,
    scalar,
    sequence,
    text,
    texts,
)
from smsqueue.providers.forward.options import set_options
from smsqueue.providers.forward.parts import (
    STATUSES,
    Event,
    Passed,
    Thing,
    fill_status,
    nearest,
)
from smsqueue.providers.forward.times import in_utc, read_time

__all__ = ["MARK", "Own"]

#: The field that tells this format, and its version.
MARK = "smsqueue"
VERSION = 1

#: What a message is known by at the server, or at its provider.
_IDS = {"id", "msgid"}
_OPTIONS = ("allow_reply", "status_report", "expires", "senderId", "escalate", "on_unknown")


class Own:
    """Writes and reads the documents of version 1."""

    knows_repetitions = True

    def dump_outgoing(self, passed: Passed) -> dict[str, Any]:
        message, given = passed.message, vars(passed.message.provider_options)
        options = {name: given[name] for name in _OPTIONS if name in given}
        if message.provider_options.send_at is not None:
            options["send_at"] = message.provider_options.send_at.isoformat()
        return {
            MARK: VERSION,
            "id": passed.id,
            "attempt": passed.attempt,
            "repeated": passed.repeated,
            "hops": passed.hops,
            "message": {
                "dst": message.dst,
                "body": message.body,
                "src": message.src,
                "route": message.routing_values,
                "params": message.provider_params,
                "options": options,
            },
        }

    def load_outgoing(self, document: dict[str, Any]) -> Passed:
        fields = mapping(document.get("message"), "message")
        message = OutgoingMessage(
            text(fields.get("dst"), "dst"),
            text(fields.get("body"), "body"),
            named(fields.get("src"), "src"),
        )
        # The other side has read it, by its own region.
        message.dst_written = (f"+{message.dst}", message.dst)
        route = sequence(fields.get("route"), "route")
        message.routing_values = None if route is None else tuple(route)
        message.provider_params = mapping(fields.get("params"), "params")
        set_options(message, mapping(fields.get("options"), "options"), _OPTIONS)
        attempt = number(document.get("attempt"), "attempt", 1e9)
        return Passed(
            message,
            named(document.get("id"), "id"),
            int(attempt or 1),
            texts(document.get("hops"), "hops"),
            bool(flag(document.get("repeated", False), "repeated")),
        )

    def dump_taken(self, message: OutgoingMessage, name: str | None) -> dict[str, Any]:
        told = {"id": message.id, "msgid": message.msgid, "meta": message.meta}
        told |= {"duplicate": message.duplicate, "provider": message.provider}
        return {MARK: VERSION, "taken": told}

    def load_taken(self, document: dict[str, Any], message: OutgoingMessage) -> None:
        taken = document.get("taken")
        if not _is_ours(document) or not isinstance(taken, dict) or not taken.keys() & _IDS:
            raise ValueError("the server does not say that it took the message")
        id = named(taken.get("id"), "id")
        message.msgid = scalar(taken.get("msgid"), "msgid") if id is None else id
        told = {name: taken.get(name) for name in ("provider", "msgid", "duplicate")}
        message.meta = mapping(taken.get("meta"), "meta") | {"forwarded": told}

    def dump_event(self, event: Event) -> dict[str, Any]:
        thing = event.thing
        fields = {"msgid": thing.msgid, "provider": thing.provider, "meta": thing.meta}
        known = isinstance(thing.rtime, datetime)
        fields["rtime"] = in_utc(thing.rtime).isoformat() if known else None
        if isinstance(thing, IncomingMessage):
            fields |= {"src": thing.src, "dst": thing.dst, "body": thing.body}
            fields |= {"media": thing.media, "channel": thing.channel}
        else:
            names = ("accepted", "delivered", "expired", "error", "status_code", "status")
            fields |= {name: getattr(thing, name) for name in names}
            fields |= {"class": nearest(thing), "reference": thing.reference}
        view = "message" if isinstance(thing, IncomingMessage) else "status"
        return {MARK: VERSION, "id": event.id, "hops": event.hops, view: fields}

    def load_event(self, view: str, document: dict[str, Any]) -> Event:
        fields = mapping(document.get(view), view)
        msgid = scalar(fields.get("msgid"), "msgid")
        thing: Thing
        if view == "message":
            dst = named(fields.get("dst"), "dst")
            src, body = text(fields.get("src"), "src"), text(fields.get("body"), "body")
            thing = IncomingMessage(src, body, msgid, dst)
            thing.media = media_of(fields.get("media"))
            thing.channel = named(fields.get("channel"), "channel")
            thing.provider = named(fields.get("provider"), "provider")
        else:
            kind = STATUSES.get(text(fields.get("class"), "class"))
            if kind is None:
                raise ValueError("a class of reports that is not known")
            thing = status = kind(msgid)
            fill_status(status, fields)
            status.reference = named(fields.get("reference"), "reference")
        thing.meta = mapping(fields.get("meta"), "meta")
        _set_time(thing, fields.get("rtime"))
        return Event(thing, named(document.get("id"), "id"), texts(document.get("hops"), "hops"))

    def dump_heard(self, event: Event) -> dict[str, Any]:
        return {MARK: VERSION, "heard": True}

    def load_heard(self, view: str, document: dict[str, Any]) -> None:
        if MARK not in document and view in document:
            raise speaks_original()  # it gives back what it took for an object
        if not _is_ours(document) or document.get("heard") is not True:
            raise ValueError("the client does not say that it heard it")

    def dump_error(self, error: exc.ProviderError) -> dict[str, Any]:
        return {MARK: VERSION, "error": dump_facts(error)}

    def load_error(self, document: dict[str, Any]) -> exc.ProviderError | None:
        error = document.get("error")
        if isinstance(error, dict) and "?E" in error:
            return speaks_original()
        return load_facts(error) if isinstance(error, dict) and MARK in document else None


def _is_ours(document: dict[str, Any]) -> bool:
    return document.get(MARK) == VERSION


def _set_time(thing: Thing, given: Any) -> None:
    if given is not None:
        thing.rtime = read_time(given, "rtime")
