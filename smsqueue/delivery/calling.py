"""One call of one provider."""

from __future__ import annotations

import logging
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

from smsqueue import exc
from smsqueue.delivery.outcomes import Attempt
from smsqueue.delivery.slots import Slots
from smsqueue.gateway import Gateway
from smsqueue.logs import get_logger
from smsqueue.loop import Loop, current_loop, wait
from smsqueue.masking import place_of
from smsqueue.messages import OutgoingMessage
from smsqueue.providers import transport
from smsqueue.providers.base import IProvider
from smsqueue.retry import error_label

__all__ = ["Calls"]

log = get_logger("smsqueue.delivery")

#: A provider blocks (it waits for a database, a lock, an HTTP client of its own) if its code holds
#: its loop for so many seconds at once, or in each of so many calls.
_BLOCKS_AT_ONCE, _BLOCKS_EACH, _CALLS = 1.0, 0.03, 16
#: Seconds between two looks whether the loops of providers go on.
_LOOK = 0.25


class _Lane:
    """Where the calls of one provider are made that a loop waits for, beside it.

    Those over :mod:`smsqueue.providers.http` run on a loop of their own as long as the provider's
    code does not block it; then, as those of other providers, in threads of their own.
    """

    def __init__(self, name: str, *, threads: int, on_loop: bool) -> None:
        self.name = name
        self._loops = [Loop(f"smsqueue-{name}")] if on_loop else []
        #: None once its calls are made in threads.
        self.loop = self._loops[0] if on_loop else None
        self._threads = ThreadPoolExecutor(threads, f"smsqueue-{name}")
        self._calls = 0
        #: Calls whose turn on the loop has perhaps not come.
        self._running: set[Future[OutgoingMessage]] = set()

    def send(self, caller: Loop, provider: IProvider, message: OutgoingMessage) -> None:
        """Make a call, from a function on the loop ``caller``; raises what the provider raises."""
        loop = self.loop
        if loop is not None:
            running = loop.run(lambda: provider.send(message))
            self._running.add(running)
            try:
                caller.result(running)
                return
            except CancelledError:
                if not running.cancelled():  # it had begun, so the provider may have the message
                    raise
            finally:
                self._running.discard(running)
                self._calls += 1
                self._judge(loop)
        wait(caller.in_thread(lambda: provider.send(message), self._threads))

    def look(self) -> None:
        """See whether the loop goes on; what waits for it is called in threads if it does not."""
        if self.loop is not None:
            self._judge(self.loop)

    def _judge(self, loop: Loop) -> None:
        """Make the calls in threads from now on if some of them block the loop."""
        at_once = loop.held() > _BLOCKS_AT_ONCE
        each = self._calls >= _CALLS and loop.blocked() > _BLOCKS_EACH * self._calls
        if not (at_once or each) or self.loop is None:
            return
        self.loop = None
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


class Calls:
    """Calls the providers of one worker process.

    Called from a thread, a provider is called there. Called from a loop, the bundled providers that
    are called over :mod:`smsqueue.providers.http` are called on that loop. All others may block, as
    their code is not ours: they are called beside it, each in a lane of its own, so that one keeps
    nobody else waiting.
    """

    def __init__(self, gateway: Gateway, slots: Slots) -> None:
        self._gateway = gateway
        self._slots = slots
        self._lanes: dict[str, _Lane] = {}

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

    def _lane(self, name: str, provider: IProvider, caller: Loop) -> _Lane:
        """Only functions on the loop ``caller`` ask for it, so there is no lock."""
        if name not in self._lanes:
            if not self._lanes:
                caller.asyncio.call_soon(self._look, caller)
            self._lanes[name] = _Lane(
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
