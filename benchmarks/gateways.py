"""The gateways that the measured workers and receivers load."""

from __future__ import annotations

import os

from smsqueue import Gateway, OutgoingMessage
from smsqueue.providers.http import HttpProvider
from smsqueue.providers.simulator import SimulatorProvider

__all__ = ["TOKEN", "receiving", "sending"]

#: What webhooks are signed with.
TOKEN = "benchmark"
CONNECTIONS = 100


class _Stub(HttpProvider):
    """A provider as short as one can be."""

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        answer = self.call("POST", "/messages", json={"to": message.dst, "text": message.body})
        message.msgid = answer.require("id")
        return message


def sending() -> Gateway:
    """A gateway that sends to the stub."""
    gateway = Gateway()
    gateway.add_provider("stub", _Stub, url=os.environ["BENCH_STUB"], pool_size=CONNECTIONS)
    return gateway


def receiving() -> Gateway:
    """A gateway whose provider takes signed webhooks."""
    gateway = Gateway()
    gateway.add_provider("main", SimulatorProvider, url="http://127.0.0.1:9", token=TOKEN)
    return gateway
