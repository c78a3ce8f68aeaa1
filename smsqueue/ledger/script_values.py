"""The arguments and answers of the ledger's scripts as typed values."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, TypeAlias

__all__ = [
    "Accepted",
    "AttemptBegun",
    "AttemptOutcome",
    "BeginAnswer",
    "Beginning",
    "BulkChange",
    "BulkFailure",
    "BulkOperation",
    "BulkRequest",
    "BulkStep",
    "Cancelled",
    "ClaimAnswer",
    "ClaimLost",
    "Claimed",
    "ClaimedEvent",
    "Claiming",
    "Early",
    "EventClaimAnswer",
    "EventOver",
    "EventSettlement",
    "EventTransition",
    "Examined",
    "Expired",
    "Failure",
    "HeldElsewhere",
    "Lapse",
    "LookUp",
    "NextAttempt",
    "NotClaimable",
    "OptedOut",
    "ProviderPaused",
    "Purged",
    "Received",
    "Remedies",
    "Repaired",
    "Replayed",
    "Reported",
    "Requeued",
    "Room",
    "Settlement",
    "Swept",
    "Taken",
    "Transition",
    "Unclaimed",
    "UnreadableClaim",
    "Webhooks",
    "claim_answer",
    "event_claim_answer",
]

# --- claims ----------------------------------------------------------------------------------


class Claiming(NamedTuple):
    """A message that a worker wants to deliver."""

    id: str
    token: str
    #: Lease until the router has answered, in seconds.
    lease: float
    worker: str
    #: Provider of messages that need no router: their attempt begins in the same step. "": none.
    default: str = ""
    #: Lease of a call there, in seconds.
    default_lease: float = 0.0
    #: Begin the attempt only if the message was not sent by ``send_many``.
    if_single: bool = False
    #: Categories that go out in spite of an opt-out.
    exempt: Collection[str] = ()


@dataclass(frozen=True)
class AttemptBegun:
    """The attempt has begun: call the provider."""

    number: int


@dataclass(frozen=True)
class ProviderPaused:
    """No attempt has begun, because the provider is paused."""

    left_ms: int


@dataclass(frozen=True)
class ClaimLost:
    """No attempt has begun: the message is no longer claimed under this token."""


@dataclass(frozen=True)
class OptedOut:
    """The message has failed, because its recipient has opted out."""

    #: Id of the event to publish, or "".
    event: str


BeginAnswer: TypeAlias = AttemptBegun | ProviderPaused | ClaimLost | OptedOut


@dataclass(frozen=True)
class Claimed:
    """The message is this worker's."""

    #: JSON of the message. Personal data.
    data: str = field(repr=False)
    attempts: int
    #: Attempts that count against the retry policy's limit.
    tries: int
    now_ms: int
    #: When it began to wait: it was accepted, scheduled for, or requeued at this time.
    waiting_since_ms: int
    #: What became of the attempt at :attr:`Claiming.default`; None: none was to begin.
    begun: AttemptBegun | ProviderPaused | None = None
    #: The only provider that may be called, because it may have the message already; "": any.
    pinned_to: str = ""
    #: The attempt at that provider which is repeated; 0: none.
    repeated_attempt: int = 0
    #: Milliseconds until its validity ends; None: it does not end.
    validity_left_ms: int | None = None


@dataclass(frozen=True)
class LookUp:
    """The outcome of the last call is unknown: ask the provider."""

    #: JSON of the message. Personal data.
    data: str = field(repr=False)
    provider: str
    #: Number of the attempt, as it stands in the message's reference.
    attempt: str
    #: When the provider was called; None: the record's time cannot be read.
    called_at: datetime | None
    #: How many times the provider has been asked, this time included.
    times: int


@dataclass(frozen=True)
class Early:
    """A message or event that is not due yet."""

    at_ms: int


@dataclass(frozen=True)
class Expired:
    """The message's validity ended before it could be sent."""

    #: Id of the event to publish, or "".
    event: str


