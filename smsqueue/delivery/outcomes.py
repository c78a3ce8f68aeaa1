"""How an attempt ended, in the words of the ledger: see settle.lua for the fields."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from smsqueue import exc
from smsqueue.gateway import Gateway
from smsqueue.ledger import Transition
from smsqueue.logs import get_logger
from smsqueue.message import serialization
from smsqueue.message.ids import time_of
from smsqueue.message.masking import place_of
from smsqueue.message.messages import OutgoingMessage
from smsqueue.message.states import WAITING, State
from smsqueue.policy.retry import Decision, error_label
from smsqueue.providers.base import IProvider

__all__ = [
    "Attempt",
    "Claim",
    "Outcome",
    "ids_of",
    "judged",
    "of_repetition",
    "outcome_of",
    "remedies",
    "seconds_until",
    "sent",
    "uncertain",
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
    made: int
    tries: int
    age: float
    #: When the running attempt was begun (monotonic).
    since: float = 0.0
    #: The provider that may have it from an earlier attempt, and the number of that one.
    pin: str = ""
    repeats: int = 0
    #: Sent as one of many: single messages go first.
    bulk: bool = False
    #: Seconds after which a provider that comes earlier in the route may take it: it is paused, or
    #: failed for now. None: there is none.
    later: float | None = None

    def may_go_later(self, seconds: float) -> None:
        """An earlier provider of the route may take it after so long."""
        self.later = seconds if self.later is None else min(self.later, seconds)


class Claim(NamedTuple):
    """What the ledger answered to a claim, as it came: see claim.lua."""

    id: str
    token: str
    #: Before the claim was asked for (monotonic).
    asked: float
    data: str
    made: Any
    tries: Any
    now: Any
    since: Any
    #: Of an attempt at the usual provider: "go", "paused" or "".
    begun: str
    #: Its number, or for how many ms the provider is paused.
    number: Any
    #: The one provider that it may go to, as that may have it already; "": any.
    pin: str
    #: The attempt at it that is repeated.
    repeats: Any
    #: Milliseconds that are left of its validity, "": it has none.
    left: Any

    def __repr__(self) -> str:
        # ``data`` is the message.
        return f"Claim({self.id!r}, made={self.made!r}, begun={self.begun!r}, pin={self.pin!r})"

    def attempt(self) -> Attempt:
        """The attempt that this worker may make."""
        data = json.loads(self.data)
        message = serialization.load_outgoing(self.id, data)
        since = int(self.since) / 1000 if self.since else time_of(self.id)
        made = self.number if self.begun == "go" else self.made
        age = int(self.now) / 1000 - since
        message.repeated = bool(self.pin)
        if self.left:  # what the network is told
            message.options(expires=max(int(self.left), 1000) / 60_000)
        return Attempt(
            self.id,
            self.token,
            message,
            int(made),
            int(self.tries),
            age,
            self.asked,
            self.pin,
            int(self.repeats or 0),
            data.get("bulk", False),
        )


@dataclass(frozen=True)
class Outcome:
    """How a trigger ended: the message's state, and for what waits the seconds and the reason."""

    state: str
    wait: float | None = None
    error: str | None = None
    #: How many attempts were made before, or tries of an event's handlers.
    earlier: int = 0


def sent(gateway: Gateway, message: OutgoingMessage, name: str) -> dict[str, Any]:
    """The outcome of an attempt that the provider took. Nothing that a plugin does keeps that from
    being recorded: what it left is not kept then."""
    try:
        return _sent(gateway, message, name)
    except Exception as error:
        _log_unusable(message.id, name, error)
    message.msgid = message.meta = None
    told = {"provider": name, "msgid": None, "meta": None}
    return {
        "verdict": "sent",
        "msgids": [],
        "msgid": "null",
        "sent": serialization.to_json(told) if gateway.onSend else None,
        "well": True,
    }


def uncertain(provider: IProvider, message: OutgoingMessage) -> dict[str, Any]:
    """What the outcome of an attempt has that the provider may have taken; as :func:`sent`."""
    try:
        return remedies(provider) | {"msgids": ids_of(provider, message)}
    except Exception as error:
        _log_unusable(message.id, provider.name, error)
    return {"msgids": []}


def _log_unusable(id: str | None, name: str, error: Exception) -> None:
    log.error(
        "%s: what %s left cannot be used, so it is not kept: %s (%s)",
        *(id, name, type(error).__name__, place_of(error)),
        extra={"id": id, "provider": name, "error_class": type(error).__name__},
    )


def _sent(gateway: Gateway, message: OutgoingMessage, name: str) -> dict[str, Any]:
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
    told = {"provider": name, "msgid": message.msgid, "meta": message.meta}
    return {
        "verdict": "sent",
        "msgids": ids,
        "msgid": msgid,
        "meta": serialization.to_json(message.meta) if message.meta is not None else None,
        "sent": serialization.to_json(told) if gateway.onSend else None,
        "silent": not provider.reports or None,
        "well": True,
    }


def ids_of(provider: IProvider, message: OutgoingMessage) -> list[str]:
    """The provider's ids of a message, by which its reports are found; no more than an SMS has
    parts, and none that a report could not have."""
    ids = message.msgid if isinstance(message.msgid, list | tuple) else [message.msgid]
    if not provider.unique_msgids:
        return []
    texts = (str(each) for each in ids if each not in (None, ""))
    return [each for each in texts if len(each) <= _LONGEST_ID][:_MOST_IDS]


def judged(decision: Decision, error: BaseException, name: str) -> dict[str, Any]:
    """The outcome of an attempt that failed."""
    label = error_label(error)
    outcome: dict[str, Any] = {
        "verdict": decision.verdict,
        "error": label,
        "why": "its provider may have it" if decision.verdict == "unknown" else None,
        "code": _code_of(error),
        "delay": int(decision.delay * 1000),
        "counted": decision.counted or None,
        "well": decision.well or None,
        "hold": decision.hold or None,
    }
    if decision.pause is not None:
        outcome["pause"] = int(decision.pause * 1000)
        outcome["pause_max"] = int(decision.pause_max * 1000)
        outcome["suspect"] = decision.suspect or None
        outcome["wait"] = int(decision.wait * 1000) or None
        if isinstance(error, exc.CreditError | exc.AuthError):
            log.error(
                "%s is paused: %s. No message is lost; they go out when it works again",
                name,
                label,
                extra={"provider": name, "error_class": label},
            )
    return outcome


def _code_of(error: BaseException) -> str | None:
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
#: A worker that has had a claim for so many seconds does not call any more.
LATEST_CALL = 15.0


def remedies(provider: IProvider) -> dict[str, int]:
    """What can be done about a message that a provider may have: see settle.lua."""
    found = {}
    # The last repetition has to be there, not only claimed, while the provider knows the key.
    window = provider.dedup_window - LATEST_CALL - provider.deadline
    if window > 0:
        found["pin"] = int(window * 1000)
    if type(provider).look_up is not IProvider.look_up:
        found["ask"] = int(FIRST_ASK * 1000)
    return found


def outcome_of(moved: Transition, error: str | None, made: int) -> Outcome:
    """What a settle's answer means for the trigger.

    Args:
        made: The number of the attempt that was settled.
    """
    waits = moved.state in WAITING or moved.state == State.UNKNOWN
    wait = seconds_until(moved.look) if moved.look and waits else 0.0 if waits else None
    return Outcome(moved.state, wait=wait, error=error, earlier=max(0, made - 1))


def seconds_until(ms: int) -> float:
    """For a rough wait only: by this machine's clock."""
    return max(0.0, ms / 1000 - time.time())
