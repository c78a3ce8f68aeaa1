"""Forwards one event to several clients: concurrently, and to each of them once.

The ledger repeats the event until all clients have accepted it. It remembers those that did, like
handlers that succeeded, so a repetition calls only the others.
"""

from __future__ import annotations

import copy
import hashlib
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from smsqueue import exc
from smsqueue.events import current_event
from smsqueue.logs import get_logger
from smsqueue.message.masking import word
from smsqueue.message.media import media_of
from smsqueue.message.messages import IncomingMessage
from smsqueue.message.states import State
from smsqueue.message.statuses import MessageAccepted
from smsqueue.policy.retry import error_label
from smsqueue.providers.forward.auth import Signer, split_credentials
from smsqueue.providers.forward.hops import CONTEXT, LOOP, Hops, forward_data
from smsqueue.providers.forward.peer_http import PeerProvider, peer_format
from smsqueue.providers.forward.protocol import ForwardedEvent, Payload, error_class

__all__ = ["ClientHealth", "FanOut"]

log = get_logger(__name__)

#: Clients that one event is sent to at the same time.
_MAX_THREADS = 32
#: Characters of a recipient and of a channel that are forwarded.
_MAX_NAME = 200
#: Seconds between tries to store that a client has accepted an event.
_STORE_PAUSES = (0.2, 1.0, 5.0)


class ClientHealth:
    """Stops calls to a client that has failed, so that it does not block threads.

    After a failure the client is not called for a while. Then one call at a time is allowed,
    until one succeeds.

    Args:
        deadline: Seconds that a call takes at most.
        pauses: Seconds without calls after the first failure, and the longest; each failure
            doubles them.
    """

    def __init__(self, deadline: float, pauses: tuple[float, float] = (1.0, 60.0)) -> None:
        self._lock = threading.Lock()
        self._deadline = deadline
        self._first_pause, self._longest_pause = pauses
        self._failures = 0
        self._paused_until = 0.0
        #: The class of the last failure.
        self.last_failure: type[exc.ProviderError] = exc.ConnectionError

    def may_call(self) -> bool:
        """Whether to call the client now; if so, report the outcome."""
        with self._lock:
            now = time.monotonic()
            if now < self._paused_until:
                return False
            if self._failures:
                self._paused_until = now + self._deadline
            return True

    def report_success(self) -> None:
        with self._lock:
            self._failures, self._paused_until = 0, 0.0

    def report_failure(self, failure: type[exc.ProviderError] = exc.ProviderError) -> None:
        with self._lock:
            self.last_failure = failure
            pause = min(self._longest_pause, self._first_pause * 2 ** min(self._failures, 16))
            self._failures += 1
            self._paused_until = time.monotonic() + pause


@dataclass(frozen=True)
class _Failure:
    """A client did not accept an event."""

    reason: str
    error_class: type[exc.ProviderError]


