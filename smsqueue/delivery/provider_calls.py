"""Calls providers: on the caller's loop, on loops of their own, or in threads."""

from __future__ import annotations

import logging
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

from smsqueue import exc
from smsqueue.concurrency.greenlet_loop import Loop, RemoteCall, current_loop, wait
from smsqueue.delivery.outcomes import Attempt, code_of
from smsqueue.delivery.slots import Slots
from smsqueue.gateway import Gateway
from smsqueue.logs import get_logger
from smsqueue.message.masking import place_of
from smsqueue.message.messages import OutgoingMessage
from smsqueue.policy.retry import error_label
from smsqueue.providers.base import IProvider, transport

__all__ = ["ProviderCalls"]

log = get_logger("smsqueue.delivery")

#: Largest number of loops for the calls of one provider.
_MAX_LOOPS = 8
#: A provider gets more loops if its code blocks them for more than this share of the time, and each
#: call for this many seconds on average. Waiting for the interpreter lock takes less.
_BLOCKED_SHARE, _BLOCKED_A_LITTLE = 0.4, 0.003
#: A provider is called in threads if one call blocks a loop for this many seconds ...
_BLOCKED_AT_ONCE = 1.0
#: ... or if all its loops are blocked and each call blocks for this many seconds on average.
_BLOCKED_PER_CALL = 0.25
#: Seconds between two checks of the loops.
_CHECK_INTERVAL = 0.25


class _CallPool:
    """The loops or threads in which one provider is called, so that it does not block others.

    A provider that uses :mod:`smsqueue.providers.http` is called on a loop. If its code blocks the
    loop, because it waits for a database, a lock or another HTTP client, it gets more loops. If it
    blocks for long, it is called in threads, as are providers without that module.
    """

    def __init__(self, name: str, *, threads: int, on_loop: bool) -> None:
        self.name = name
        #: Number of calls on each loop, including those that have not begun.
        self._loops = {self._new_loop(): 0} if on_loop else {}
        self._in_threads = not on_loop
        self._threads = ThreadPoolExecutor(threads, f"smsqueue-{name}")
        #: Calls on loops, and the number of calls that have ended since the last check.
        self._running: set[RemoteCall[OutgoingMessage]] = set()
        self._ended = 0
        #: The time of the last check (monotonic), and for how many seconds loops had been blocked.
        self._checked_at, self._blocked = time.monotonic(), 0.0

    def _new_loop(self) -> Loop:
        return Loop(f"smsqueue-{self.name}")

    def send(self, caller: Loop, provider: IProvider, message: OutgoingMessage) -> None:
        """Call the provider, from a function on the loop ``caller``; raises its errors."""
        if not self._in_threads:
            loop = min(self._loops, key=self._loops.__getitem__)
            call = RemoteCall(lambda: provider.send(message), loop, caller)
            self._running.add(call)
            self._loops[loop] += 1
            try:
                call.wait()
                return
            except CancelledError:
                if not call.cancelled:  # it had begun, so the provider may have the message
                    raise
            finally:
                self._running.discard(call)
                self._loops[loop] -= 1
                self._ended += 1
        wait(caller.in_thread(lambda: provider.send(message), self._threads))

    def check(self) -> None:
        """Add loops, or use threads from now on, if some calls block others."""
        if self._in_threads:
            return
        now, blocked = time.monotonic(), sum(loop.blocked() for loop in self._loops)
        waited, seconds, ended = blocked - self._blocked, now - self._checked_at, self._ended
        self._checked_at, self._blocked, self._ended = now, blocked, 0
        if seconds > 2 * _CHECK_INTERVAL:
            return  # the whole process is short of CPU time
        if max(loop.held() for loop in self._loops) > _BLOCKED_AT_ONCE:
            self._use_threads()
        elif waited > max(_BLOCKED_SHARE * seconds * len(self._loops), _BLOCKED_A_LITTLE * ended):
            if len(self._loops) < _MAX_LOOPS:
                self._loops.update({self._new_loop(): 0 for _ in range(len(self._loops))})
            elif waited > _BLOCKED_PER_CALL * ended:
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
            call.cancel()  # has no effect on calls that have begun

    def close(self) -> None:
        """Close loops and threads; no call is made any more."""
        for loop in self._loops:
            loop.close(1.0)
        self._threads.shutdown(wait=False, cancel_futures=True)


class ProviderCalls:
    """Calls the providers of one worker process.

    From a thread, a provider is called in that thread. From a loop, bundled providers that use
    :mod:`smsqueue.providers.http` are called on that loop. Other providers may block, so each has
    loops or threads of its own and delays no other.
    """

    def __init__(self, gateway: Gateway, slots: Slots) -> None:
        self._gateway = gateway
        self._slots = slots
        self._pools: dict[str, _CallPool] = {}

    def call(self, attempt: Attempt, name: str) -> BaseException | None:
        """Call a provider, in the slot that the attempt holds; returns its error, or None."""
        message = attempt.message
        message.provider = message.routed_to = name
        message.reference = f"{attempt.id}.{attempt.repeats or attempt.number}"
        message.dedup_key = message.reference
        message.msgid = message.meta = None  # set by a provider that was called before
        transport.begin_attempt()
        began, well = time.monotonic(), True
        try:
            provider = self._gateway.get_provider(name)
            attempt.pooled_sender = self._gateway.pooled_sender(name, message)
            message.src = attempt.pooled_sender or message.src
            with self._slots.calling(name, provider.deadline):
                self._send(provider, name, message)
        except BaseException as error:  # a plugin may raise anything, also SystemExit
            known, label = isinstance(error, exc.ProviderError), error_label(error)
            well = known and not _unhealthy(error)
            log.log(
                logging.WARNING if known else logging.ERROR,
                "%s: %s failed at %s%s",
                attempt.id,
                label,
                name,
                "" if known else f" ({place_of(error)})",
                extra={
                    "id": attempt.id,
                    "provider": name,
                    "attempt": attempt.number,
                    "error": label,
                    "code": code_of(error),
                },
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
            self._pool(name, provider, loop).send(loop, provider, message)

    def close(self) -> None:
        """Close loops and threads; no call is made any more."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close()

    def _pool(self, name: str, provider: IProvider, caller: Loop) -> _CallPool:
        """Only functions on the loop ``caller`` call this, so it needs no lock."""
        if name not in self._pools:
            if not self._pools:
                caller.asyncio.call_soon(self._check, caller)
            self._pools[name] = _CallPool(
                name, threads=self._slots.most(name), on_loop=provider.through_http_layer
            )
        return self._pools[name]

    def _check(self, caller: Loop) -> None:
        for pool in self._pools.values():
            pool.check()
        if self._pools:
            caller.asyncio.call_later(_CHECK_INTERVAL, self._check, caller)


def _is_bundled(provider: IProvider) -> bool:
    return type(provider).__module__.startswith("smsqueue.providers.")


def _unhealthy(error: BaseException) -> bool:
    return not isinstance(error, exc.MessageSendError) or isinstance(error, exc.ServerError)
