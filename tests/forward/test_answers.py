"""What each side makes of answers that are not what the other side would say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from smsqueue import IncomingMessage, MessageDelivered, OutgoingMessage, exc
from tests.forward.side import NoPauses, Side, answering, bind
from tests.forward.speaking import come_in, state

LONG = "1" + "0" * 4000
#: Answers that say neither that something was taken nor that it was not.
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


def bound(client: Side, server: Side, speak: str = "smsqueue", **options: Any) -> Any:
    both = {"speak": speak, "users": {"u": "p"}}
    return bind(client, server, client_options=both, **both, **options)[1]


def refusal(client: Side) -> exc.ProviderError:
    with pytest.raises(exc.ProviderError) as caught:
        client.gateway.send(OutgoingMessage("1555", "hi"))
    return caught.value


@pytest.mark.parametrize("speak", ["smsqueue", "smsframework"])
@pytest.mark.parametrize("body", RUBBISH, ids=range(len(RUBBISH)))
def test_a_200_alone_is_no_word_of_the_other_side(
    eager_client: Side, eager_server: Side, body: bytes, speak: str
) -> None:
    carrier = bound(eager_client, eager_server, speak)
    eager_server.front = eager_client.front = answering(200, body)
    error = refusal(eager_client)
    if b'"?E"' in body and speak == "smsqueue":
        assert error.code == "speaks smsframework"
    else:
        assert (type(error), error.ambiguous) == (exc.ServerError, True)
    with pytest.raises(exc.ProviderError, match="1 of 1 clients did not accept it"):
        carrier._receive_message(IncomingMessage("1555", "YES"))


def test_an_event_that_was_answered_with_rubbish_is_not_lost(client: Side, server: Side) -> None:
    bind(client, server, server_class=NoPauses)
    client.front = answering(200, RUBBISH[1])
    come_in(server)
    server.deliver()
    client.front = None
    server.deliver()
    client.deliver()
    assert [message.body for message in client.received] == ["YES"]


@pytest.mark.parametrize(
    ("code", "shown"), [("Hi Bob +15550001234", False), ("998877", False), ("speaks klingon", True)]
)
def test_what_another_side_writes_for_a_code_is_logged_if_it_may_be_one(
    client: Side, server: Side, caplog: pytest.LogCaptureFixture, code: str, shown: bool
) -> None:
    bind(client, server)
    error = {"class": "ServerError", "code": code, "ambiguous": False, "text": "x"}
    client.front = answering(503, json.dumps({"smsqueue": 1, "error": error}).encode())
    come_in(server)
    server.deliver()
    assert "did not accept an event: ServerError" in caplog.text
    assert (code in caplog.text) is shown


@pytest.mark.parametrize("status", [301, 302, 404, 405])
def test_an_address_where_nobody_is_fails_no_message(
    client: Side, server: Side, status: int
) -> None:
    _, carrier = bind(client, server, server_class=NoPauses)
    server.front = client.front = answering(status, b"", Location="http://127.0.0.1:9/")
    id = client.send()
    come_in(server)
    for side in (client, server):
        side.deliver()
    record = client.gateway.lookup(id)
    assert (record.state, record.error, record.code) == (
        *("retrying", "ConnectionError"),
        "no forward provider",
    )
    server.front = client.front = None
    for _ in range(2):
        client.deliver()
        server.deliver()
    assert len(carrier.calls) == 1
    assert [message.body for message in client.received] == ["YES"]


def test_the_errors_say_what_to_do(eager_client: Side, eager_server: Side) -> None:
    bound(eager_client, eager_server)
    for status, code, words in (
        (404, "no forward provider", "prefix, then the name of its forward provider"),
        (403, "not let in", "secret.*clocks"),
    ):
        eager_server.front = answering(status, b"")
        error = refusal(eager_client)
        with pytest.raises(type(error), match=words):
            raise error
        assert (error.http_status, error.code, error.ambiguous) == (status, code, False)


def test_a_server_that_runs_smsframework_is_named(client: Side, server: Side) -> None:
    """It answers what its Python says, as it takes our document for a message."""
    bind(client, server)
    told = {"error": {"?E": ["AttributeError", ["'dict' object has no attribute 'provider'"]]}}
    server.front = answering(500, json.dumps(told).encode())
    id = client.send()
    client.deliver()
    record = client.gateway.lookup(id)
    assert (record.state, record.code) == ("failed", "speaks smsframework")


def test_a_client_that_runs_smsframework_is_named(
    eager_client: Side, eager_server: Side, caplog: pytest.LogCaptureFixture
) -> None:
    carrier = bound(eager_client, eager_server, server_class=NoPauses)
    told = {"error": {"?E": ["AttributeError", ["'dict' object has no attribute 'msgid'"]]}}
    # Its handlers cannot do anything with it, or do not even notice.
    for status, answer in ((500, told), (200, {"status": {"msgid": "c-1"}})):
        eager_client.front = answering(status, json.dumps(answer).encode())
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
def test_facts_that_are_out_of_bounds(
    eager_client: Side, eager_server: Side, document: str, code: Any, wait: float | None
) -> None:
    bound(eager_client, eager_server)
    eager_server.front = answering(429, f'{{"smsqueue": 1, "error": {document}}}'.encode())
    error = refusal(eager_client)
    assert type(error) is exc.LimitsError
    assert (error.code, error.retry_after) == (code, wait)


def test_a_client_that_is_away_fails_no_other_ones_report(client: Side, server: Side) -> None:
    """The state of a message at its client is right whatever the other client does."""
    _, carrier = bind(client, server, clients=["http://127.0.0.1:9/x", client.url("remote")])
    id = client.send(status_report=True)
    client.deliver()
    server.deliver()
    report = MessageDelivered(None)
    report.reference = carrier.calls[0]
    carrier._receive_status(report)
    server.deliver()
    assert state(client, id) == "delivered"
