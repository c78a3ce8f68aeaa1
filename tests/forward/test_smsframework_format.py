"""Documents as smsframework 0.0.9 writes them are read and written."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import requests

from smsqueue import (
    IncomingMessage,
    MessageDelivered,
    MessageError,
    MessageExpired,
    MessageStatus,
    OutgoingMessage,
    exc,
)
from smsqueue.providers.forward import ForwardClientProvider
from tests.forward.side import SECRET, Side, connect, fixed_answer

USERS = {"u": "p"}

OUTGOING = """{"message": {"?": ["OutgoingMessage", {"src": "abc", "dst": "1234", "body": "hi",
"provider": "fwd", "provider_options": {"?": ["OutgoingMessageOptions", {"status_report": true,
"expires": 5}]}, "provider_params": {"x": 1}, "routing_values": ["a", 2]}]}}"""
BARE = """{"message": {"?": ["OutgoingMessage", {"src": null, "dst": "1234", "body": "credit",
"provider": "fwd", "provider_options": {"?": ["OutgoingMessageOptions", {}]},
"provider_params": {}}]}}"""
ACCEPTED = """{"message": {"?": ["OutgoingMessage", {"src": "abc", "dst": "1234", "body": "hi",
"provider": "main", "provider_options": {"?": ["OutgoingMessageOptions", {"status_report": true,
"expires": 5}]}, "provider_params": {"x": 1}, "routing_values": ["a", 2], "msgid": "c1",
"meta": {"a": 1}}]}}"""
INCOMING = """{"message": {"?": ["IncomingMessage", {"msgid": "m1", "src": "555",
"body": "hello", "dst": "777", "rtime": {"?": ["datetime", "2026-02-03T13:32:07.912064"]},
"meta": {"z": 1, "at": {"?": ["datetime", "2026-02-03T13:32:08.000001"]}}, "provider": "main"}]}}"""
DELIVERED = """{"status": {"?": ["MessageDelivered", {"msgid": "c1", "rtime": {"?": ["datetime",
"2026-02-03T13:32:07.917093"]}, "meta": {"q": 2}, "provider": "main"}]}}"""
FAILED = """{"status": {"?": ["MessageError", {"msgid": "c1", "rtime": {"?": ["datetime",
"2026-02-03T13:32:07.919273"]}, "meta": {}, "status_code": 9, "status": "bad",
"provider": "main"}]}}"""
PLUGIN_EXPIRED = """{"status": {"?": ["ClickatellMessageExpired", {"msgid": "c1", "rtime": {"?": [
"datetime", "2026-02-03T13:32:07.921614"]}, "meta": {}, "provider": "main"}]}}"""
ERROR = '{"error": {"?E": ["%s", ["no money"]]}}'


def post(side: Side, path: str, document: str, *, auth: bool = True) -> requests.Response:
    url = f"http://127.0.0.1:{side.port}/hook/{path}"
    credentials = ("u", "p") if auth else None
    headers = {"Content-Type": "application/json"}
    return requests.post(url, data=document, headers=headers, auth=credentials, timeout=60)


def connect_both(client: Side, server: Side) -> tuple[Any, Any]:
    """Both sides use smsframework's format and a password."""
    return connect(
        client,
        server,
        clients=[client.url("remote", "u:p")],
        secret=None,
        users=USERS,
        speak="smsframework",
        client_options={"secret": None, "users": USERS, "speak": "smsframework"},
    )


def test_its_client_sends_through_our_server(eager_client: Side, eager_server: Side) -> None:
    _, carrier = connect_both(eager_client, eager_server)
    sent: list[OutgoingMessage] = []
    carrier.then(sent.append, exc.CreditError("no money"))
    eager_server.gateway.router = lambda message, *values: "carrier"
    assert post(eager_server, "forward/im", OUTGOING, auth=False).status_code == 403
    answer = post(eager_server, "forward/im", OUTGOING)
    [out] = sent
    assert (out.src, out.dst, out.body, out.routing_values) == ("abc", "1234", "hi", ("a", 2))
    assert (out.provider_options.status_report, out.provider_options.expires) == (True, 5)
    expected = json.loads(OUTGOING)
    expected["message"]["?"][1] |= {"msgid": out.msgid, "meta": None}
    assert (answer.json(), answer.headers["Content-Type"]) == (expected, "application/json")
    refused = post(eager_server, "forward/im", BARE)
    assert refused.status_code >= 400
    assert refused.headers["Content-Type"] == "application/json"
    assert refused.json() == json.loads(ERROR % "CreditError")


def test_its_client_gets_the_id_that_reports_have(client: Side, server: Side) -> None:
    _, carrier = connect_both(client, server)
    msgid = post(server, "forward/im", OUTGOING).json()["message"]["?"][1]["msgid"]
    server.deliver()
    report = MessageDelivered(None)
    report.reference = carrier.calls[0]
    carrier._receive_status(report)
    server.deliver()
    [(path, headers, body)] = client.requests
    assert (path, headers["AUTHORIZATION"]) == ("/hook/remote/status", "Basic dTpw")
    kind, fields = json.loads(body)["status"]["?"]
    assert (kind, fields["msgid"], fields["provider"]) == ("MessageDelivered", msgid, "carrier")