class FanOut:
    """Forwards events to clients.

    Args:
        speak: The format of all clients, or formats by URL.
        client_pauses: See :class:`ClientHealth`.
        config: Of the requests, see :class:`~smsqueue.providers.http.HttpProvider`.
    """

    def __init__(
        self,
        gateway: Any,
        name: str,
        hops: Hops,
        signer: Signer | None,
        speak: str | Mapping[str, str],
        client_pauses: tuple[float, float],
        config: Mapping[str, Any],
    ) -> None:
        self._gateway = gateway
        self._name = name
        self._hops = hops
        self._signer = signer
        # By hash: credentials and a trailing slash in the URL make no difference.
        self._speak = (
            speak
            if isinstance(speak, str)
            else {_url_hash(url): format_name for url, format_name in speak.items()}
        )
        self._client_pauses = client_pauses
        self._config = config
        self._clients: dict[str, tuple[PeerProvider, ClientHealth]] = {}

    def client(self, url: str) -> tuple[PeerProvider, ClientHealth]:
        """What calls a client, and its health; ValueError for an invalid URL."""
        if url not in self._clients:
            speak = self._speak
            peer = PeerProvider(
                self._gateway,
                self._name,
                url=url,
                role="client",
                signer=self._signer,
                format=peer_format(
                    speak if isinstance(speak, str) else speak.get(_url_hash(url), "smsqueue")
                ),
                **self._config,
            )
            # Two threads may come here at once: both use the first one's.
            health = ClientHealth(peer.deadline, self._client_pauses)
            self._clients.setdefault(url, (peer, health))
        return self._clients[url]

    def deliver(self, payload: Payload, urls: Iterable[str]) -> None:
        """Call the clients that have not accepted the event yet, concurrently.

        Raises:
            ProviderError: some did not accept it. If all their errors are of one class, it is of
                that class (:class:`~smsqueue.exc.ConnectionError`: none of them answered).
        """
        event = _make_event(self._without_parts(payload), self._hops.extend(payload.meta))
        event_id = current_event()
        accepted = self._accepted(event_id)
        pending = [url for url in dict.fromkeys(urls) if self._mark(url) not in accepted]
        if not pending:
            return
        with ThreadPoolExecutor(min(len(pending), _MAX_THREADS)) as pool:
            results = list(pool.map(lambda url: self._try_client(event, url, event_id), pending))
        failures = [failure for failure in results if failure is not None]
        if failures:
            reasons = "; ".join(failure.reason for failure in failures)
            classes = {failure.error_class for failure in failures}
            cls = classes.pop() if len(classes) == 1 else exc.ProviderError
            raise cls(
                f"{len(failures)} of {len(pending)} clients did not accept it: {reasons}",
                provider=self._name,
            )

    def _try_client(self, event: ForwardedEvent, url: str, event_id: str | None) -> _Failure | None:
        """Call one client; returns why it did not accept the event, or None."""
        try:
            peer, health = self.client(url)
            if not health.may_call():
                return _Failure(f"{_host(url)} failed a moment ago", health.last_failure)
            failure: type[exc.ProviderError] | None = exc.ProviderError
            try:
                self._call(peer, event, url)
                failure = None
            except exc.RequestError:
                failure = None  # the client answers, but refuses this event
                raise
            except exc.ProviderError as error:
                failure = _public_class(error)
                raise
            finally:
                if failure is None:
                    health.report_success()
                else:
                    health.report_failure(failure)
            self._store_accepted(event_id, url)
        except Exception as error:  # of any class: the other clients are called all the same
            code = getattr(error, "code", None)
            reason = f"{error_label(error)} {word(str(code)) if code else ''}".rstrip()
            log.warning(
                *("%s: %s did not accept an event: %s", self._name, _host(url), reason),
                extra={"provider": self._name, "error": error_label(error)},
            )
            return _Failure(f"{_host(url)}: {reason}", _public_class(error))
        return None

    def _call(self, peer: PeerProvider, event: ForwardedEvent, url: str) -> None:
        incoming = isinstance(event.payload, IncomingMessage)
        view, field = ("im", "message") if incoming else ("status", "status")
        document = peer.format.dump_event(event)
        try:
            peer.post(view, document, lambda answer: peer.format.load_received(field, answer))
        except exc.RequestError as error:
            if error.code != LOOP:
                raise
            # The client has had the event, so nothing is lost and a repetition is useless.
            log.error(
                *("%s: %s refused an event: forwarding loop", self._name, _host(url)),
                extra={"provider": self._name},
            )

    def _without_parts(self, payload: Payload) -> Payload:
        """A report as clients may see it: they know the message's id, not those of its parts.

        That a part was delivered is reported as *accepted* until all parts are.

        Raises:
            ServerError: the number of parts is not known yet; to be repeated.
        """
        if isinstance(payload, IncomingMessage) or not payload.delivered or payload.id is None:
            return payload
        try:
            record = self._gateway.lookup(payload.id)
        except LookupError:
            return payload
        is_part = payload.of_part or isinstance(record.msgid, list)
        if not is_part or record.state == State.DELIVERED:
            return payload
        if record.state == State.SENDING:
            raise exc.ServerError("the message is being sent: its parts are not known yet")
        status = MessageAccepted(payload.msgid)
        vars(status).update(vars(payload))
        status.accepted, status.delivered = True, False
        return status

    def _mark(self, url: str) -> str:
        """The name of a client among the handlers of an event in the ledger."""
        return f"forward:{self._name}:{_url_hash(url)}"

    def _accepted(self, event_id: str | None) -> set[str]:
        """Marks of the clients that have accepted an event."""
        if event_id is None:  # an eager gateway has no ledger
            return set()
        marks: set[str] = self._gateway.ledger.handlers_done(event_id)
        return marks

    def _store_accepted(self, event_id: str | None, url: str) -> None:
        if event_id is None:
            return
        for pause in (*_STORE_PAUSES, None):
            try:
                self._gateway.ledger.handler_done(event_id, self._mark(url))
                return
            except exc.QueueUnavailable:
                if pause is None:
                    raise
                time.sleep(pause)


def _public_class(error: Exception) -> type[exc.ProviderError]:
    """The public class of a client's error."""
    return error_class(error_label(error)) or exc.ProviderError


def _host(url: str) -> str:
    """The part of a URL that logs and timelines may show: host and port."""
    return urlsplit(url).netloc.rpartition("@")[2] or "?"


def _url_hash(url: str) -> str:
    """Identifies a URL in the ledger, whatever its credentials are."""
    return hashlib.sha256(split_credentials(url)[0].encode()).hexdigest()[:16]


# --- The event that is forwarded -----------------------------------------------------------------


def _make_event(payload: Payload, hops: tuple[str, ...]) -> ForwardedEvent:
    """An event with values that every format can write.

    The payload is copied, because other handlers get the same object.
    """
    forwarded: Any = copy.copy(payload)
    meta = payload.meta
    if isinstance(meta, dict):
        forwarded.meta = {str(name): value for name, value in meta.items() if name != CONTEXT}
    else:
        forwarded.meta = {} if meta is None else {"meta": meta}
    forwarded.msgid = _as_scalar(payload.msgid)
    if isinstance(payload, IncomingMessage):
        forwarded.src, forwarded.body = _as_text(payload.src), _as_text(payload.body)
        forwarded.dst = None if payload.dst is None else payload.dst[:_MAX_NAME]
        forwarded.media = media_of(payload.media)
        channel = payload.channel
        forwarded.channel = channel[:_MAX_NAME] if isinstance(channel, str) else None
    else:
        forwarded.accepted = _as_flag(payload.accepted)
        forwarded.delivered = _as_flag(payload.delivered)
        forwarded.expired, forwarded.error = bool(payload.expired), bool(payload.error)
        forwarded.status_code = _as_scalar(payload.status_code)
        forwarded.status = _as_scalar(payload.status)
        # The client's reference of the attempt that it forwarded to us, not ours.
        reference = forward_data(payload.context).get("reference")
        forwarded.reference = reference if isinstance(reference, str) else None
    return ForwardedEvent(forwarded, payload.id, hops)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else str(value or "")


def _as_flag(value: Any) -> bool | None:
    return None if value is None else bool(value)


def _as_scalar(value: Any) -> Any:
    """A value that is neither list nor object: plugins may report any type."""
    return value if value is None or isinstance(value, str | int | float) else str(value)
