"""The same request many times at once takes effect once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from smsqueue import OutgoingMessage
from smsqueue.providers.forward.auth import Signer
from tests.forward.actions import post_signed, receive_message
from tests.forward.side import SECRET, Side, connect

TIMES = 50


def post_at_once(post: Callable[[], requests.Response]) -> list[requests.Response]:
    barrier = threading.Barrier(TIMES)

    def wait_and_post(_: int) -> requests.Response:
        barrier.wait(60)
        return post()

    with ThreadPoolExecutor(TIMES) as pool:
        return list(pool.map(wait_and_post, range(TIMES)))


def test_a_repeated_message_is_sent_once(client: Side, server: Side) -> None:
    _, carrier = connect(client, server)
    client.send()
    client.deliver()
    answers = post_at_once(server.repeat)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["taken"]["id"] for answer in answers}) == 1
    server.deliver()
    assert len(carrier.calls) == 1


def test_a_message_whose_first_requests_are_concurrent_is_sent_once(
    client: Side, server: Side
) -> None:
    _, carrier = connect(client, server)
    body = b'{"smsqueue": 1, "id": "a", "attempt": 1, "message": {"dst": "1555", "body": "hi"}}'
    headers = Signer(SECRET).headers("server/im", body)
    url = server.url("forward") + "/im"
    answers = post_at_once(lambda: requests.post(url, data=body, headers=headers, timeout=60))
    accepted = [answer.json()["taken"] for answer in answers]
    assert len({fields["id"] for fields in accepted}) == 1
    assert [fields["duplicate"] for fields in accepted].count(False) == 1
    server.deliver()
    assert len(carrier.calls) == 1


def test_an_eager_server_sends_a_repeated_message_once(
    eager_client: Side, eager_server: Side
) -> None:
    _, carrier = connect(eager_client, eager_server)
    started, release = threading.Event(), threading.Event()

    def slow(message: OutgoingMessage) -> None:
        started.set()
        release.wait(60)

    carrier.then(slow)
    sending = threading.Thread(
        target=eager_client.gateway.send, args=(OutgoingMessage("1555", "hi"),)
    )
    sending.start()
    try:
        assert started.wait(60)
        answers = post_at_once(eager_server.repeat)
    finally:
        release.set()
        sending.join()
    # The outcome is not known yet.
    assert {answer.status_code for answer in answers} == {502}
    assert {answer.json()["error"]["ambiguous"] for answer in answers} == {True}
    assert {answer.status_code for answer in post_at_once(eager_server.repeat)} == {200}
    assert len(carrier.calls) == 1


@pytest.mark.parametrize("kind", ["message", "report"])
def test_a_repeated_event_reaches_the_handlers_once(client: Side, server: Side, kind: str) -> None:
    _, carrier = connect(client, server)
    if kind == "message":
        receive_message(server)
    else:
        id = client.send(status_report=True)
        client.deliver()
        server.deliver()
        report: Any = server.bench
        report.report("delivered", reference=carrier.calls[0], provider="carrier")
    server.deliver()
    assert {answer.status_code for answer in post_at_once(client.repeat)} == {200}
    client.deliver()
    assert len(client.received) + len(client.reports) == 1
    if kind == "report":
        assert client.gateway.lookup(id).state == "delivered"


def test_an_eager_server_does_not_send_a_repeated_attempt_that_it_does_not_know(
    eager_client: Side, eager_server: Side
) -> None:
    """A new process does not know a request whose answer was lost."""
    _, carrier = connect(eager_client, eager_server)
    fields = '"id": "a", "attempt": 1, "message": {"dst": "1555", "body": "hi"}'
    status, text = post_signed(
        eager_server, f'{{"smsqueue": 1, "repeated": true, {fields}}}'.encode()
    )
    assert (status, '"ambiguous":true' in text) == (502, True)
    assert not carrier.calls
    assert post_signed(eager_server, f'{{"smsqueue": 1, {fields}}}'.encode())[0] == 200
    status, _ = post_signed(eager_server, f'{{"smsqueue": 1, "repeated": true, {fields}}}'.encode())
    assert (status, len(carrier.calls)) == (200, 1)
