"""How a worker calls its providers: many at once on a loop, and those that block in threads."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from smsqueue import Gateway, OutgoingMessage
from smsqueue.message.states import State
from tests.providers.raw_server import Handle, RawServer, answering, serving

GATEWAY = """
import os, threading, time
from smsqueue import Gateway
from smsqueue.providers.http import HttpProvider

class Plain(HttpProvider):
    def send(self, message):
        answer = self.call("POST", "/messages", json={"text": message.body})
        message.msgid = answer.require("id")
        return message

both = threading.Barrier(2)

class Blocking(Plain):
    def send(self, message):
        both.wait(60)  # neither of two messages goes on before the other has come so far
        return super().send(message)

class Logging(HttpProvider):
    def send(self, message):
        time.sleep(0.05)  # as the database does where each message is logged
        body = {"thread": threading.get_ident(), "text": message.body}
        message.msgid = self.call("POST", "/messages", json=body).require("id")
        return message

gateway = Gateway()
gateway.add_provider("logging", Logging, url=os.environ["CARRIER"])
gateway.add_provider("plain", Plain, url=os.environ["CARRIER"])
gateway.add_provider("blocking", Blocking, url=os.environ["CARRIER"])
"""


@pytest.fixture
def serve() -> Iterator[Callable[[Handle], RawServer]]:
    with serving() as start:
        yield start


def test_calls_are_made_at_the_same_time(
    gateway: Gateway,
    start_worker: Callable[..., Any],
    until: Callable[..., None],
    serve: Callable[[Handle], RawServer],
) -> None:
    everybody = threading.Barrier(6)

    def handle(connection: socket.socket) -> None:
        everybody.wait(60)
        answering(200, '{"id": "m"}')(connection)

    carrier = serve(handle)
    worker = start_worker(GATEWAY, "-c", "32", CARRIER=carrier.url)
    sent = gateway.send_many(
        [OutgoingMessage("15550001", str(i), provider="plain") for i in range(6)]
    )
    until(lambda: all(gateway.lookup(each.id).state == State.SENT for each in sent))
    assert len(carrier.requests) == 6
    worker.stop()
    assert "Unclosed" not in worker.text()
    assert "Traceback" not in worker.text()


def test_a_provider_that_blocks_keeps_nobody_waiting(
    gateway: Gateway,
    start_worker: Callable[..., Any],
    until: Callable[..., None],
    serve: Callable[[Handle], RawServer],
) -> None:
    carrier = serve(answering(200, '{"id": "m"}'))
    worker = start_worker(GATEWAY, "-c", "32", CARRIER=carrier.url)
    first = gateway.send(OutgoingMessage("15550001", "one", provider="blocking"))
    until(lambda: gateway.lookup(first.id).state == State.SENDING)
    beside = gateway.send(OutgoingMessage("15550001", "beside", provider="plain"))
    until(lambda: gateway.lookup(beside.id).state == State.SENT)
    assert gateway.lookup(first.id).state == State.SENDING
    second = gateway.send(OutgoingMessage("15550001", "two", provider="blocking"))
    until(lambda: gateway.lookup(second.id).state == State.SENT)
    until(lambda: gateway.lookup(first.id).state == State.SENT)
    assert len(carrier.requests) == 3  # nothing was called twice
    assert "the provider blocking waits for something else" in worker.text()


def test_a_provider_that_waits_a_little_in_each_call_does_so_for_several_at_once(
    gateway: Gateway,
    start_worker: Callable[..., Any],
    until: Callable[..., None],
    serve: Callable[[Handle], RawServer],
) -> None:
    carrier = serve(answering(200, '{"id": "m"}'))
    worker = start_worker(GATEWAY, "-c", "32", CARRIER=carrier.url)
    sent = gateway.send_many(
        [OutgoingMessage("15550001", str(i), provider="logging") for i in range(100)]
    )
    until(lambda: all(gateway.lookup(each.id).state == State.SENT for each in sent))
    bodies = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in carrier.requests]
    assert 1 < len({body["thread"] for body in bodies}) <= 8
    assert len(carrier.requests) == 100
    worker.stop()
    assert "waits for something else" not in worker.text()