def test_our_client_sends_through_its_server(eager_client: Side, eager_server: Side) -> None:
    connect_both(eager_client, eager_server)
    eager_server.proxy = fixed_answer(200, ACCEPTED.encode())
    message = OutgoingMessage("+1234", "hi", src="abc").params(x=1).route("a", 2)
    sent = eager_client.gateway.send(message.options(status_report=True, expires=5))
    assert (sent.msgid, sent.provider) == ("c1", "remote")
    assert sent.meta == {"a": 1, "forwarded": {"provider": "main", "msgid": "c1"}}
    [(path, _, body)] = eager_server.requests
    expected = json.loads(OUTGOING)
    expected["message"]["?"][1]["provider"] = "remote"
    assert (path, json.loads(body)) == ("/hook/forward/im", expected)


@pytest.mark.parametrize(
    ("name", "kind", "ambiguous"),
    [
        ("CreditError", exc.CreditError, False),
        ("RequestError", exc.RequestError, False),
        # These do not show whether the provider has the message.
        ("ConnectionError", exc.ConnectionError, True),
        ("ProviderError", exc.ProviderError, True),
        # Its plugins raise it for every HTTP error, a gateway's timeout too.
        ("MessageSendError", exc.MessageSendError, True),
        ("ServerError", exc.ServerError, False),
        ("KeyError", exc.ServerError, True),
        ("QueueUnavailable", exc.ServerError, True),
        ("SystemExit", exc.ServerError, True),
    ],
)
def test_errors_of_its_server(
    eager_client: Side,
    eager_server: Side,
    name: str,
    kind: type[exc.ProviderError],
    ambiguous: bool,
) -> None:
    connect_both(eager_client, eager_server)
    eager_server.proxy = fixed_answer(500, (ERROR % name).encode())
    with pytest.raises(kind, match="no money") as caught:
        eager_client.gateway.send(OutgoingMessage("1234", "hi"))
    assert (type(caught.value), caught.value.ambiguous) == (kind, ambiguous)


def test_its_server_forwards_events_to_our_client(eager_client: Side, eager_server: Side) -> None:
    connect_both(eager_client, eager_server)
    answers = [post(eager_client, "remote/im", INCOMING)]
    for document in (DELIVERED, FAILED, PLUGIN_EXPIRED):
        answers.append(post(eager_client, "remote/status", document))
    assert [answer.status_code for answer in answers] == [200] * 4
    [message] = eager_client.received
    assert (message.src, message.dst, message.body, message.msgid) == ("555", "777", "hello", "m1")
    assert message.rtime == datetime(2026, 2, 3, 13, 32, 7, 912064, UTC)
    assert message.meta["at"] == "2026-02-03T13:32:08.000001"
    assert (message.provider, message.meta["forwarded"]["provider"]) == ("remote", "main")
    delivered, failed, expired = eager_client.reports
    assert [type(r) for r in eager_client.reports] == [
        *(MessageDelivered, MessageError, MessageExpired),
    ]
    assert {r.msgid for r in eager_client.reports} == {"c1"}
    assert delivered.meta["q"] == 2
    assert (failed.status_code, failed.status) == (9, "bad")
    # Its server reads its own object back.
    assert answers[1].json() == json.loads(DELIVERED)
    assert answers[2].json() == json.loads(FAILED)
    assert expired.rtime.microsecond == 921614


def test_our_server_forwards_events_to_its_client(eager_client: Side, eager_server: Side) -> None:
    _, carrier = connect_both(eager_client, eager_server)

    class PluginExpired(MessageExpired):
        pass

    whole_second = datetime(2026, 2, 3, 14, 32, 7, tzinfo=UTC)  # it reads times with a fraction
    carrier._receive_message(IncomingMessage("555", "hello", "m1", "777", whole_second, {"z": 1}))
    report = PluginExpired("c1", whole_second)
    report.status = "late"
    carrier._receive_status(report)
    time = {"?": ["datetime", "2026-02-03T14:32:07.000000"]}
    incoming, status = [json.loads(body) for _, _, body in eager_client.requests]
    expected: dict[str, Any] = {"msgid": "m1", "src": "555", "body": "hello", "dst": "777"}
    expected |= {"rtime": time, "meta": {"z": 1}, "provider": "carrier"}
    assert incoming == {"message": {"?": ["IncomingMessage", expected]}}
    expected = {"msgid": "c1", "rtime": time, "meta": {}, "provider": "carrier", "status": "late"}
    assert status == {"status": {"?": ["MessageExpired", expected]}}


def test_each_client_gets_its_own_format(make_side: Callable[..., Side]) -> None:
    server, theirs, ours = (make_side(eager=True) for _ in range(3))
    _, carrier = connect(
        theirs,
        server,
        clients=[theirs.url("remote", "u:p"), ours.url("remote")],
        # Credentials and a trailing slash make no difference.
        speak={theirs.url("remote") + "/": "smsframework"},
        client_options={"users": USERS},
    )
    url = server.url("forward")
    ours.gateway.add_provider("remote", ForwardClientProvider, server_url=url, secret=SECRET)
    ours.serve()
    carrier._receive_status(MessageStatus("c1"))
    documents = [json.loads(side.requests[0][2]) for side in (theirs, ours)]
    assert ["smsqueue" in document for document in documents] == [False, True]