@dataclass(frozen=True)
class NotClaimable:
    """The message is in a state in which nothing is sent."""

    #: A state, or "gone" for an id without a record.
    state: str
    next_look_ms: int | None = None


@dataclass(frozen=True)
class UnreadableClaim:
    """An answer that a damaged record made unreadable; the message may be claimed by now."""

    #: Class of the error.
    error: str


ClaimAnswer: TypeAlias = (
    Claimed | LookUp | Early | Expired | OptedOut | NotClaimable | UnreadableClaim
)


def _ms(text: Any) -> int:
    """A time or duration in ms as Lua or Redis writes it."""
    return int(float(text))


def _begun(verdict: str, number: Any) -> AttemptBegun | ProviderPaused | None:
    match verdict:
        case "go":
            return AttemptBegun(int(number))
        case "paused":
            return ProviderPaused(_ms(number))
    return None


def _claimed(answer: list[Any]) -> Claimed:
    data, attempts, tries, now, since, verdict, number, pinned_to, repeated, left = answer
    return Claimed(
        data,
        int(attempts),
        int(tries),
        _ms(now),
        _ms(since),
        _begun(verdict, number),
        pinned_to,
        int(repeated or 0),
        _ms(left) if left else None,
    )


def _look_up(answer: list[Any]) -> LookUp:
    data, provider, attempt, called, times = answer
    try:
        called_at = datetime.fromtimestamp(_ms(called) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        called_at = None
    return LookUp(data, provider, str(attempt), called_at, int(times))


def claim_answer(answer: list[Any]) -> ClaimAnswer:
    """The answer of claim.lua."""
    kind, *rest = answer
    try:
        match kind:
            case "claimed":
                return _claimed(rest)
            case "ask":
                return _look_up(rest)
            case "early":
                return Early(_ms(rest[0]))
            case "expired":
                return Expired(rest[0])
            case "opted_out":
                return OptedOut(rest[0])
            case "state":
                return NotClaimable(rest[0], _ms(rest[1]) if rest[1] else None)
            case _:
                return NotClaimable("gone")
    except (ValueError, OverflowError) as error:  # a field of the record is no number
        return UnreadableClaim(type(error).__name__)


class Unclaimed(NamedTuple):
    """A claim that had an effect before it was taken back; it has to be settled."""

    attempts: int
    #: The provider at which an attempt was begun, if one was.
    provider: str | None


# --- attempts --------------------------------------------------------------------------------


class Beginning(NamedTuple):
    """An attempt that a worker is about to make under its claim."""

    id: str
    token: str
    provider: str
    #: Lease of the call, in seconds.
    lease: float
    #: The number that the attempt would have.
    attempt: int
    #: Categories that go out in spite of an opt-out.
    exempt: Collection[str] = ()


@dataclass(frozen=True)
class Remedies:
    """What can be done about a message that a provider may have accepted."""

    #: For how long the provider de-duplicates, so that the call may be repeated safely.
    repeat_for_ms: int | None = None
    #: After how long the provider can first be asked about the message.
    ask_after_ms: int | None = None


_NO_REMEDIES = Remedies()


@dataclass(frozen=True)
class NextAttempt:
    """The call that follows under the same claim."""

    provider: str
    lease_ms: int
    #: Categories that go out in spite of an opt-out.
    exempt: Collection[str] = ()


@dataclass(frozen=True)
class AttemptOutcome:
    """How an attempt ended. settle.lua records it and reads these names."""

    verdict: Literal["sent", "retry", "failed", "unknown", "wait"]
    provider: str | None = None
    #: Class of the error, the provider's code and further words, for the timeline.
    error: str | None = None
    code: str | None = None
    why: str | None = None
    #: Id for the event that this makes.
    event: str | None = None

    #: The provider's ids of the message, by which reports are matched.
    msgids: tuple[str, ...] = ()
    #: JSON of the message's ``msgid`` and ``meta``, if it was sent.
    msgid: str | None = None
    meta: str | None = None
    #: JSON for the event of ``onSend``; None: the gateway has no handlers for it.
    sent_event: str | None = None
    #: The provider never sends reports, so none is waited for.
    no_reports: bool = False

    #: The application's own rules decided, so no error of a provider is counted.
    policy: Literal["refused", "not_before"] | None = None
    #: The provider refused it because the recipient had opted out: add that to the opt-outs.
    opted_out: bool = False
    #: Until the next attempt.
    delay_ms: int | None = None
    #: Until another provider of the route may be called. While its own provider is paused, the
    #: message waits no longer than this.
    other_provider_ms: int | None = None
    #: Of "wait": the message is scheduled for this time (Unix time in ms).
    not_before_ms: int | None = None
    #: The attempt counts as a try.
    counted: bool = False
    #: The next provider of the route, to be called at once.
    next: NextAttempt | None = None
    #: Paused providers that the message waits for, with a space between them, and its queue.
    waiting_for: str | None = None
    wait_queue: Literal["single", "bulk"] | None = None

    #: Of an unknown message.
    remedies: Remedies = _NO_REMEDIES
    #: It is not resent, even if its sender chose ``on_unknown="resend"``.
    no_resend: bool = False
    max_resends: int | None = None

    #: The provider works: end its pause.
    provider_works: bool = False
    #: Pause the provider for so long; each further pause takes twice as long, up to the maximum.
    pause_ms: int | None = None
    pause_max_ms: int | None = None
    #: The pause that the provider asked for.
    requested_pause_ms: int | None = None
    #: Pause it only if other messages failed there, too.
    pause_if_others_failed: bool = False

    def to_json(self) -> dict[str, Any]:
        """Its fields for settle.lua, without those that say nothing."""
        document = {
            k: v for k, v in vars(self).items() if v is not None and v is not False and v != ()
        }
        remedies, following = document.pop("remedies"), document.get("next")
        if remedies is not _NO_REMEDIES:
            document |= {k: v for k, v in vars(remedies).items() if v is not None}
        return document if following is None else document | {"next": vars(following)}


class Settlement(NamedTuple):
    """The outcome of an attempt, with the claim under which it was made."""

    id: str
    token: str
    attempt: int
    outcome: AttemptOutcome


class Transition(NamedTuple):
    """What a settlement made of a message."""

    state: str
    #: When upkeep or a worker next looks at it; None: nothing does.
    next_look_ms: int | None
    #: The attempt that has begun at the next provider; None: none has.
    attempt: int | None
    #: Events whose triggers are to be published; "": one that is not.
    events: list[str]


# --- events ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClaimedEvent:
    """The event is this worker's."""

    kind: str
    #: JSON of the event, and of its message. Personal data.
    data: str = field(repr=False)
    tries: int
    #: Id of the message that it is about; "": none is known.
    message_id: str
    message_data: str = field(repr=False)
    #: Names of the handlers that have succeeded.
    handlers_done: frozenset[str]


@dataclass(frozen=True)
class HeldElsewhere:
    """Another worker runs the event's handlers."""

    lease_ends_ms: int


@dataclass(frozen=True)
class EventOver:
    """The event needs no handlers (any more)."""

    #: A state, or "gone" for an id without a record.
    state: str


EventClaimAnswer: TypeAlias = ClaimedEvent | Early | HeldElsewhere | EventOver


def event_claim_answer(answer: list[Any]) -> EventClaimAnswer:
    """The answer of claim_event.lua, which has checked the record's numbers."""
    kind, *rest = answer
    match kind:
        case "claimed":
            event_kind, data, tries, message_id, message_data, done = rest
            return ClaimedEvent(
                event_kind, data, int(tries), message_id, message_data, frozenset(json.loads(done))
            )
        case "early":
            return Early(_ms(rest[0]))
        case "busy":
            return HeldElsewhere(_ms(rest[0]))
        case _:
            return EventOver(rest[0])


class EventSettlement(NamedTuple):
    """What became of an event's handlers."""

    event: str
    #: Token of the claim under which they ran.
    token: str
    #: done | retry | dead | unheard | back, see settle_event.lua.
    verdict: str
    #: Seconds until a retry.
    delay: float = 0.0
    why: str = ""
    #: Names of handlers that succeeded and were not recorded before.
    succeeded: tuple[str, ...] = ()


class EventTransition(NamedTuple):
    """What a settlement made of an event."""

    state: str
    #: When it is next due; None: it is over, or another worker has it.
    next_look_ms: int | None


# --- taking in -------------------------------------------------------------------------------


class Accepted(NamedTuple):
    """The answer to a message that was handed in."""

    verdict: str  #: accepted | duplicate | conflict | full
    id: str
    publish: bool


class Received(NamedTuple):
    """An incoming message, or a part of one, that was recorded."""

    publish: bool
    event: str


class Reported(NamedTuple):
    """The answer to a delivery report."""

    #: Id of a message to publish once more, so that its task ends.
    close: str | None
    #: Id of its message, and whether the report changed its state.
    id: str | None
    moved: bool
    #: As in :class:`Transition`.
    events: list[str]
    #: The new state; None: it did not change.
    state: str | None = None
    #: Its message was sent by ``send_many``.
    bulk: bool = False


# --- operators -------------------------------------------------------------------------------


class Cancelled(NamedTuple):
    """The answer to a cancellation."""

    #: The state before, or "gone".
    before: str
    #: Id of the event to publish, or "".
    event: str
    #: The message's trigger is to be published once more, so that its task ends.
    publish: bool


class Requeued(NamedTuple):
    """The answer to an operator's requeue or settlement."""

    #: The state before, or "gone".
    before: str
    #: The message's trigger is to be published.
    publish: bool
    #: The state now, which is the one before if it did not change.
    state: str


class Replayed(NamedTuple):
    """The answer to a replay."""

    #: The state before, or "gone".
    before: str
    #: Id of the event to publish, or "".
    event: str


@dataclass(frozen=True)
class BulkOperation:
    """What is to be done to many messages or events."""

    name: Literal["cancel", "requeue", "settle", "replay"]
    #: The states in which it is possible.
    possible: frozenset[str]
    #: Of a requeue: the new validity; None: as long as before.
    validity_ms: int | None = None
    #: Of a settlement: the state to set.
    to: str | None = None


@dataclass(frozen=True)
class BulkRequest:
    """The arguments of bulk_step.lua, which reads these names; None: no restriction."""

    operation: str
    possible: list[str]
    #: Records in other states do not match.
    states: list[str]
    #: Change nothing, and answer what would be done.
    dry: bool
    #: The records are many: single ones come before them.
    bulk: bool
    #: Triggers of messages that may be published so that their tasks end.
    closings: int
    #: Prefix of ids for events.
    events: str
    #: Only records that entered their state at this time or later, at this time or earlier.
    since: int | None = None
    before: int | None = None
    provider: str | None = None
    #: Class or code of the last error.
    error: str | None = None
    #: A record needs all of them.
    tags: list[str] | None = None
    #: Hashes of a number.
    numbers: list[str] | None = None
    #: Records at most that match.
    limit: int | None = None
    #: The index to walk, where to go on, its lowest score, and its entries at most; None: the ids
    #: are given.
    index: str | None = None
    score: str = ""
    id: str = ""
    least: int | None = None
    size: int = 0
    #: See BulkOperation.
    validity_ms: int | None = None
    to: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Its fields for bulk_step.lua, without those that say nothing."""
        return {k: v for k, v in vars(self).items() if v is not None}


class BulkChange(NamedTuple):
    """What became of one record."""

    id: str
    #: The state before, or "gone".
    before: str
    #: The state now, or that it would have; None: the operation is not possible in its state.
    now: str | None


class BulkFailure(NamedTuple):
    """A record whose operation failed; the others went on."""

    id: str
    cause: str
    #: It is damaged, and was set aside.
    aside: bool


class BulkStep(NamedTuple):
    """What one step of a bulk operation did."""

    changes: list[BulkChange]
    failures: list[BulkFailure]
    #: Ids of messages and events whose triggers are to be published.
    messages: list[str]
    events: list[str]


class Examined(NamedTuple):
    """What can be read of a record."""

    #: "msg" or "event".
    kind: str
    #: Can the message that is to be sent, or the event's data, be read?
    readable: bool
    #: Other fields whose JSON cannot be read.
    unreadable_fields: list[str]


# --- upkeep and memory -----------------------------------------------------------------------


class Lapse(NamedTuple):
    """A message whose lease ended before its worker settled it."""

    id: str
    #: Its state now.
    state: str
    #: Id of the event of its end, if that is to be published.
    event: str | None


class Webhooks(NamedTuple):
    """Bytes that the webhooks of one provider take in Redis."""

    provider: str
    #: Those that wait for their handlers: their number and bytes.
    waiting: int
    held: int
    #: Bytes that remain of handled ones.
    kept: int
    #: More of them are refused, while other providers may have room.
    refused: bool


class Room(NamedTuple):
    """The memory that Redis has for new messages, in bytes."""

    used: int
    #: Redis's maxmemory; 0: there is no limit, or INFO is restricted.
    max: int
    #: Bytes that accepted messages still need until they are final, and the broker.
    reserved: int
    #: Bytes left for new messages.
    left: int
    #: Bytes left for webhooks, which are refused long before :meth:`send`.
    webhooks_left: int = 0
    #: Bytes left for webhooks of heavy providers, and bytes from which on one is heavy.
    heavy_left: int = 0
    heavy: int = 0
    #: Bytes that the unhandled webhooks of one provider may take.
    quota: int = 0
    #: Bytes of webhooks, by provider.
    webhooks: tuple[Webhooks, ...] = ()

    @property
    def refuses_webhooks(self) -> bool:
        """Are webhooks refused now, except reports of accepted messages?"""
        return bool(self.max) and self.webhooks_left < 0

    @property
    def nearly_refuses(self) -> bool:
        """Is less than a twentieth of the memory left for new messages?"""
        return bool(self.max) and self.left < 0.05 * self.max

    @property
    def refuses(self) -> bool:
        """Is an ordinary message refused now?"""
        return bool(self.max) and self.left < 0

    @property
    def part(self) -> float:
        """Fraction of the memory that is used; from 1.0 on new messages are refused."""
        taken = self.used + self.reserved
        return taken / max(1, taken + self.left) if self.max else 0.0


class Purged(NamedTuple):
    """How many events were deleted, or would be."""

    number: int
    #: Bytes that they held.
    bytes: int
    #: Events whose handlers are running: they were not deleted.
    running: int


class Failure(NamedTuple):
    """A record that upkeep could not process."""

    id: str
    cause: str
    #: It was set aside as damaged; else it is tried again in a minute.
    aside: bool


class Taken(NamedTuple):
    """Ids that were due in a lane."""

    #: Ids with their numbers of attempts; single ones first.
    due: list[tuple[str, int]]
    failures: list[Failure]
    #: More is due, and the broker has room for it.
    more: bool
    #: How many of them are single; the others are bulk.
    single: int
    #: Ids of messages whose sender named a provider or routing values.
    routed: frozenset[str]
    #: Each single id gets its own trigger: they are few, and the broker has room.
    alone: bool


class Swept(NamedTuple):
    """The answer of a sweep."""

    lapses: list[Lapse]
    failures: list[Failure]
    #: The quota was used up: there may be more.
    more: bool


class Repaired(NamedTuple):
    """The answer of a repair."""

    #: Its state now; "gone": there is none; "beyond": it cannot be repaired, only removed.
    state: str
    #: Id of an event to publish.
    event: str | None
    #: What was wrong; of "beyond": why. Empty: nothing was wrong.
    causes: list[str]
