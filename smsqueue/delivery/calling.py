"""One call of one provider."""

from __future__ import annotations

import logging
import time

from smsqueue import exc
from smsqueue.delivery.outcomes import Attempt
from smsqueue.delivery.slots import Slots
from smsqueue.gateway import Gateway
from smsqueue.masking import place_of
from smsqueue.providers import transport
from smsqueue.retry import error_label

__all__ = ["call"]

log = logging.getLogger("smsqueue.delivery")


def call(gateway: Gateway, slots: Slots, attempt: Attempt, name: str) -> BaseException | None:
    """One call of one provider, in the slot that it holds; its error, or None."""
    message = attempt.message
    message.provider = message.routed_to = name
    message.reference = f"{attempt.id}.{attempt.repeats or attempt.made}"
    message.dedup_key = message.reference
    message.msgid = message.meta = None  # of a provider that was called before
    transport.begin_attempt()
    began, well = time.monotonic(), True
    try:
        provider = gateway.get_provider(name)
        with slots.calling(name, provider.deadline):
            provider.send(message)
    except Exception as error:  # a plugin may raise anything
        known, label = isinstance(error, exc.ProviderError), error_label(error)
        well = known and not _unhealthy(error)
        log.log(
            logging.WARNING if known else logging.ERROR,
            "%s: %s failed at %s%s",
            attempt.id,
            label,
            name,
            "" if known else f" ({place_of(error)})",
            extra={"id": attempt.id, "provider": name, "error_class": label},
        )
        return error
    finally:
        slots.leave(name, time.monotonic() - began, well=well)
    return None


def _unhealthy(error: BaseException) -> bool:
    return not isinstance(error, exc.MessageSendError) or isinstance(error, exc.ServerError)
