"""Signatures of webhooks are good for one request each.

A signature does not always cover all of a request: some cover texts that are put together so that
names and values can be told apart in several ways, Plivo's version 2 covers nothing but an address
and a nonce. So what was signed is remembered with the request that it was used for. The provider's
own repetition is the same request; another request with the same signature is a forgery.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from smsqueue import exc
from smsqueue.message.messages import IncomingMessage
from smsqueue.message.statuses import MessageStatus
from smsqueue.providers.authentic import Refused, sha256_hex

__all__ = ["UsedSignatures", "begin", "record", "signed_text", "signed_with"]

_Event = TypeVar("_Event", IncomingMessage, MessageStatus)

#: Signatures that an eager gateway remembers.
_MOST = 10_000


class _Gateway(Protocol):
    eager: bool

    def note_signature(
        self, provider: str, signature: str, request: str, seconds: float | None
    ) -> str: ...


@dataclass
class _Use:
    """The use of signatures by the running request."""

    signatures: list[str]
    request: str
    #: Seconds for which they are remembered; None: as long as the ledger knows repetitions.
    seconds: float | None
    whole: bool
    #: What the gateway says of them; None: it was not asked yet.
    known: str | None = None
    recorded: int = 0


_use: ContextVar[_Use | None] = ContextVar("smsqueue_signatures", default=None)


def begin() -> None:
    """A request begins: what was signed before is not its own."""
    _use.set(None)


def signed_with(*signatures: str, seconds: float | None = None, whole: bool = False) -> None:
    """Say which signatures or nonces the running request was found to be authentic by.

    They count as used once an event of the request is recorded.

    Args:
        seconds: For how long a repetition would pass the provider's own check of the time; None:
            for ever.
        whole: They cover all that is read of the request. Without a ledger, a repetition of it
            then reaches the hooks again, as it does in smsframework.
    """
    from flask import request

    told: tuple[Any, ...]
    if request.method == "GET" or request.mimetype == "application/x-www-form-urlencoded":
        # Fields in another order are the same: some providers sign them so.
        fields = sorted(request.args.lists()), sorted(request.form.lists())
        told = (request.method, request.path, *fields)
    else:
        told = (sha256_hex(request.get_data()),)
    hashed = sha256_hex(repr(told).encode("utf-8", "surrogatepass"))
    _use.set(_Use([each for each in signatures if each], hashed, seconds, whole))


def signed_text(token: str) -> str:
    """What of a JWT is signed. Its signature can be written in several ways, which all verify."""
    return token.rpartition(".")[0]


def record(gateway: _Gateway, event: _Event, recorder: Callable[[_Event], _Event]) -> _Event:
    """Record an event of the running request, unless its signature was used before.

    Raises:
        Refused: it was, for another request.
    """
    use = _use.get()
    if use is None or not use.signatures:
        return recorder(event)
    name = str(event.provider)
    if use.known is None:
        use.known = _note(gateway, name, use)
    if use.known == "same" and gateway.eager and not use.whole:
        return event  # the ledger finds out by itself which events it has
    if isinstance(event, IncomingMessage):
        event.signed_by = f"{use.signatures[0]}:{use.recorded}"
    try:
        recorder(event)
    except BaseException:
        # What was not recorded may be repeated by anybody who has it.
        if use.known == "new" and (gateway.eager or not use.recorded):
            _forget(gateway, name, use, use.signatures)
        raise
    use.recorded += 1
    return event


def _note(gateway: _Gateway, name: str, use: _Use) -> str:
    noted: list[str] = []
    seconds = use.seconds if use.seconds is not None else float("inf")
    for signature in use.signatures:
        found = gateway.note_signature(name, signature, use.request, seconds)
        if found == "other":
            _forget(gateway, name, use, noted)
            raise Refused("its signature was used for another webhook")
        if found == "same":
            return found
        noted.append(signature)
    return "new"


def _forget(gateway: _Gateway, name: str, use: _Use, signatures: list[str]) -> None:
    for signature in signatures:
        with suppress(exc.ProviderError):
            gateway.note_signature(name, signature, use.request, None)


class UsedSignatures:
    """What an eager gateway remembers of signatures: in this process, a bounded number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[Any, tuple[float, str]] = OrderedDict()

    def note(self, provider: str, signature: str, request: str, seconds: float | None) -> str:
        """As :meth:`smsqueue.ledger.Ledger.note`."""
        key, now = (provider, signature), time.monotonic()
        with self._lock:
            ends, before = self._known.get(key, (0.0, ""))
            if before and ends < now:
                before = ""
            if seconds is None:
                if before == request:
                    del self._known[key]
            elif not before:
                self._known[key] = (now + seconds, request)
                self._known.move_to_end(key)
                while len(self._known) > _MOST:
                    self._known.popitem(last=False)
                return "new"
        return "same" if before == request else "other"
