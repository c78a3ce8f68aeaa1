"""A gateway as an application has it: nothing about it is shortened for the tests."""

from __future__ import annotations

import json
import os
from typing import Any

from smsqueue import Gateway
from smsqueue.ledger import Claimed, ClaimedEvent, Ledger
from smsqueue.providers.http import HttpProvider
from tests.chaos.provider import ChaosProvider

_heard = os.open(os.environ["CHAOS_HEARD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


class PlainProvider(ChaosProvider):
    """With the deadline that providers have."""

    deadline = HttpProvider.deadline


def _note_needless_triggers(command: str) -> None:
    """Write down those after which nothing was to be done."""
    inner = getattr(Ledger, command)

    def claim(self: Ledger, id: str, *args: Any, **options: Any) -> Any:
        answer = inner(self, id, *args, **options)
        if not isinstance(answer, Claimed | ClaimedEvent):
            line = {"kind": "needless", "id": id, "answer": repr(answer)}
            os.write(_heard, json.dumps(line).encode() + b"\n")
        return answer

    setattr(Ledger, command, claim)


gateway = Gateway()
gateway.router = lambda message, *names: list(names)
for _name in os.environ["CHAOS_PROVIDERS"].split(","):
    gateway.add_provider(_name, PlainProvider, url=f"{os.environ['CHAOS_STUB']}/{_name}")
for _command in ("claim", "claim_event"):
    _note_needless_triggers(_command)
