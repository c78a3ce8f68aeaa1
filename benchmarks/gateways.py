"""The gateways that the measured workers and receivers load."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import ClassVar

import redis

from benchmarks.stub import REFUSAL_CODE
from smsqueue import Gateway, OutgoingMessage, exc
from smsqueue.message.statuses import MessageStatus
from smsqueue.providers.http import Answer, HttpProvider
from smsqueue.providers.simulator import SimulatorProvider

__all__ = ["ON_SEND", "ON_STATUS", "TOKEN", "receiving", "sending", "with_handlers"]

#: What webhooks are signed with.
TOKEN = "benchmark"
#: Keys in Redis in which the handlers count their calls.
ON_SEND, ON_STATUS = "benchmark:on_send", "benchmark:on_status"


class _Stub(HttpProvider):
    """A provider as short as one can be."""

    codes: ClassVar[Mapping[str | int, type[exc.ProviderError]]] = {REFUSAL_CODE: exc.ServerError}

    def error_code(self, answer: Answer) -> str | int | None:
        code = answer.get("error", "code")
        return code if isinstance(code, str) else None

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        answer = self.call("POST", "/messages", json={"to": message.dst, "text": message.body})
        message.msgid = answer.require("id")
        return message


def sending() -> Gateway:
    """A gateway that sends to the stub."""
    gateway = Gateway()
    gateway.add_provider("stub", _Stub, url=os.environ["BENCH_STUB"])
    return gateway


def with_handlers() -> Gateway:
    """The same with handlers for what was sent and for delivery reports, each of which makes one
    call of Redis."""
    gateway = sending()
    gateway.onSend.connect(_on_send, name="benchmark:on_send")
    gateway.onStatus.connect(_on_status, name="benchmark:on_status")
    return gateway


@cache
def _redis() -> redis.Redis:
    return redis.Redis.from_url(os.environ["SMSQUEUE_REDIS_URL"])


def _on_send(message: OutgoingMessage) -> None:
    _redis().incr(ON_SEND)


def _on_status(status: MessageStatus) -> None:
    _redis().incr(ON_STATUS)


def receiving() -> Gateway:
    """A gateway whose provider takes signed webhooks."""
    gateway = Gateway()
    gateway.add_provider("main", SimulatorProvider, url="http://127.0.0.1:9", token=TOKEN)
    return gateway
