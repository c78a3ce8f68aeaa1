"""The ledger of a captured gateway: messages and their states in memory instead of Redis."""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn

from smsqueue.gateway import Gateway
from smsqueue.ledger import Action, Damaged, FoundPage, Ledger, Place, Progress, Record, Search
from smsqueue.ledger.script_values import Accepted, Cancelled, Received, Reported
from smsqueue.message import serialization
from smsqueue.message.ids import new_id
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.opt_outs import OptOutChange
from smsqueue.message.states import State
from smsqueue.message.statuses import MessageError, MessageStatus
from smsqueue.policy.router import NotBefore, Refuse, refusal, resolve
from smsqueue.providers.base.replay_protection import UsedSignatures

__all__ = ["CapturedMessage", "InMemoryLedger", "capture_routed"]

_Error = BaseException | type[BaseException]

#: In ascending order: a report changes the state only to one further right.
_RANKS = [
    State.SCHEDULED,
    State.SENT,
    State.CANCELLED,
    State.FAILED,
    State.ACCEPTED,
    State.EXPIRED,
    State.UNDELIVERED,
    State.DELIVERED,
]


class _AnyProviderName(frozenset[str]):
    """The provider names of a gateway without providers: every name is one."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str)


def capture_routed(gateway: Gateway, message: OutgoingMessage, id: str) -> CapturedMessage:
    """Capture a copy of the message, with the first provider of its route.

    Raises:
        AssertionError: the router or the message names a provider that the gateway does not have.
        Exception: what the router raises.
    """
    sent = copy.copy(message)
    for name in ("provider_options", "provider_params", "routing_values"):
        setattr(sent, name, copy.deepcopy(getattr(message, name)))
    sent.id, sent.reference, sent.duplicate = id, f"{id}.1", False
    sent.unconfirmed_id = sent.derived_key = sent.msgid = sent.meta = None
    if gateway.providers:
        route = gateway.route(sent)
    else:  # a web process whose workers have the providers
        route = resolve(sent, gateway.router, _AnyProviderName(), "")
    if not isinstance(route, list):
        return CapturedMessage(sent, route)
    if sent.provider != route[0]:
        sent.provider = sent.routed_to = route[0] or None
    return CapturedMessage(sent)


@dataclass
class CapturedMessage:
    """A message as it would have been sent, and its state since."""

    sent: OutgoingMessage
    #: The router's answer, if no provider may be called.
    decision: Refuse | NotBefore | None = None
    content: str = field(init=False, repr=False)
    state: State = field(init=False)
    code: str | None = None
    timeline: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.content = serialization.content_of(self.sent)
        send_at = self.sent.provider_options.send_at
        match self.decision:
            case Refuse(reason):
                self.state = State.FAILED
                self._add_to_timeline(self.state, error="Refused", why=reason)
            case NotBefore(moment):
                self.state = State.SCHEDULED
                self._add_to_timeline(self.state, next=moment)
            case None:
                scheduled = send_at and send_at > datetime.now(UTC)
                self.state = State.SCHEDULED if scheduled else State.SENT
                self._add_to_timeline(self.state)

    def _add_to_timeline(self, state: State, code: Any = None, **details: Any) -> None:
        if code is not None:
            details = {"code": code, **details}
        self.timeline.append({"at": datetime.now(UTC), "state": str(state), **details})

    def move(self, state: State | None, code: Any = None, **details: Any) -> bool:
        """Record a reported state in the timeline; return whether the message's state changed."""
        if state is None:
            return False
        code = None if code is None else str(code)
        self._add_to_timeline(state, code, **details)
        if _RANKS.index(state) <= _RANKS.index(self.state):
            return False
        self.state, self.code = state, code
        return True

    def copy(self) -> OutgoingMessage:
        """Return an independent copy of the message."""
        return copy.deepcopy(self.sent)

    @property
    def record(self) -> Record:
        """The record that ``gateway.lookup`` returns."""
        refused = isinstance(self.decision, Refuse)
        unsent = refused or self.state in (State.SCHEDULED, State.CANCELLED)
        return Record(
            id=str(self.sent.id),
            state=self.state,
            provider=None if unsent else self.sent.provider,
            msgid=None if unsent else self.sent.msgid,
            attempts=0 if unsent else 1,
            error="Refused" if refused else None,
            code=self.code,
            timeline=[dict(line) for line in self.timeline],
            message=self.copy(),
        )


def _end_status(why: str, code: object) -> MessageStatus:
    status = MessageError(None)
    status.status, status.status_code = why, code
    return status


