"""Claims messages, and gives claims back whose answer was lost.

A claim holds for a lease (:mod:`smsqueue.delivery.leases`). Claims that are made at the same time
go to Redis together, up to ``GROUP_LIMIT`` in one call (:mod:`smsqueue.ledger.limits`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from smsqueue import exc
from smsqueue.concurrency.greenlet_loop import Loop, current_loop, sleep
from smsqueue.delivery.slots import Slots
from smsqueue.ledger import AttemptBegun, AttemptOutcome, ClaimAnswer, Claimed, Ledger
from smsqueue.logs import get_logger

__all__ = ["Claims", "LostClaims"]

log = get_logger("smsqueue.delivery")

#: Seconds between two attempts to give lost claims back.
_INTERVAL = 1.0
#: Seconds for which a stopping worker tries to give lost claims back.
_CLOSE_SECONDS = 3.0


class LostClaims:
    """Claims whose answer was lost. Redis may have made them or may still make them. This process
    does not work on them and gives them back as soon as Redis answers.

    For claims that were lost on a loop, a function on that loop tries about once a second until all
    are given back. Elsewhere they are given back at once or, while Redis does not answer, before
    the next claims.

    Args:
        give_back: Gives one claim back, by id and token. It returns False if it has to be called
            again later. If it raises QueueUnavailable, the other claims are tried later.
    """

    def __init__(self, give_back: Callable[[str, str], bool]) -> None:
        self._give_back = give_back
        #: Ids by token.
        self.ids: dict[str, str] = {}
        self._releasing = threading.Lock()
        self._scheduled = False

    def add(self, id: str, token: str) -> None:
        """Give a claim back."""
        self.ids[token] = id
        loop = current_loop()
        if loop is None:
            self.release()
        elif not self._scheduled:
            self._scheduled = True
            self._schedule(loop)

    def _schedule(self, loop: Loop) -> None:
        # Not bulk, because single messages may be among the claims.
        loop.post(lambda: loop.spawn(self._release_repeatedly, bulk=False))

    def _release_repeatedly(self) -> None:
        while self.ids:
            self.release()
            if self.ids:
                sleep(_INTERVAL)
        self._scheduled = False

    def before_claim(self) -> None:
        """Outside of loops: try again to give claims back."""
        if self.ids and current_loop() is None:
            self.release()

    def release(self, wait: float = 0.0) -> None:
        """Try to give all claims back, unless another thread is doing so.

        Args:
            wait: Seconds to wait for the other thread.
        """
        if not self.ids:
            return
        acquired = self._releasing.acquire(timeout=wait) if wait else self._releasing.acquire(False)
        if not acquired:
            return
        try:
            self._release()
        finally:
            self._releasing.release()

    def close(self) -> None:
        """Try once more, for some seconds; the worker stops."""
        if not self.ids:
            return
        # In a thread, because a frozen Redis would block for longer than a worker may take to stop.
        last = threading.Thread(target=self.release, args=(_CLOSE_SECONDS,), daemon=True)
        try:
            last.start()
        except RuntimeError as error:
            log.error("%d claims were not given back: %s", len(self.ids), type(error).__name__)
        else:
            last.join(_CLOSE_SECONDS)

    def _release(self) -> None:
        for token, id in list(self.ids.items()):
            try:
                done = self._give_back(id, token)
            except exc.DamagedRecord:
                done = True  # it is set aside and will not be sent
            except exc.LedgerError as error:
                # Repeating would not help. The message goes on when its lease ends.
                extra = {"id": id, "error": type(error).__name__}
                log.error("%s: its claim was not given back: %s", id, error, extra=extra)
                done = True
            except exc.QueueUnavailable:
                return
            except Exception as error:  # the other claims have to be given back, too
                name = type(error).__name__
                extra = {"id": id, "error": name}
                log.error("%s: its claim was not given back: %s", id, name, extra=extra)
                done = False
            if done:
                self.ids.pop(token, None)


class Claims:
    """The claims of one worker process."""

    def __init__(
        self, ledger: Ledger, slots: Slots, worker: str, exempt: Collection[str] = ()
    ) -> None:
        self.ledger = ledger
        #: Categories that go out in spite of an opt-out.
        self.exempt = exempt
        self.slots = slots
        self.worker = worker
        self.lost = LostClaims(self._give_back)

    def claim(
        self,
        id: str,
        token: str,
        *,
        lease: float,
        default: tuple[str, float] | None,
        bulk: bool | None = None,
    ) -> ClaimAnswer:
        """Claim a message. The slot at the default provider is held if its attempt has begun.

        Args:
            lease: Length of the claim's lease in seconds.
            default: The provider of messages that need no router, and the lease of its call in
                seconds. Their attempt begins in the same step if there is a slot.
            bulk: Whether the message belongs to a campaign; None if that is not known.
        """
        self.lost.before_claim()
        call, if_single = self._slot(default, bulk)
        begun = False
        try:
            answer = self.ledger.claim(
                id,
                token,
                lease=lease,
                worker=self.worker,
                default=call,
                if_single=if_single,
                exempt=self.exempt,
            )
            begun = isinstance(answer, Claimed) and isinstance(answer.begun, AttemptBegun)
        except exc.LedgerError:
            raise
        except Exception:  # the claim may have been made, or may still be made
            self.lost.add(id, token)
            raise
        finally:
            if call is not None and not begun:
                self.slots.give_back(call[0])
        return answer

    def _slot(
        self, default: tuple[str, float] | None, bulk: bool | None
    ) -> tuple[tuple[str, float] | None, bool]:
        """Take a slot. Returns its provider and lease, or None; and whether it is reserved for a
        single message."""
        if default is None:
            return None, False
        if self.slots.take(default[0], bulk=bulk is not False):
            return default, False
        if bulk is None and self.slots.take(default[0]):
            return default, True
        return None, False

    def _give_back(self, id: str, token: str) -> bool:
        """Give a claim back, with the attempt that may have begun: no provider was called."""
        effect = self.ledger.unclaim(id, token)
        if effect is not None:
            outcome = AttemptOutcome(
                "retry", provider=effect.provider, why="its claim was not confirmed", delay_ms=0
            )
            self.ledger.settle(id, token, effect.attempts, outcome)
        return True
