"""A client's messages are sent through the server: once, with its errors and reports."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from smsqueue import MessageDelivered, MessageError, OutgoingMessage, exc
from smsqueue.providers.forward import ForwardClientProvider
from tests.conftest import free_port
from tests.forward.actions import report, state
from tests.forward.side import SECRET, Side, connect, drop_answers


def test_a_message_and_its_report(client: Side, server: Side) -> None:
    _, carrier = connect(client, server)
    sent: list[OutgoingMessage] = []
    carrier.then(sent.append)
    server.gateway.router = lambda message, kind: "carrier" if kind == "otp" else "forward"
    message = OutgoingMessage("+1 555 0001", "your code", src="shop").route("otp").params(flash=1)
    message.options(status_report=True, senderId="Shop", context={"order": 7}, tag="otp")
    id = client.gateway.send(message).id
    assert id
    client.deliver()
    assert state(client, id) == "sent"
    server_id = client.gateway.lookup(id).msgid
    assert state(server, server_id) == "queued"
    assert [record.id for record in server.gateway.find(tag="otp")] == [server_id]
    server.deliver()
    [out] = sent
    assert (out.dst, out.body, out.src) == ("15550001", "your code", "shop")
    assert out.provider_params == {"flash": 1}
    assert (out.provider_options.senderId, out.provider_options.status_report) == ("Shop", True)
    report(server, MessageDelivered, out.msgid, out.reference or "")
    server.deliver()
    client.deliver()
    [received] = client.reports
    assert (received.id, received.context, received.provider) == (id, {"order": 7}, "remote")
    assert received.meta["forwarded"]["provider"] == "carrier"
    assert received.msgid == server_id
    assert state(client, id) == "delivered"


@pytest.mark.parametrize("on_unknown", ["resend", "hold"])
@pytest.mark.parametrize("window", [0.0, 3600.0])
def test_a_message_whose_answer_was_lost_is_sent_once(
    client: Side, server: Side, on_unknown: str, window: float
) -> None:
    _, carrier = connect(client, server, client_options={"dedup_window": window})
    server.proxy = drop_answers(1)
    id = client.send(on_unknown=on_unknown)
    assert client.bench
    client.bench.deliver(id)
    held = on_unknown == "hold" and not window
    assert state(client, id) == ("unknown" if held else "retrying")
    if held:
        client.gateway.requeue(id)
    client.deliver()
    server.deliver()
    assert state(client, id) == "sent"
    assert client.gateway.lookup(id).attempts == 2
    assert len(server.requests) == 2
    assert len(carrier.calls) == 1
    # The report counts for the answered attempt, though the first one was sent.
    server_id = client.gateway.lookup(id).msgid
    report(server, MessageError, server.gateway.lookup(server_id).msgid, carrier.calls[0])
    server.deliver()
    client.deliver()
    assert state(client, id) == "undelivered"


@pytest.mark.parametrize(("window", "before"), [(0.0, "unknown"), (3600.0, "retrying")])
def test_a_report_is_matched_to_a_message_whose_answer_was_lost(
    client: Side, server: Side, window: float, before: str
) -> None:
    _, carrier = connect(client, server, client_options={"dedup_window": window})
    server.proxy = drop_answers(1)
    id = client.send()
    assert client.bench
    client.bench.deliver(id)
    server.deliver()
    assert state(client, id) == before
    report(server, MessageDelivered, None, carrier.calls[0])
    server.deliver()
    client.deliver()
    assert state(client, id) == "delivered"


def test_a_request_that_was_lost_is_repeated(client: Side, server: Side) -> None:
    """To the client it looks like a lost answer."""
    _, carrier = connect(client, server)

    def proxy(environ: Any, start: Any, app: Any) -> Any:
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        server.proxy = None
        return []

    server.proxy = proxy
    id = client.send()
    client.deliver()
    assert [line["error"] for line in client.gateway.lookup(id).timeline if line.get("error")]
    server.deliver()
    assert (state(client, id), len(carrier.calls)) == ("sent", 1)


def test_on_unknown_applies_at_the_server_too(client: Side, server: Side) -> None:
    _, carrier = connect(client, server)
    carrier.then(exc.ConnectionError("no answer", ambiguous=True))
    client.send(on_unknown="resend")
    client.deliver()
    server.deliver()
    assert len(carrier.calls) == 2


def test_a_message_that_the_server_could_not_send_is_sent_again_when_requeued(
    client: Side, server: Side
) -> None:
    _, carrier = connect(client, server)
    carrier.then(exc.RequestError("no such number", code="bad"))
    id = client.send()
    client.deliver()
    server.deliver()
    client.deliver()
    assert state(client, id) == "undelivered"
    assert "RequestError" in client.reports[-1].status
    client.gateway.requeue(id)
    client.deliver()
    server.deliver()
    assert len(carrier.calls) == 2
    assert state(client, id) == "sent"
    server.repeat()  # a repetition of the second attempt
    server.deliver()
    assert len(carrier.calls) == 2


def test_a_repeated_request_of_a_failed_message_sends_nothing(client: Side, server: Side) -> None:
    _, carrier = connect(client, server)
    carrier.then(exc.RequestError("no such number"))
    client.send()
    client.deliver()
    server.deliver()
    assert server.repeat().json()["taken"]["duplicate"]
    server.deliver()
    assert len(carrier.calls) == 1


def test_a_server_without_redis_refuses_a_message(
    client: Side, server: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, carrier = connect(client, server)

    def away() -> None:
        raise exc.QueueUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(server.gateway, "ping", away)
        id = client.send()
        client.deliver()
        assert state(client, id) == "retrying"
    client.deliver()
    server.deliver()
    assert len(carrier.calls) == 1


@pytest.mark.parametrize(
    ("error", "ambiguous"),
    [(exc.QueueUnavailable("gone meanwhile"), True), (exc.LedgerError("out of memory"), False)],
)
def test_the_error_of_a_failing_redis_says_whether_it_is_ambiguous(
    client: Side,
    server: Side,
    monkeypatch: pytest.MonkeyPatch,
    error: exc.QueueUnavailable,
    ambiguous: bool,
) -> None:
    connect(client, server)
    client.send()
    client.deliver()

    def away(message: OutgoingMessage) -> OutgoingMessage:
        raise error

    monkeypatch.setattr(server.gateway, "send", away)
    answer = server.repeat().json()["error"]
    assert (answer["class"], answer["ambiguous"], answer["retry_after"]) == (
        *("ServerError", ambiguous),
        10.0,
    )


def test_a_repeated_request_is_marked(client: Side, server: Side) -> None:
    """So that a server without a ledger does not send it again."""
    connect(client, server)
    server.proxy = drop_answers(1)
    client.send()
    client.deliver()
    first, second = [json.loads(body) for _, _, body in server.requests]
    assert (first["attempt"], first["repeated"]) == (1, False)
    assert (second["attempt"], second["repeated"]) == (1, True)
    assert first["id"] == second["id"]


def test_a_message_waits_while_the_server_is_unreachable(client: Side) -> None:
    url = f"http://127.0.0.1:{free_port()}/hook/forward"
    client.gateway.add_provider("remote", ForwardClientProvider, server_url=url, secret=SECRET)
    id = client.send()
    assert client.bench
    assert client.bench.deliver(id).error == "ConnectionError"
    assert state(client, id) == "retrying"


def test_a_router_that_chooses_the_forward_server_gets_an_error_with_the_remedy(
    client: Side, server: Side
) -> None:
    connect(client, server)
    server.gateway.default_provider = "forward"
    id = client.send()
    client.deliver()
    server.deliver()
    client.deliver()
    assert state(client, id) == "undelivered"
    with pytest.raises(exc.UnsupportedError, match="default_provider"):
        server.gateway.get_provider("forward").send(OutgoingMessage("1", "x"))