class InMemoryLedger(Ledger):
    """Records messages in memory and routes them at once.

    Operations that need Redis raise LookupError.
    """

    def __init__(self, gateway: Gateway) -> None:
        # Not the constructor of Ledger: it prepares a connection to Redis.
        self.settings = gateway.settings
        #: By message id.
        self.captured: dict[str, CapturedMessage] = {}
        #: Errors that the next calls of accept_many raise.
        self.failures: Iterator[_Error] = iter(())
        #: By the id of the trigger: the name of the event, and the argument of its handlers.
        self.pending_events: dict[str, tuple[str, Any]] = {}
        #: Each accepted message is appended to this list.
        self.outbox: list[OutgoingMessage] = []
        self._gateway, self._eager = gateway, gateway.eager
        self._idempotency_keys: dict[str, str] = {}
        self._lock = threading.Lock()
        self._signatures = UsedSignatures()

    def __getattr__(self, name: str) -> NoReturn:
        if name in ("redis", "_scripts"):
            raise LookupError(
                "a captured gateway has no Redis: it can only send, look up, find and cancel"
            )
        raise AttributeError(name)

    def note(self, provider: str, signature: str, request: str, seconds: float | None) -> str:
        return self._signatures.note(provider, signature, request, seconds)

    # --- sending -------------------------------------------------------------------------------

    def accept(self, message: OutgoingMessage, id: str, *, bulk: bool = False) -> Accepted:
        return self.accept_many([(message, id)])[0]

    def accept_many(self, batch: list[tuple[OutgoingMessage, str]]) -> list[Accepted]:
        error = next(self.failures, None)
        if error is not None:
            raise error
        # Route the whole batch first: if the router raises, nothing is captured.
        captured = [capture_routed(self._gateway, *item) for item in batch]
        for item in captured if self._eager else ():
            if item.decision is not None:
                raise refusal(item.decision)
        with self._lock:
            return [
                self._capture(message, item)
                for (message, _), item in zip(batch, captured, strict=True)
            ]

    def _capture(self, message: OutgoingMessage, captured: CapturedMessage) -> Accepted:
        id = str(captured.sent.id)
        key = message.provider_options.idempotency_key or message.derived_key or ""
        first = id if id in self.captured else self._idempotency_keys.get(key)
        if first is not None:
            if self.captured[first].content != captured.content:
                return Accepted("conflict", first, False)
            return Accepted("accepted" if first == id else "duplicate", first, False)
        self.captured[id] = captured
        captured.sent.msgid = f"captured-{len(self.captured)}"
        if key:
            self._idempotency_keys[key] = id
        if captured.state == State.SENT:
            self.pending_events[id] = ("onSend", captured.copy())
        elif isinstance(captured.decision, Refuse):
            self._add_status_event(id, id, _end_status("failed: Refused", None))
        if not isinstance(captured.decision, Refuse):
            self.outbox.append(captured.sent)
        if self._eager:
            self.copy_delivery(message, id)
        return Accepted("accepted", id, id in self.pending_events)

    def copy_delivery(self, message: OutgoingMessage, id: str) -> None:
        """Set provider and msgid of the sender's object, as an eager delivery does."""
        sent = self.captured[id].sent
        message.provider = sent.provider
        message.routed_to = sent.routed_to
        message.msgid = sent.msgid

    def cancel(self, id: str, *, action: Action | None = None) -> Cancelled:
        captured, event = self.captured.get(id), new_id()
        if captured is None:
            return Cancelled("gone", "", False)
        before = captured.state
        if before == State.SCHEDULED:
            captured.move(State.CANCELLED, why="by an operator")
            self.add_end_event(id, event, "cancelled")
        return Cancelled(before, event, False)

    def add_end_event(self, id: str, event: str, why: str, code: object = None) -> MessageStatus:
        """Add the event of a message that ended without a report of its provider."""
        return self._add_status_event(id, event, _end_status(why, code))

    # --- webhooks ------------------------------------------------------------------------------

    def receive(
        self,
        message: IncomingMessage,
        *,
        repeats: bool,
        opt_out: tuple[str, OptOutChange] | None = None,
    ) -> Received:
        event = new_id()
        self.pending_events[event] = ("onReceive", message)
        return Received(True, event)

    def report(self, status: MessageStatus, *, pids: list[str]) -> Reported:
        event, id = new_id(), (status.reference or "").rpartition(".")[0]
        if id not in self.captured:
            matches = (id for id, item in self.captured.items() if str(item.sent.msgid) in pids)
            id = next(matches, "")
        if not id:
            self.pending_events[event] = ("onStatus", status)
            return Reported(None, None, False, [event])
        self._add_status_event(id, event, status)
        moved = self.captured[id].move(
            status.state, status.status_code, provider=status.provider, why="report"
        )
        return Reported(None, id, moved, [event])

    def _add_status_event(self, id: str, event: str, status: MessageStatus) -> MessageStatus:
        status.id = id
        status.context = copy.deepcopy(self.captured[id].sent.provider_options.context)
        self.pending_events[event] = ("onStatus", status)
        return status

    # --- queries -------------------------------------------------------------------------------

    def read(self, id: str) -> Record | None:
        captured = self.captured.get(id)
        return None if captured is None else captured.record

    def find(self, number: str) -> Iterator[str]:
        return (id for id in reversed(self.captured) if self.captured[id].sent.dst == number)

    def search(
        self,
        search: Search,
        place: Place | None = None,
        on_damaged: Callable[[Damaged], None] | None = None,
    ) -> Iterator[FoundPage]:
        key, found = search.idempotency_key, []
        for id in reversed(self.captured):
            captured = self.captured[id]
            has_key = key is None or self._idempotency_keys.get(key) == id
            has_msgid = search.msgid in (None, captured.sent.msgid)
            if has_key and has_msgid and search.matches(captured.record):
                found.append(captured.record)
        yield FoundPage(found, len(self.captured), None)

    def progress(self, tag: str) -> Progress:
        captured = [
            item for item in self.captured.values() if tag in item.sent.provider_options.tag
        ]
        times = [item.timeline[0]["at"] for item in captured]
        states = Counter(item.state for item in captured)
        return Progress(tag, states, 0.0, min(times, default=None), max(times, default=None))

    def ping(self) -> None:
        pass

    def verify_server(self) -> None:
        pass

    def warnings(self) -> Iterator[str]:
        return iter(())

    def close(self) -> None:
        # gateway.close() drops its ledger and would connect to Redis at the next use.
        vars(self._gateway)["ledger"] = self
