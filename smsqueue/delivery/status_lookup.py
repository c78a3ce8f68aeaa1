"""Asks providers for the state of messages whose answer was lost."""

from __future__ import annotations

import json
import time
from functools import partial

from smsqueue import exc
from smsqueue.concurrency.call_threads import CallThreads
from smsqueue.concurrency.greenlet_loop import blocking
from smsqueue.delivery.outcomes import FIRST_ASK, TriggerResult
from smsqueue.delivery.slots import Slots
from smsqueue.gateway import Gateway
from smsqueue.ledger import Ledger, LookUp
from smsqueue.logs import get_logger
from smsqueue.message import serialization
from smsqueue.message.masking import place_of
from smsqueue.message.states import State
from smsqueue.message.statuses import MessageStatus
from smsqueue.policy.retry import error_label, requested_wait

__all__ = ["look_up"]

log = get_logger("smsqueue.delivery")

#: Longest time between two lookups, in seconds.
_LONGEST = 6 * 3600.0
#: Seconds after its provider's deadline at which a lookup times out.
_MARGIN = 30.0


def look_up(
    gateway: Gateway,
    ledger: Ledger,
    slots: Slots,
    threads: CallThreads,
    id: str,
    question: LookUp,
) -> TriggerResult:
    """Look up the state of an unknown message at its provider.

    This takes a slot of the provider, because the lookup may hang.

    Raises:
        QueueUnavailable: The state was not recorded; it will be looked up again.
    """
    name = question.provider
    seconds = slots.enter(name, bulk=True)  # less urgent than a single message
    if seconds:
        ledger.asked(id, max(seconds, 1.0))
        return TriggerResult(State.UNKNOWN, wait=seconds, error="ProviderBusy")
    began = time.monotonic()
    try:
        return _look_up(gateway, ledger, threads, id, question)
    finally:
        slots.leave(name, time.monotonic() - began, well=True)


def _look_up(
    gateway: Gateway, ledger: Ledger, threads: CallThreads, id: str, question: LookUp
) -> TriggerResult:
    """Look up the state once. It counts as a delivery report. If the provider does not know it, it
    is looked up again later. A lookup never causes another send."""
    name, since = question.provider, question.called_at
    again = min(FIRST_ASK * 4 ** (question.times - 1), _LONGEST)
    try:
        message = serialization.load_outgoing(id, json.loads(question.data))
        if since is None:
            raise ValueError("the time of the call")
    except Exception as error:  # the record may contain anything
        label = type(error).__name__
        extra = {"id": id, "provider": name, "error": label}
        log.error("%s: %s is not asked: its record is damaged: %s", id, name, label, extra=extra)
        ledger.asked(id, _LONGEST)
        return TriggerResult(State.UNKNOWN, wait=_LONGEST, error="DamagedRecord")
    message.provider = name
    message.reference = message.dedup_key = f"{id}.{question.attempt}"
    provider = gateway.providers.get(name)
    status: MessageStatus | None = None
    try:
        if provider is None:  # another worker may have it
            raise NotImplementedError
        answer = threads.call(
            partial(provider.look_up, message, since),
            limit=provider.deadline + _MARGIN,
            kind="look-up",
            key=("look-up", id),
        )
        if not isinstance(answer, MessageStatus | None):
            raise TypeError(f"look_up returned a {type(answer).__name__}")
        status = answer
    except NotImplementedError:
        again = _LONGEST
    except BaseException as error:  # a plugin may raise anything, also SystemExit
        again = max(again, requested_wait(error))
        log.warning(
            "%s: %s could not be asked: %s%s",
            id,
            name,
            error_label(error),
            "" if isinstance(error, exc.ProviderError) else f" ({place_of(error)})",
            extra={"id": id, "provider": name, "error": error_label(error)},
        )
    if status is None:
        ledger.asked(id, again)
        return TriggerResult(State.UNKNOWN, wait=again, error="NotKnown")
    status.provider, status.reference = name, message.reference
    try:
        blocking(gateway.receive_status, status)
    except exc.QueueUnavailable:
        raise
    except Exception as error:  # a plugin may have returned anything
        log.error(
            "%s: what %s answered cannot be recorded: %s (%s)",
            *(id, name, type(error).__name__, place_of(error)),
            extra={"id": id, "provider": name, "error": type(error).__name__},
        )
        ledger.asked(id, again)
        return TriggerResult(State.UNKNOWN, wait=again, error="NotKnown")
    # If the state was not conclusive or was known already, it is looked up again later.
    ledger.asked(id, again)
    return TriggerResult(State.UNKNOWN, wait=0.0, error="Found")
