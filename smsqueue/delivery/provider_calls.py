"""One call of one provider."""

from __future__ import annotations

import logging
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

from smsqueue import exc
from smsqueue.concurrency.loop import Loop, current_loop, wait
from smsqueue.delivery.outcomes import Attempt
from smsqueue.delivery.slots import Slots
from smsqueue.gateway import Gateway
from smsqueue.logs import get_logger
from smsqueue.message.masking import place_of
from smsqueue.message.messages import OutgoingMessage
from smsqueue.policy.retry import error_label
from smsqueue.providers.base import IProvider, transport

__all__ = ["ProviderCalls"]

log = get_logger("smsqueue.delivery")

#: The calls of one provider share so many loops at most.
_MOST_LOOPS = 8
#: Share of the time for which functions block the loops of a provider, above which it gets another.
_BLOCKED = 0.4
#: A provider's calls are made in threads if its code holds a loop for so many seconds at once, or
#: if all its loops are blocked, and each call blocks for so long.
_AT_ONCE, _EACH = 1.0, 0.25
#: Seconds between two looks whether the loops of providers go on.
_LOOK = 0.25


class _CallPool:
    """Where the calls of one provider are made that a loop waits for, beside it.

    Those over :mod:`smsqueue.providers.http` run on a loop of their own. If the provider's code
    blocks it (it waits for a database, a lock, an HTTP client of its own), they run on several,
    and if it blocks for long, as those of other providers, in threads of their own.
    """

    def __init__(self, name: str, *, threads: int, on_loop: bool) -> None:
        self.name = name
        #: How many calls run on each loop, those included whose turn has not come.
        self._loops = {self._new_loop(): 0} if on_loop else {}
        self._in_threads = not on_loop
        self._threads = ThreadPoolExecutor(threads, f"smsqueue-{name}")
        #: ProviderCalls that run on loops, and how many have ended since the last look.
        self._running: set[Future[OutgoingMessage]] = set()
        self._ended = 0
        #: At the last look: when it was (monotonic), and for how many seconds loops were blocked.
        self._looked, self._blocked = time.monotonic(), 0.0

    def _new_loop(self) -> Loop:
        return Loop(f"smsqueue-{self.name}")

    def send(self, caller: Loop, provider: IProvider, message: OutgoingMessage) -> None:
        """Make a call, from a function on the loop ``caller``; raises what the provider raises."""
        if not self._in_threads:
            loop = min(self._loops, key=self._loops.__getitem__)
            running = loop.run(lambda: provider.send(message))
            self._running.add(running)
            self._loops[loop] += 1
            try:
                caller.result(running)
                return
            except CancelledError:
                if not running.cancelled():  # it had begun, so the provider may have the message
                    raise
            finally:
                self._running.discard(running)
                self._loops[loop] -= 1
                self._ended += 1
        wait(caller.in_thread(lambda: provider.send(message), self._threads))

    def look(self) -> None:
        """See whether the loops go on: if some calls block others, they get more loops, or are made
        in threads from now on."""
        if self._in_threads:
            return
        now, blocked = time.monotonic(), sum(loop.blocked() for loop in self._loops)
        waited, seconds, ended = blocked - self._blocked, now - self._looked, self._ended
        self._looked, self._blocked, self._ended = now, blocked, 0
        if seconds > 2 * _LOOK:
            return  # all of the process waits for the processor, or for Python's lock
        if max(loop.held() for loop in self._loops) > _AT_ONCE:
            self._use_threads()
        elif waited > _BLOCKED * seconds * len(self._loops):
            if len(self._loops) < _MOST_LOOPS:
                self._loops.update({self._new_loop(): 0 for _ in range(len(self._loops))})
            elif waited > _EACH * ended:
                self._use_threads()

    def _use_threads(self) -> None:
        self._in_threads = True
        log.warning(
            "the provider %s waits for something else than its HTTP calls (a database, a lock, "
            "another HTTP client), or this machine is overloaded: from now on its calls do not "
            "share a thread",
            self.name,
            extra={"provider": self.name},
        )
        for call in [*self._running]:
            call.cancel()  # has no effect on those that have begun

    def close(self) -> None:
        """No call is made any more."""
        for loop in self._loops:
            loop.close(1.0)
        self._threads.shutdown(wait=False, cancel_futures=True)


class ProviderCalls:
    """ProviderCalls the providers of one worker process.

    Called from a thread, a provider is called there. Called from a loop, the bundled providers that
    are called over :mod:`smsqueue.providers.http` are called on that loop. All others may block, as
    their code is not ours: they are called beside it, each in a lane of its own, so that one keeps
    nobody else waiting.
    """

    def __init__(self, gateway: Gateway, slots: Slots) -> None:
        self._gateway = gateway
        self._slots = slots
        self._lanes: dict[str, _CallPool] = {}

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
        except BaseException as error:  # a plugin may raise anything; sys.exit() is one too
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
        loop = current_loop()
        if loop is None or (provider.through_http_layer and _is_bundled(provider)):
            provider.send(message)
        else:
            self._lane(name, provider, loop).send(loop, provider, message)

    def close(self) -> None:
        """No call is made any more."""
        lanes, self._lanes = self._lanes, {}
        for lane in lanes.values():
            lane.close()

    def _lane(self, name: str, provider: IProvider, caller: Loop) -> _CallPool:
        """Only functions on the loop ``caller`` ask for it, so there is no lock."""
        if name not in self._lanes:
            if not self._lanes:
                caller.asyncio.call_soon(self._look, caller)
            self._lanes[name] = _CallPool(
                name, threads=self._slots.most(name), on_loop=provider.through_http_layer
            )
        return self._lanes[name]

    def _look(self, caller: Loop) -> None:
        for lane in self._lanes.values():
            lane.look()
        if self._lanes:
            caller.asyncio.call_later(_LOOK, self._look, caller)


def _is_bundled(provider: IProvider) -> bool:
    return type(provider).__module__.startswith("smsqueue.providers.")


def _unhealthy(error: BaseException) -> bool:
    return not isinstance(error, exc.MessageSendError) or isinstance(error, exc.ServerError)
