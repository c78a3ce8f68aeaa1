"""The same request many times at once: it has its effect once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from smsqueue import OutgoingMessage
from smsqueue.providers.forward.auth import Signer
from tests.forward.side import SECRET, Side, bind
from tests.forward.speaking import come_in, signed

TIMES = 50


def at_once(post: Callable[[], requests.Response]) -> list[requests.Response]:
    together = threading.Barrier(TIMES)

    def one(_: int) -> requests.Response:
        together.wait(60)
        return post()

    with ThreadPoolExecutor(TIMES) as pool:
        return list(pool.map(one, range(TIMES)))


def test_a_message_is_sent_once(client: Side, server: Side) -> None:
    _, carrier = bind(client, server)
    client.send()
    client.deliver()
    answers = at_once(server.repeat)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["taken"]["id"] for answer in answers}) == 1
    server.deliver()
    assert len(carrier.calls) == 1


def test_the_first_time_is_no_different(client: Side, server: Side) -> None:
    """None of them comes before the others."""
    _, carrier = bind(client, server)
    body = b'{"smsqueue": 1, "id": "a", "attempt": 1, "message": {"dst": "1555", "body": "hi"}}'
    headers = Signer(SECRET).headers("server/im", body)
    url = server.url("forward") + "/im"
    answers = at_once(lambda: requests.post(url, data=body, headers=headers, timeout=60))
    taken = [answer.json()["taken"] for answer in answers]
    assert len({each["id"] for each in taken}) == 1
    assert [each["duplicate"] for each in taken].count(False) == 1
    server.deliver()
    assert len(carrier.calls) == 1


def test_an_eager_server_sends_once_too(eager_client: Side, eager_server: Side) -> None:
    _, carrier = bind(eager_client, eager_server)
    going, enough = threading.Event(), threading.Event()

    def slow(message: OutgoingMessage) -> None:
        going.set()
        enough.wait(60)

    carrier.then(slow)
    sending = threading.Thread(
        target=eager_client.gateway.send, args=(OutgoingMessage("1555", "hi"),)
    )
    sending.start()
    try:
        assert going.wait(60)
        answers = at_once(eager_server.repeat)
    finally:
        enough.set()
        sending.join()
    # It is not known yet what becomes of it.
    assert {answer.status_code for answer in answers} == {502}
    assert {answer.json()["error"]["ambiguous"] for answer in answers} == {True}
    assert {answer.status_code for answer in at_once(eager_server.repeat)} == {200}
    assert len(carrier.calls) == 1


@pytest.mark.parametrize("kind", ["message", "report"])
def test_an_event_is_heard_once(client: Side, server: Side, kind: str) -> None:
    _, carrier = bind(client, server)
    if kind == "message":
        come_in(server)
    else:
        id = client.send(status_report=True)
        client.deliver()
        server.deliver()
        report: Any = server.bench
        report.report("delivered", reference=carrier.calls[0], provider="carrier")
    server.deliver()
    assert {answer.status_code for answer in at_once(client.repeat)} == {200}
    client.deliver()
    assert len(client.received) + len(client.reports) == 1
    if kind == "report":
        assert client.gateway.lookup(id).state == "delivered"


def test_what_an_eager_server_does_not_remember_it_does_not_send_again(
    eager_client: Side, eager_server: Side
) -> None:
    """A process that was started since knows nothing of a request whose answer was lost."""
    _, carrier = bind(eager_client, eager_server)
    fields = '"id": "a", "attempt": 1, "message": {"dst": "1555", "body": "hi"}'
    status, text = signed(eager_server, f'{{"smsqueue": 1, "repeated": true, {fields}}}'.encode())
    assert (status, '"ambiguous":true' in text) == (502, True)
    assert not carrier.calls
    assert signed(eager_server, f'{{"smsqueue": 1, {fields}}}'.encode())[0] == 200
    status, _ = signed(eager_server, f'{{"smsqueue": 1, "repeated": true, {fields}}}'.encode())
    assert (status, len(carrier.calls)) == (200, 1)
