"""Answers that do not come from a forward provider, or not from one in the expected format."""

from __future__ import annotations

import json
from typing import Any

import pytest

from smsqueue import IncomingMessage, MessageDelivered, OutgoingMessage, exc
from tests.forward.actions import receive_message, state
from tests.forward.side import NoPauses, Side, connect, fixed_answer

LONG = "1" + "0" * 4000
#: Answers that neither confirm nor refuse a request.
RUBBISH = [
    b"",
    b"<h1>Welcome to nginx!</h1>",
    b"null",
    b"[]",
    b"{}",
    b"[" * 100_000,
    b'{"smsqueue": 1}',
    b'{"smsqueue": 1, "taken": {}, "heard": false}',
    b'{"smsqueue": 1, "taken": {"id": 5, "msgid": null}, "heard": "yes"}',
    b'{"smsqueue": 1, "taken": {"msgid": {"a": 1}}, "heard": 1}',
    b'{"smsqueue": 2, "taken": {"id": "5", "msgid": null}, "heard": true}',
    b'{"taken": {"id": "5", "msgid": null}, "heard": true}',
    b'{"messages": {"src": "555"}}',
    b'{"error": 7}',
    b'{"error": {"?E": 7}}',
]


def connect_as(client: Side, server: Side, speak: str = "smsqueue", **options: Any) -> Any:
    both = {"speak": speak, "users": {"u": "p"}}
    return connect(client, server, client_options=both, **both, **options)[1]


def send_error(client: Side) -> exc.ProviderError:
    with pytest.raises(exc.ProviderError) as caught:
        client.gateway.send(OutgoingMessage("1555", "hi"))
    return caught.value


@pytest.mark.parametrize("speak", ["smsqueue", "smsframework"])
@pytest.mark.parametrize("body", RUBBISH, ids=range(len(RUBBISH)))
def test_a_status_of_200_alone_confirms_nothing(
    eager_client: Side, eager_server: Side, body: bytes, speak: str
) -> None:
    carrier = connect_as(eager_client, eager_server, speak)
    eager_server.proxy = eager_client.proxy = fixed_answer(200, body)
    error = send_error(eager_client)
    if b'"?E"' in body and speak == "smsqueue":
        assert error.code == "speaks smsframework"
    else:
        assert (type(error), error.ambiguous) == (exc.ServerError, True)
    with pytest.raises(exc.ProviderError, match="1 of 1 clients did not accept it"):
        carrier._receive_message(IncomingMessage("1555", "YES"))


def test_an_event_whose_answer_was_rubbish_is_repeated(client: Side, server: Side) -> None:
    connect(client, server, server_class=NoPauses)
    client.proxy = fixed_answer(200, RUBBISH[1])
    receive_message(server)
    server.deliver()
    client.proxy = None
    server.deliver()
    client.deliver()
    assert [message.body for message in client.received] == ["YES"]


@pytest.mark.parametrize(
    ("code", "shown"), [("Hi Bob +15550001234", False), ("998877", False), ("speaks klingon", True)]
)
def test_the_other_sides_code_is_logged_only_if_it_looks_like_a_code(
    client: Side, server: Side, caplog: pytest.LogCaptureFixture, code: str, shown: bool
) -> None:
    connect(client, server)
    error = {"class": "ServerError", "code": code, "ambiguous": False, "text": "x"}
    client.proxy = fixed_answer(503, json.dumps({"smsqueue": 1, "error": error}).encode())
    receive_message(server)
    server.deliver()
    assert "did not accept an event: ServerError" in caplog.text
    assert (code in caplog.text) is shown


