"""The gateway that the workers and receivers of these tests load, with short times."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from smsqueue import Gateway, IncomingMessage, MessageStatus, OutgoingMessage, RetryPolicy
from smsqueue.delivery import leases
from tests.chaos import points
from tests.chaos.provider import ChaosProvider

#: A lease is the provider's deadline and this; a claim's until it is routed is the sum of both.
leases._MARGIN, leases._ROUTING = 2.0, 1.0

RETRY = RetryPolicy(
    base=0.1, cap=0.5, pause=0.1, pause_max=0.5, slow_pause=0.2, slow_pause_max=0.5
)  # fmt: skip

gateway = Gateway(retry=RETRY)
gateway.router = lambda message, *names: list(names)
for _name in os.environ["CHAOS_PROVIDERS"].split(","):
    gateway.add_provider(_name, ChaosProvider, url=f"{os.environ['CHAOS_STUB']}/{_name}")

_heard = os.open(os.environ["CHAOS_HEARD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def _note(kind: str, **line: Any) -> None:
    os.write(_heard, json.dumps(line | {"kind": kind, "at": time.time()}).encode() + b"\n")


def on_send(message: OutgoingMessage) -> None:
    then = message.provider_options.context.get("then")
    if then:
        gateway.send(OutgoingMessage(message.dst, then).options(context={"by": message.id}))
        points.here("hook")
    _note("sent", id=message.id)


def on_status(status: MessageStatus) -> None:
    about = {"msgid": status.msgid, "reference": status.reference}
    _note("status", id=status.id, state=status.state, **about)


def on_receive(message: IncomingMessage) -> None:
    _note("received", id=message.id, msgid=message.msgid)


def before(message: OutgoingMessage) -> None:
    """Of two handlers the first one's success is recorded before the second one is called."""


gateway.onSend += before
gateway.onSend += on_send
gateway.onStatus += on_status
gateway.onReceive += on_receive
points.install()
