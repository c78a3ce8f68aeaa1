"""Claiming messages, and giving back what was claimed without our hearing of it."""

from __future__ import annotations

import logging
import threading
from typing import Any

from smsqueue import exc
from smsqueue.delivery.slots import Slots
from smsqueue.ledger import Ledger

__all__ = ["Claims"]

log = logging.getLogger("smsqueue.delivery")


class Claims:
    """The claims of one worker process."""

    def __init__(self, ledger: Ledger, slots: Slots, worker: str) -> None:
        self.ledger = ledger
        self.slots = slots
        self.worker = worker
        #: Ids by token of claims whose answer was lost.
        self._unsure: dict[str, str] = {}
        self._releasing = threading.Lock()

    def claim(
        self,
        id: str,
        token: str,
        *,
        lease: float,
        usual: tuple[str, float] | None,
        bulk: bool | None = None,
    ) -> list[Any]:
        """Claim a message; see claim.lua for the answers. With "go" the slot at ``usual`` is held.

        Args:
            usual: Provider of the messages that need no router, most of them: their attempt begins
                in the same step, if there is a slot. And the lease of a call there.
            bulk: It was sent as one of many; None: that is not known.
        """
        self.release()
        at, if_single = self._slot(usual, bulk)
        begun = False
        try:
            answer = self.ledger.claim(
                id, token, lease=lease, worker=self.worker, usual=at, if_single=if_single
            )
            begun = answer[0] == "claimed" and answer[6] == "go"
        except exc.LedgerError:
            raise
        except exc.QueueUnavailable:
            self._unsure[token] = id
            self.release()
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

    def release(self) -> None:
        """Give back what was claimed, and perhaps begun, by claims whose answer was lost: nobody
        was called for it. One thread does so for all; the others go on with their work."""
        if not self._unsure or not self._releasing.acquire(blocking=False):
            return
        try:
            self._release()
        finally:
            self._releasing.release()

    def _release(self) -> None:
        for token, id in list(self._unsure.items()):
            try:
                effect = self.ledger.unclaim(id, token)
                if effect is not None:
                    attempts, provider = effect
                    why = {"verdict": "retry", "delay": 0, "why": "its claim was not confirmed"}
                    self.ledger.settle(id, token, attempts, why | {"provider": provider})
            except exc.DamagedRecord:
                pass  # it is put aside, and nothing is sent of it
            except exc.LedgerError as error:
                # No repetition helps: it goes on when its lease ends, and the others do so now.
                log.error("%s: its claim was not given back: %s", id, error)
            except exc.QueueUnavailable:
                return
            self._unsure.pop(token, None)
