"""The format of smsframework: objects as ``{"?": [class, fields]}``, errors as ``{"?E": ...}``.

It is read as data: a class's name chooses among those we know, and only their known fields are
taken. It has no version, no ids of ours and no hops.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from smsqueue import exc
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.policy.retry import error_label
from smsqueue.providers.forward.errors import known
from smsqueue.providers.forward.fields import mapping, named, scalar, sequence, text
from smsqueue.providers.forward.options import set_options
from smsqueue.providers.forward.parts import STATUSES, Event, Passed, fill_status, nearest
from smsqueue.providers.forward.times import in_utc, read_time

__all__ = ["OPTIONS", "Original", "nearest_name"]

#: The options of a message that smsframework knows.
OPTIONS = ("allow_reply", "status_report", "expires", "senderId", "escalate")


class Original:
    """Writes and reads the documents of smsframework."""

    knows_repetitions = False

    def dump_outgoing(self, passed: Passed) -> dict[str, Any]:
        return {"message": {"?": _outgoing(passed.message, passed.message.provider)}}

    def load_outgoing(self, document: dict[str, Any]) -> Passed:
        _, fields = _object(document.get("message"))
        message = OutgoingMessage(
            text(fields.get("dst"), "dst"),
            text(fields.get("body"), "body"),
            named(fields.get("src"), "src"),
            named(fields.get("provider"), "provider"),
        )
        route = sequence(fields.get("routing_values"), "routing_values")
        message.routing_values = None if route is None else tuple(route)
        message.provider_params = mapping(_plain(fields.get("provider_params")), "params")
        if fields.get("provider_options") is not None:
            set_options(message, _object(fields["provider_options"])[1], OPTIONS)
        return Passed(message)

    def dump_taken(self, message: OutgoingMessage, name: str | None) -> dict[str, Any]:
        kind, fields = _outgoing(message, name)
        fields |= {"msgid": message.msgid if message.id is None else message.id}
        return {"message": {"?": [kind, fields | {"meta": message.meta}]}}

    def load_taken(self, document: dict[str, Any], message: OutgoingMessage) -> None:
        _, fields = _object(document.get("message"))
        message.msgid = scalar(fields.get("msgid"), "msgid")
        meta = _plain(fields.get("meta"))
        told = {"provider": named(fields.get("provider"), "provider"), "msgid": message.msgid}
        message.meta = (meta if isinstance(meta, dict) else {}) | {"forwarded": told}

    def dump_event(self, event: Event) -> dict[str, Any]:
        thing = event.thing
        known = isinstance(thing.rtime, datetime)
        # It reads no time without a fraction, and none with a zone.
        time = in_utc(thing.rtime if known else datetime.now(UTC)).replace(tzinfo=None)
        written = time.isoformat(timespec="microseconds")
        fields = {"msgid": thing.msgid, "rtime": {"?": ["datetime", written]}}
        fields |= {"meta": thing.meta or {}, "provider": thing.provider}
        if isinstance(thing, IncomingMessage):
            fields |= {"src": thing.src, "dst": thing.dst, "body": thing.body}
            if thing.media:  # it has no other place for them
                fields["meta"] = {**fields["meta"], "media": list(map(list, thing.media))}
            return {"message": {"?": ["IncomingMessage", fields]}}
        if event.id is not None:  # what the client was told when it sent
            fields["msgid"] = event.id
        kind = STATUSES[nearest(thing)]
        for name in ("accepted", "delivered", "expired", "error", "status_code", "status"):
            if getattr(thing, name) != getattr(kind, name):
                fields[name] = getattr(thing, name)
        return {"status": {"?": [kind.__name__, fields]}}

    def load_event(self, view: str, document: dict[str, Any]) -> Event:
        name, fields = _object(document.get(view))
        msgid = scalar(fields.get("msgid"), "msgid")
        time, meta = _time(fields.get("rtime")), mapping(_plain(fields.get("meta")), "meta")
        if view == "status":
            status = STATUSES[nearest_name(name)](msgid, time, meta)
            fill_status(status, fields)
            return Event(status)
        dst = named(fields.get("dst"), "dst")
        src, body = text(fields.get("src"), "src"), text(fields.get("body"), "body")
        message = IncomingMessage(src, body, msgid, dst, time, meta)
        message.provider = named(fields.get("provider"), "provider")
        return Event(message)

    def dump_heard(self, event: Event) -> dict[str, Any]:
        return self.dump_event(event)  # it wants its own object back

    def load_heard(self, view: str, document: dict[str, Any]) -> None:
        _object(document.get(view))

    def dump_error(self, error: exc.ProviderError) -> dict[str, Any]:
        return {"error": {"?E": [error_label(error), [str(error)[:300]]]}}

    def load_error(self, document: dict[str, Any]) -> exc.ProviderError | None:
        error = document.get("error")
        told = error.get("?E") if isinstance(error, dict) else None
        if not isinstance(told, list) or len(told) != 2 or not isinstance(told[1], list):
            return None
        name, args = told
        words = " ".join(str(each) for each in args if isinstance(each, str | int | float))[:300]
        kind = known(name) or exc.ServerError
        # It does not tell whether the message may be out. What a provider said is a refusal; but
        # its plugins make a bare MessageSendError of every HTTP error, a gateway's time-out too.
        said = known(name) is not None and issubclass(kind, exc.MessageSendError)
        said = said and kind is not exc.MessageSendError
        return kind(words or "the server failed", ambiguous=not said)


def _outgoing(message: OutgoingMessage, name: str | None) -> tuple[str, dict[str, Any]]:
    given = vars(message.provider_options)
    options = {each: given[each] for each in OPTIONS if each in given}
    fields: dict[str, Any] = {"src": message.src, "dst": message.dst, "body": message.body}
    fields |= {"provider": name, "provider_params": message.provider_params}
    fields["provider_options"] = {"?": ["OutgoingMessageOptions", options]}
    if message.routing_values is not None:
        fields["routing_values"] = message.routing_values
    return "OutgoingMessage", fields


def _object(value: Any) -> tuple[str, dict[str, Any]]:
    """Class name and fields of a written object."""
    told = value.get("?") if isinstance(value, dict) and len(value) == 1 else None
    if not (isinstance(told, list) and len(told) == 2 and isinstance(told[0], str)):
        raise ValueError("not an object as smsframework writes it")
    return told[0], mapping(told[1], "the fields")


def nearest_name(name: str) -> str:
    """The class of reports that a subclass's name says it is made of, MessageStatus if none."""
    return next((k for k in sorted(STATUSES, key=len) if name.endswith(k)), "MessageStatus")


def _time(value: Any) -> datetime | None:
    """A written time."""
    if value is None:
        return None
    told = value.get("?") if isinstance(value, dict) else None
    if not (isinstance(told, list) and len(told) == 2 and told[0] == "datetime"):
        return None
    return read_time(told[1], "a time")


def _plain(value: Any) -> Any:
    """Data with the times in it as texts; other objects stay as they are written."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    told = value.get("?")
    if len(value) == 1 and isinstance(told, list) and len(told) == 2:
        return told[1] if isinstance(told[1], str) else _plain(told[1])
    return {name: _plain(each) for name, each in value.items()}