@pytest.mark.parametrize("status", [301, 302, 404, 405])
def test_messages_and_events_wait_while_the_address_is_wrong(
    client: Side, server: Side, status: int
) -> None:
    _, carrier = connect(client, server, server_class=NoPauses)
    server.proxy = client.proxy = fixed_answer(status, b"", Location="http://127.0.0.1:9/")
    id = client.send()
    receive_message(server)
    for side in (client, server):
        side.deliver()
    record = client.gateway.lookup(id)
    assert (record.state, record.error, record.code) == (
        *("retrying", "ConnectionError"),
        "no forward provider",
    )
    server.proxy = client.proxy = None
    for _ in range(2):
        client.deliver()
        server.deliver()
    assert len(carrier.calls) == 1
    assert [message.body for message in client.received] == ["YES"]


def test_errors_of_the_configuration_name_the_remedy(
    eager_client: Side, eager_server: Side
) -> None:
    connect_as(eager_client, eager_server)
    for status, code, text in (
        (404, "no forward provider", "prefix, then the name of its forward provider"),
        (403, "not let in", "secret.*clocks"),
    ):
        eager_server.proxy = fixed_answer(status, b"")
        error = send_error(eager_client)
        with pytest.raises(type(error), match=text):
            raise error
        assert (error.http_status, error.code, error.ambiguous) == (status, code, False)


def test_a_server_that_runs_smsframework_is_recognized(client: Side, server: Side) -> None:
    """It takes our document for a message object, and answers with the error of its Python."""
    connect(client, server)
    answer = {"error": {"?E": ["AttributeError", ["'dict' object has no attribute 'provider'"]]}}
    server.proxy = fixed_answer(500, json.dumps(answer).encode())
    id = client.send()
    client.deliver()
    record = client.gateway.lookup(id)
    assert (record.state, record.code) == ("failed", "speaks smsframework")


def test_a_client_that_runs_smsframework_is_recognized(
    eager_client: Side, eager_server: Side, caplog: pytest.LogCaptureFixture
) -> None:
    carrier = connect_as(eager_client, eager_server, server_class=NoPauses)
    error = {"error": {"?E": ["AttributeError", ["'dict' object has no attribute 'msgid'"]]}}
    # Its handlers fail, or ignore the document.
    for status, answer in ((500, error), (200, {"status": {"msgid": "c-1"}})):
        eager_client.proxy = fixed_answer(status, json.dumps(answer).encode())
        with pytest.raises(exc.ProviderError, match="speaks smsframework"):
            carrier._receive_status(MessageDelivered("c-1"))
        assert "speaks smsframework" in caplog.text
        caplog.clear()


@pytest.mark.parametrize(
    ("document", "code", "wait"),
    [
        (f'{{"class": "LimitsError", "ambiguous": false, "retry_after": {LONG}}}', None, 86400),
        ('{"class": "LimitsError", "ambiguous": false, "retry_after": 1e999}', None, 86400),
        (f'{{"class": "LimitsError", "ambiguous": false, "code": {LONG}}}', None, None),
        ('{"class": "LimitsError", "ambiguous": false, "code": [1]}', None, None),
        ('{"class": "LimitsError", "ambiguous": false, "code": 7}', 7, None),
    ],
)
def test_invalid_fields_of_an_error_are_limited_or_ignored(
    eager_client: Side, eager_server: Side, document: str, code: Any, wait: float | None
) -> None:
    connect_as(eager_client, eager_server)
    eager_server.proxy = fixed_answer(429, f'{{"smsqueue": 1, "error": {document}}}'.encode())
    error = send_error(eager_client)
    assert type(error) is exc.LimitsError
    assert (error.code, error.retry_after) == (code, wait)


def test_a_client_gets_its_report_while_another_one_is_unreachable(
    client: Side, server: Side
) -> None:
    _, carrier = connect(client, server, clients=["http://127.0.0.1:9/x", client.url("remote")])
    id = client.send(status_report=True)
    client.deliver()
    server.deliver()
    report = MessageDelivered(None)
    report.reference = carrier.calls[0]
    carrier._receive_status(report)
    server.deliver()
    assert state(client, id) == "delivered"
