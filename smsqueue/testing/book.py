"""What a caught gateway has in place of its ledger."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

from smsqueue.gateway import Gateway
from smsqueue.ledger import Ledger, Record
from smsqueue.ledger.answers import Accepted, Reported
from smsqueue.message.ids import new_id
from smsqueue.message.messages import IncomingMessage, OutgoingMessage
from smsqueue.message.states import State
from smsqueue.message.statuses import MessageError, MessageStatus
from smsqueue.providers.used import UsedSignatures
from smsqueue.testing.sheet import Sheet, routed

__all__ = ["Book"]

_Error = BaseException | type[BaseException]


class Book(Ledger):
    """A ledger in memory, which routes at once. What it does not override raises LookupError."""

    def __init__(self, gateway: Gateway) -> None:
        # Without the constructor of the ledger: that one connects.
        self.settings = gateway.settings
        #: All that was caught, by id.
        self.sheets: dict[str, Sheet] = {}
        #: What the next calls raise.
        self.failures: Iterator[_Error] = iter(())
        #: By the id of its trigger: the name of a hook, and what it is to be called with.
        self.due: dict[str, tuple[str, Any]] = {}
        #: Where the snapshots go.
        self.outbox: list[OutgoingMessage] = []
        self._gateway, self._eager = gateway, gateway.eager
        self._keys: dict[str, str] = {}
        self._lock = threading.Lock()
        self._signatures = UsedSignatures()

    def __getattr__(self, name: str) -> NoReturn:
        if name in ("redis", "_scripts"):
            raise LookupError("a captured gateway has no Redis: it sends, looks up and cancels")
        raise AttributeError(name)

    def note(self, provider: str, signature: str, request: str, seconds: float | None) -> str:
        return self._signatures.note(provider, signature, request, seconds)

    # --- sending -------------------------------------------------------------------------------

    def accept(self, message: OutgoingMessage, id: str, *, bulk: bool = False) -> Accepted:
        return self.accept_many([(message, id)])[0]

    def accept_many(self, batch: list[tuple[OutgoingMessage, str]]) -> list[Accepted]:
        error = next(self.failures, None)
        if error is not None:
            raise error
        # All are routed before the first one is caught.
        sheets = [Sheet(routed(self._gateway, message, id)) for message, id in batch]
        with self._lock:
            return [
                self._take(message, sheet)
                for (message, _), sheet in zip(batch, sheets, strict=True)
            ]

    def _take(self, message: OutgoingMessage, sheet: Sheet) -> Accepted:
        id = str(sheet.sent.id)
        key = message.provider_options.idempotency_key or message.derived_key or ""
        first = id if id in self.sheets else self._keys.get(key)
        if first is not None:
            same = self.sheets[first].content == sheet.content
            return Accepted(
                "conflict" if not same else "accepted" if first == id else "duplicate", first, False
            )
        self.sheets[id] = sheet
        sheet.sent.msgid = f"captured-{len(self.sheets)}"
        if key:
            self._keys[key] = id
        if sheet.state == State.SENT:
            self.due[id] = ("onSend", sheet.copy())
        self.outbox.append(sheet.sent)
        if self._eager:
            self.tell(message, id)
        return Accepted("accepted", id, sheet.state == State.SENT)

    def tell(self, message: OutgoingMessage, id: str) -> None:
        """What the sender's own object learns if it was delivered at once."""
        sent = self.sheets[id].sent
        message.provider, message.routed_to, message.msgid = (
            sent.provider,
            sent.routed_to,
            sent.msgid,
        )

    def cancel(self, id: str) -> tuple[str, str, bool]:
        sheet, event = self.sheets.get(id), new_id()
        if sheet is None:
            return "gone", "", False
        before = sheet.state
        if before == State.SCHEDULED:
            sheet.move(State.CANCELLED, why="by an operator")
            self.ended(id, event, "cancelled")
        return before, event, False

    def ended(self, id: str, event: str, why: str, code: object = None) -> MessageStatus:
        """Make the event of an end that no provider reports."""
        status = MessageError(None)
        status.status, status.status_code = why, code
        return self._about(id, event, status)

    # --- what comes back -----------------------------------------------------------------------

    def receive(self, message: IncomingMessage, *, repeats: bool) -> tuple[bool, str]:
        event = new_id()
        self.due[event] = ("onReceive", message)
        return True, event

    def report(self, status: MessageStatus, *, pids: list[str]) -> Reported:
        event, id = new_id(), (status.reference or "").rpartition(".")[0]
        if id not in self.sheets:
            sent = (each.sent for each in self.sheets.values())
            id = next((str(each.id) for each in sent if str(each.msgid) in pids), "")
        if not id:
            self.due[event] = ("onStatus", status)
            return Reported(None, None, False, [event])
        self._about(id, event, status)
        told = {"provider": status.provider, "why": "report"}
        moved = self.sheets[id].move(status.state, status.status_code, **told)
        return Reported(None, id, moved, [event])

    def _about(self, id: str, event: str, status: MessageStatus) -> MessageStatus:
        status.id = id
        status.context = copy.deepcopy(self.sheets[id].sent.provider_options.context)
        self.due[event] = ("onStatus", status)
        return status

    # --- looking -------------------------------------------------------------------------------

    def read(self, id: str) -> Record | None:
        sheet = self.sheets.get(id)
        return None if sheet is None else sheet.record

    def find(self, number: str) -> Iterator[str]:
        return (id for id in reversed(self.sheets) if self.sheets[id].sent.dst == number)

    def ping(self) -> None:
        pass

    def verify_server(self) -> None:
        pass

    def warnings(self) -> Iterator[str]:
        return iter(())

    def close(self) -> None:
        # The gateway has let go of what it closes, and would connect at its next use.
        vars(self._gateway)["ledger"] = self
