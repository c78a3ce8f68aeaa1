"""Claiming messages, and giving claims back whose answer was lost."""

from __future__ import annotations

import threading
from collections.abc import Callable

from smsqueue import exc
from smsqueue.concurrency.loop import Loop, current_loop, sleep
from smsqueue.delivery.slots import Slots
from smsqueue.ledger import AttemptBegun, AttemptOutcome, ClaimAnswer, Claimed, Ledger
from smsqueue.logs import get_logger

__all__ = ["Claims", "LostClaims"]

log = get_logger("smsqueue.delivery")

#: Seconds between two attempts to give lost claims back.
_INTERVAL = 1.0
#: Seconds for which a worker that stops tries to give lost claims back.
_STOPPING = 3.0


class LostClaims:
    """Claims whose answer was lost. Redis may have made them, or make them later, but this process
    does not work on what they claim. They are given back as soon as Redis answers.

    A claim that was lost on a loop is given back by a function of its own on that loop, which
    repeats that about once a second until all are given back. Elsewhere that happens at once and,
    as long as Redis does not answer, before each claim.

    Args:
        give_back: Gives one claim back, by id and token; False: it is to be called again later.
            If it raises QueueUnavailable, the others are not tried now.
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
        # Not bulk, even if what was claimed is: single messages may be among the claims.
        loop.post(lambda: loop.spawn(self._release_repeatedly, bulk=False))

    def _release_repeatedly(self) -> None:
        while self.ids:
            self.release()
            if self.ids:
                sleep(_INTERVAL)
        self._scheduled = False

    def before_claim(self) -> None:
        """Outside of loops: try again to give back what is left."""
        if self.ids and current_loop() is None:
            self.release()

    def release(self, wait: float = 0.0) -> None:
        """Try to give all of them back. One thread does so for all; the others go on.

        Args:
            wait: Seconds to wait for another thread that is doing so.
        """
        if not self.ids:
            return
        taken = self._releasing.acquire(timeout=wait) if wait else self._releasing.acquire(False)
        if not taken:
            return
        try:
            self._release()
        finally:
            self._releasing.release()

    def close(self) -> None:
        """The worker stops: try once more, for some seconds."""
        if not self.ids:
            return
        # In a thread: a frozen Redis answers nothing for longer than a worker may take to stop.
        last = threading.Thread(target=self.release, args=(_STOPPING,), daemon=True)
        try:
            last.start()
        except RuntimeError as error:
            log.error("%d claims were not given back: %s", len(self.ids), type(error).__name__)
        else:
            last.join(_STOPPING)

    def _release(self) -> None:
        for token, id in list(self.ids.items()):
            try:
                done = self._give_back(id, token)
            except exc.DamagedRecord:
                done = True  # it is put aside, and nothing is sent of it
            except exc.LedgerError as error:
                # No repetition helps: it goes on when its lease ends, and the others do so now.
                log.error("%s: its claim was not given back: %s", id, error)
                done = True
            except exc.QueueUnavailable:
                return
            except Exception as error:  # nothing may end the function that does this for all
                log.error("%s: its claim was not given back: %s", id, type(error).__name__)
                done = False
            if done:
                self.ids.pop(token, None)


class Claims:
    """The claims of one worker process."""

    def __init__(self, ledger: Ledger, slots: Slots, worker: str) -> None:
        self.ledger = ledger
        self.slots = slots
        self.worker = worker
        self.lost = LostClaims(self._give_back)

    def claim(
        self,
        id: str,
        token: str,
        *,
        lease: float,
        usual: tuple[str, float] | None,
        bulk: bool | None = None,
    ) -> ClaimAnswer:
        """Claim a message. The slot at ``usual`` is held if its attempt has begun.

        Args:
            usual: Provider of the messages that need no router, most of them: their attempt begins
                in the same step, if there is a slot. And the lease of a call there.
            bulk: It was sent as one of many; None: that is not known.
        """
        self.lost.before_claim()
        at, if_single = self._slot(usual, bulk)
        begun = False
        try:
            answer = self.ledger.claim(
                id, token, lease=lease, worker=self.worker, usual=at, if_single=if_single
            )
            begun = isinstance(answer, Claimed) and isinstance(answer.begun, AttemptBegun)
        except exc.LedgerError:
            raise
        except Exception:  # whatever it is: the claim may have been made, or be made later
            self.lost.add(id, token)
            raise
        finally:
            if at is not None and not begun:
                self.slots.give_back(at[0])
        return answer

    def _slot(
        self, usual: tuple[str, float] | None, bulk: bool | None
    ) -> tuple[tuple[str, float] | None, bool]:
        """Take a slot: where, if there is one, and is it one that only single messages may have?"""
        if usual is None:
            return None, False
        if self.slots.take(usual[0], bulk=bulk is not False):
            return usual, False
        if bulk is None and self.slots.take(usual[0]):
            return usual, True
        return None, False

    def _give_back(self, id: str, token: str) -> bool:
        """Give a claim back, and the attempt that perhaps began with it: nobody was called."""
        effect = self.ledger.unclaim(id, token)
        if effect is not None:
            outcome = AttemptOutcome(
                "retry", provider=effect.provider, why="its claim was not confirmed", delay_ms=0
            )
            self.ledger.settle(id, token, effect.attempts, outcome)
        return True
