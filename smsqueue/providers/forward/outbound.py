"""What a server tells of an event: what any client can read."""

from __future__ import annotations

import copy
from typing import Any

from smsqueue.message.media import media_of
from smsqueue.message.messages import IncomingMessage
from smsqueue.providers.forward.hops import CONTEXT, told_of
from smsqueue.providers.forward.parts import Event, Thing

__all__ = ["outbound"]

_LONGEST = 200


def outbound(thing: Thing, hops: tuple[str, ...]) -> Event:
    """An event as it is written; the object itself belongs to other handlers too."""
    told: Any = copy.copy(thing)
    meta = thing.meta
    if isinstance(meta, dict):
        told.meta = {str(name): value for name, value in meta.items() if name != CONTEXT}
    else:
        told.meta = {} if meta is None else {"meta": meta}
    told.msgid = _single(thing.msgid)
    if isinstance(thing, IncomingMessage):
        told.src, told.body = _text(thing.src), _text(thing.body)
        told.dst = None if thing.dst is None else thing.dst[:_LONGEST]
        told.media = media_of(thing.media)
        told.channel = thing.channel[:_LONGEST] if isinstance(thing.channel, str) else None
    else:
        told.accepted, told.delivered = _flag(thing.accepted), _flag(thing.delivered)
        told.expired, told.error = bool(thing.expired), bool(thing.error)
        told.status_code, told.status = _single(thing.status_code), _single(thing.status)
        # The client's own, of the attempt that it passed to us; ours would tell it nothing.
        reference = told_of(thing.context).get("reference")
        told.reference = reference if isinstance(reference, str) else None
    return Event(told, thing.id, hops)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value or "")


def _flag(value: Any) -> bool | None:
    return None if value is None else bool(value)


def _single(value: Any) -> Any:
    """A single value: plugins hand on lists and objects of their own."""
    return value if value is None or isinstance(value, str | int | float) else str(value)
