"""How an attempt ended: makes the outcome that the ledger records."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace

from smsqueue import exc
from smsqueue.delivery.leases import LATEST_CALL
from smsqueue.gateway import Gateway
from smsqueue.ledger import AttemptBegun, AttemptOutcome, Claimed, Remedies, Transition
from smsqueue.logs import get_logger
from smsqueue.message import serialization
from smsqueue.message.ids import new_id
from smsqueue.message.masking import place_of
from smsqueue.message.messages import OutgoingMessage
from smsqueue.message.states import WAITING, State
from smsqueue.policy.retry import Decision, error_label
from smsqueue.policy.router import NotBefore, Refuse
from smsqueue.providers.base import IProvider

__all__ = [
    "Attempt",
    "TriggerResult",
    "attempt_of",
    "by_router",
    "code_of",
    "ids_of",
    "judged",
    "of_repetition",
    "remedies",
    "result_of",
    "seconds_until",
    "sent",
    "with_remedies",
]

log = get_logger("smsqueue.delivery")

#: Ids of one message: no SMS has more parts. Reports with longer ids are refused.
_MOST_IDS, _LONGEST_ID = 255, 1024
#: Characters of all ids of one message, as JSON: 255 of a usual length have 10,000.
_LONGEST_IDS = 16 * 1024


@dataclass
class Attempt:
    """What a worker knows of the claim that it holds."""

    id: str
    token: str
    message: OutgoingMessage
    #: Number of the last attempt that has begun; 0: none.
    number: int
    tries: int
    age: float
    #: When the running attempt was begun (monotonic).
    since: float = 0.0
    #: The provider that may have it from an earlier attempt, and the number of that one.
    pin: str = ""
    repeats: int = 0
    #: Sent as one of many: single messages go first.
    bulk: bool = False
    #: The sender that was chosen for the running attempt; None: the message's own, or none.
    pooled_sender: str | None = None
    #: Seconds after which a provider that comes earlier in the route may take it: it is paused, or
    #: failed for now. None: there is none.
    later: float | None = None

    def may_go_later(self, seconds: float) -> None:
        """An earlier provider of the route may take it after so long."""
        self.later = seconds if self.later is None else min(self.later, seconds)


def attempt_of(claim: Claimed, id: str, token: str, asked: float) -> Attempt:
    """The attempt that a worker may make under its claim.

    Args:
        asked: When the claim was asked for, at the latest (monotonic).

    Raises:
        Exception: the record holds no message; of any class.
    """
    data = json.loads(claim.data)
    message = serialization.load_outgoing(id, data)
    number = claim.begun.number if isinstance(claim.begun, AttemptBegun) else claim.attempts
    message.repeated = bool(claim.pinned_to)
    if claim.validity_left_ms is not None:  # what the network is told
        message.options(expires=max(claim.validity_left_ms, 1000) / 60_000)
    return Attempt(
        id,
        token,
        message,
        number,
        claim.tries,
        (claim.now_ms - claim.waiting_since_ms) / 1000,
        asked,
        claim.pinned_to,
        claim.repeated_attempt,
        data.get("bulk", False),
    )


@dataclass(frozen=True)
class TriggerResult:
    """How a trigger ended: the message's state, and for what waits the seconds and the reason."""

    state: str
    wait: float | None = None
    error: str | None = None
    #: How many attempts were made before, or tries of an event's handlers.
    earlier: int = 0


def sent(gateway: Gateway, message: OutgoingMessage, name: str) -> AttemptOutcome:
    """The outcome of an attempt that the provider took. Nothing that a plugin does keeps that from
    being recorded: what it left is not kept then."""
    try:
        return _sent(gateway, message, name)
    except Exception as error:
        _log_unusable(message.id, name, error)
    message.msgid = message.meta = None
    event = {"provider": name, "msgid": None, "meta": None}
    return AttemptOutcome(
        "sent",
        provider=name,
        msgid="null",
        sent_event=serialization.to_json(event) if gateway.onSend else None,
        provider_works=True,
    )


def with_remedies(
    outcome: AttemptOutcome, provider: IProvider, message: OutgoingMessage
) -> AttemptOutcome:
    """The outcome of an attempt that the provider may have accepted; as :func:`sent`."""
    try:
        return replace(outcome, remedies=remedies(provider), msgids=ids_of(provider, message))
    except Exception as error:
        _log_unusable(message.id, provider.name, error)
    return outcome


def _log_unusable(id: str | None, name: str, error: Exception) -> None:
    log.error(
        "%s: what %s left cannot be used, so it is not kept: %s (%s)",
        *(id, name, type(error).__name__, place_of(error)),
        extra={"id": id, "provider": name, "error": type(error).__name__},
    )


