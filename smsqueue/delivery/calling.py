"""One call of one provider."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import wait
from dataclasses import dataclass

from smsqueue import exc
from smsqueue.delivery.outcomes import Attempt
from smsqueue.delivery.slots import Slots
from smsqueue.gateway import Gateway
from smsqueue.loop import Loop
from smsqueue.masking import place_of
from smsqueue.messages import OutgoingMessage
from smsqueue.providers import transport
from smsqueue.providers.base import IProvider
from smsqueue.retry import error_label

__all__ = ["Calls"]

log = logging.getLogger("smsqueue.delivery")

#: Seconds after which a call looks whether its loop goes on.
_LOOK = 0.25
#: A provider blocks (it waits for a database, a lock, an HTTP client of its own) if its code holds
#: its loop for so many seconds at once, or in each of so many calls.
_BLOCKS_AT_ONCE, _BLOCKS_EACH, _CALLS = 1.0, 0.03, 16


@dataclass
class _Lane:
    """The loop of one provider, and how many calls were made on it."""

    loop: Loop
    calls: int = 0

    def blocks(self) -> bool:
        if self.loop.held() > _BLOCKS_AT_ONCE:
            return True
        return self.calls >= _CALLS and self.loop.blocked() > _BLOCKS_EACH * self.calls


class Calls:
    """Calls the providers of one worker process.

    Those that are called over :mod:`smsqueue.providers.http` run on a loop, one for each of them:
    one whose code blocks keeps nobody else waiting. Its own calls are made in the calling threads
    from then on, as those of all other providers are.
    """

    def __init__(self, gateway: Gateway, slots: Slots) -> None:
        self._gateway = gateway
        self._slots = slots
        self._lanes: dict[str, _Lane] = {}
        self._blocking: set[str] = set()
        self._lock = threading.Lock()

    def call(self, attempt: Attempt, name: str) -> BaseException | None:
        """One call of one provider, in the slot that it holds; its error, or None."""
        message = attempt.message
        message.provider = message.routed_to = name
        message.reference = f"{attempt.id}.{attempt.repeats or attempt.made}"
        message.dedup_key = message.reference
        message.msgid = message.meta = None  # of a provider that was called before
        transport.begin_attempt()
        began, well = time.monotonic(), True
        try:
            provider = self._gateway.get_provider(name)
            with self._slots.calling(name, provider.deadline):
                self._send(provider, name, message)
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
            self._slots.leave(name, time.monotonic() - began, well=well)
        return None

    def _send(self, provider: IProvider, name: str, message: OutgoingMessage) -> None:
        if not provider.through_http_layer or name in self._blocking:
            provider.send(message)
            return
        lane = self._lane(name)
        running = lane.loop.run(lambda: provider.send(message))
        while not wait([running], _LOOK).done:
            # If another call blocks the loop before this one began, it need not wait for that.
            if self._blocks(name, lane) and running.cancel():
                provider.send(message)
                return
        lane.calls += 1
        self._blocks(name, lane)
        running.result()  # raises what the provider raised

    def close(self) -> None:
        """No call is made any more: end the loops."""
        with self._lock:
            lanes, self._lanes = self._lanes, {}
        for lane in lanes.values():
            lane.loop.close(1.0)

    def _lane(self, name: str) -> _Lane:
        with self._lock:
            if name not in self._lanes:
                self._lanes[name] = _Lane(Loop(f"smsqueue-{name}"))
            return self._lanes[name]

    def _blocks(self, name: str, lane: _Lane) -> bool:
        if name not in self._blocking and lane.blocks():
            self._blocking.add(name)
            log.warning(
                "the provider %s waits for something else than its HTTP calls (a database, a lock, "
                "another HTTP client), or this machine is overloaded: from now on its calls do not "
                "share a thread",
                name,
                extra={"provider": name},
            )
        return name in self._blocking


def _unhealthy(error: BaseException) -> bool:
    return not isinstance(error, exc.MessageSendError) or isinstance(error, exc.ServerError)
