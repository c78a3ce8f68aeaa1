"""Each signature of a webhook is valid for one request only.

A signature does not always cover the whole request: some cover texts in which names and values can
be divided in several ways, and Plivo's version 2 covers only a URL and a nonce. So a signature is
stored with a hash of the request that it was used for. The provider's own repetition is the same
request; another request with the same signature is a forgery.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol, TypeVar

from smsqueue import exc
from smsqueue.message.messages import IncomingMessage
from smsqueue.message.statuses import MessageStatus
from smsqueue.providers.base.webhook_errors import Refused

__all__ = [
    "UsedSignatures",
    "begin_request",
    "jwt_signing_input",
    "record_once",
    "register_signatures",
]

_Event = TypeVar("_Event", IncomingMessage, MessageStatus)

#: Most signatures that an eager gateway remembers.
_MAX_REMEMBERED = 10_000


class _Gateway(Protocol):
    eager: bool

    def note_signature(
        self, provider: str, signature: str, request: str, seconds: float | None
    ) -> str: ...


@dataclass
class _SignedRequest:
    """The signatures of the running request, and its recorded events."""

    signatures: list[str]
    #: Hash of the request.
    request: str
    #: Seconds for which the signatures are stored; None: as long as the ledger detects repetitions.
    seconds: float | None
    #: The signatures cover everything that is read of the request.
    whole: bool
    #: The gateway's result: "new", "same" (used for the same request); None before it is asked.
    use: str | None = None
    #: Number of recorded events.
    recorded: int = 0


_running: ContextVar[_SignedRequest | None] = ContextVar("smsqueue_signatures", default=None)


def begin_request() -> None:
    """Forget the signatures of the previous request of this thread."""
    _running.set(None)


def register_signatures(
    *signatures: str, seconds: float | None = None, whole: bool = False
) -> None:
    """Register the verified signatures or nonces of the running request.

    They count as used once an event of the request is recorded.

    Args:
        seconds: How long a repetition would pass the provider's check of the time; None: forever.
        whole: They cover everything that is read of the request. Without a ledger, a repetition
            then reaches the handlers again, as in smsframework.
    """
    from flask import request

    content: tuple[Any, ...]
    if request.method == "GET" or request.mimetype == "application/x-www-form-urlencoded":
        # The order of fields does not count: some providers sign them sorted.
        fields = sorted(request.args.lists()), sorted(request.form.lists())
        content = (request.method, request.path, *fields)
    else:
        content = (sha256(request.get_data()).hexdigest(),)
    hashed = sha256(repr(content).encode("utf-8", "surrogatepass")).hexdigest()
    _running.set(_SignedRequest([s for s in signatures if s], hashed, seconds, whole))


def jwt_signing_input(token: str) -> str:
    """The signed part of a JWT. The signature itself has several encodings, which all verify."""
    return token.rpartition(".")[0]


def record_once(gateway: _Gateway, event: _Event, record: Callable[[_Event], _Event]) -> _Event:
    """Record an event of the running request, unless its signature was used before.

    Raises:
        Refused: the signature was used for another request.
    """
    running = _running.get()
    if running is None or not running.signatures:
        return record(event)
    name = str(event.provider)
    if running.use is None:
        running.use = _store(gateway, name, running)
    if running.use == "same" and gateway.eager and not running.whole:
        return event  # a ledger detects repeated events itself
    if isinstance(event, IncomingMessage):
        event.signed_by = f"{running.signatures[0]}:{running.recorded}"
    try:
        record(event)
    except BaseException:
        # An event that was not recorded may be repeated.
        if running.use == "new" and (gateway.eager or not running.recorded):
            _forget(gateway, name, running, running.signatures)
        raise
    running.recorded += 1
    return event


def _store(gateway: _Gateway, name: str, running: _SignedRequest) -> str:
    stored: list[str] = []
    seconds = running.seconds if running.seconds is not None else float("inf")
    for signature in running.signatures:
        use = gateway.note_signature(name, signature, running.request, seconds)
        if use == "other":
            _forget(gateway, name, running, stored)
            raise Refused("its signature was used for another webhook")
        if use == "same":
            return use
        stored.append(signature)
    return "new"


def _forget(gateway: _Gateway, name: str, running: _SignedRequest, signatures: list[str]) -> None:
    for signature in signatures:
        with suppress(exc.ProviderError):
            gateway.note_signature(name, signature, running.request, None)


class UsedSignatures:
    """The used signatures of an eager gateway: a bounded number, in this process only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: OrderedDict[Any, tuple[float, str]] = OrderedDict()

    def note(self, provider: str, signature: str, request: str, seconds: float | None) -> str:
        """As :meth:`smsqueue.ledger.Ledger.note`."""
        key, now = (provider, signature), time.monotonic()
        with self._lock:
            expires, earlier = self._requests.get(key, (0.0, ""))
            if earlier and expires < now:
                earlier = ""
            if seconds is None:
                if earlier == request:
                    del self._requests[key]
            elif not earlier:
                self._requests[key] = (now + seconds, request)
                self._requests.move_to_end(key)
                while len(self._requests) > _MAX_REMEMBERED:
                    self._requests.popitem(last=False)
                return "new"
        return "same" if earlier == request else "other"