def _sent(gateway: Gateway, message: OutgoingMessage, name: str) -> AttemptOutcome:
    provider = gateway.get_provider(name)
    for field in ("msgid", "meta"):
        value = getattr(message, field)
        if value is None or type(value) is str:
            continue
        try:
            serialization.to_json(value)
        except Exception as error:  # a plugin may leave anything there; the message is out
            setattr(message, field, None)
            log.error(
                "%s: the %s that %s left cannot be written (%s), so it is not kept",
                *(message.id, field, name, type(error).__name__),
                extra={"id": message.id, "provider": name},
            )
    ids = ids_of(provider, message)
    message.meta = serialization.bounded_meta(message.meta)
    msgid = serialization.to_json(message.msgid)
    if len(msgid) > _LONGEST_IDS:
        message.msgid, msgid = None, "null"
        log.error(
            "%s: the ids that %s gave are longer than %d characters, so they are not kept",
            *(message.id, name, _LONGEST_IDS),
            extra={"id": message.id, "provider": name},
        )
    sent_event = None
    if gateway.onSend:
        event = {"provider": name, "msgid": message.msgid, "meta": message.meta}
        sent_event = serialization.to_json(event)
    return AttemptOutcome(
        "sent",
        provider=name,
        msgids=ids,
        msgid=msgid,
        meta=serialization.to_json(message.meta) if message.meta is not None else None,
        event=new_id(),
        sent_event=sent_event,
        no_reports=not provider.reports,
        provider_works=True,
    )


def ids_of(provider: IProvider, message: OutgoingMessage) -> tuple[str, ...]:
    """The provider's ids of a message, by which its reports are found; no more than an SMS has
    parts, and none that a report could not have."""
    ids = message.msgid if isinstance(message.msgid, list | tuple) else [message.msgid]
    if not provider.unique_msgids:
        return ()
    texts = (str(each) for each in ids if each not in (None, ""))
    return tuple(text for text in texts if len(text) <= _LONGEST_ID)[:_MOST_IDS]


def judged(decision: Decision, error: BaseException, name: str | None) -> AttemptOutcome:
    """The outcome of an attempt that failed.

    Args:
        name: The provider; None: its router failed.
    """
    label = error_label(error)
    outcome = AttemptOutcome(
        decision.verdict,
        provider=name,
        error=label,
        why="its provider may have it" if decision.verdict == "unknown" else None,
        code=code_of(error),
        delay_ms=int(decision.delay * 1000),
        counted=decision.counted,
        provider_works=decision.well,
        no_resend=decision.hold,
    )
    if decision.pause is None:
        return outcome
    if isinstance(error, exc.CreditError | exc.AuthError):
        log.error(
            "%s is paused: %s. No message is lost; they go out when it works again",
            name or "the router",
            label,
            extra={"provider": name or "the router", "error": label},
        )
    return replace(
        outcome,
        pause_ms=int(decision.pause * 1000),
        pause_max_ms=int(decision.pause_max * 1000),
        requested_pause_ms=int(decision.wait * 1000) or None,
        pause_if_others_failed=decision.suspect,
    )


def by_router(answer: Refuse | NotBefore) -> AttemptOutcome:
    """The outcome of a message that its router refuses or lets wait; no provider was called."""
    match answer:
        case Refuse(reason):
            return AttemptOutcome("failed", error="Refused", why=reason, policy="refused")
        case NotBefore(moment):
            return AttemptOutcome(
                "wait",
                why="the router says not before this time",
                policy="not_before",
                not_before_ms=int(moment.timestamp() * 1000),
            )


def code_of(error: BaseException) -> str | None:
    """The provider's code of an error."""
    try:
        code = getattr(error, "code", None)
        return None if code is None else str(code)[:64]
    except Exception:  # a property, or an object, of a plugin's own
        return None


def of_repetition(attempt: Attempt, decision: Decision) -> Decision:
    """The repetition of an attempt failed, but the provider may have the message from that one."""
    if attempt.pin and decision.verdict == "failed":
        return replace(decision, verdict="unknown", elsewhere=False, hold=True)
    return decision


#: Seconds until a provider is first asked about a message that it may have.
FIRST_ASK = 20.0


def remedies(provider: IProvider) -> Remedies:
    """What can be done about a message that a provider may have accepted."""
    # The last repetition has to be there, not only claimed, while the provider knows the key.
    window = provider.dedup_window - LATEST_CALL - provider.deadline
    can_ask = type(provider).look_up is not IProvider.look_up
    return Remedies(
        repeat_for_ms=int(window * 1000) if window > 0 else None,
        ask_after_ms=int(FIRST_ASK * 1000) if can_ask else None,
    )


def result_of(moved: Transition, error: str | None, number: int) -> TriggerResult:
    """What a settle's answer means for the trigger.

    Args:
        number: The number of the attempt that was settled.
    """
    waits = moved.state in WAITING or moved.state == State.UNKNOWN
    wait = (
        seconds_until(moved.next_look_ms)
        if moved.next_look_ms and waits
        else 0.0
        if waits
        else None
    )
    return TriggerResult(moved.state, wait=wait, error=error, earlier=max(0, number - 1))


def seconds_until(ms: int) -> float:
    """For a rough wait only: by this machine's clock."""
    return max(0.0, ms / 1000 - time.time())
