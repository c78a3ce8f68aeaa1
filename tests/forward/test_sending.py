"""A client's messages go out through the server: once, with its errors and its reports."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from smsqueue import MessageDelivered, MessageError, OutgoingMessage, exc
from smsqueue.providers.forward import ForwardClientProvider
from tests.conftest import free_port
from tests.forward.side import SECRET, Side, bind, lose_answers
from tests.forward.speaking import report, state


def test_a_message_its_report_and_its_context(client: Side, server: Side) -> None:
    _, carrier = bind(client, server)
    seen: list[OutgoingMessage] = []
    carrier.then(seen.append)
    server.gateway.router = lambda message, kind: "carrier" if kind == "otp" else "forward"
    message = OutgoingMessage("+1 555 0001", "your code", src="shop").route("otp").params(flash=1)
    message.options(status_report=True, senderId="Shop", context={"order": 7})
    id = client.gateway.send(message).id
    assert id
    client.deliver()
    assert state(client, id) == "sent"
    theirs = client.gateway.lookup(id).msgid
    assert state(server, theirs) == "queued"
    server.deliver()
    [out] = seen
    assert (out.dst, out.body, out.src) == ("15550001", "your code", "shop")
    assert out.provider_params == {"flash": 1}
    assert (out.provider_options.senderId, out.provider_options.status_report) == ("Shop", True)
    report(server, MessageDelivered, out.msgid, out.reference or "")
    server.deliver()
    client.deliver()
    [heard] = client.reports
    assert (heard.id, heard.context, heard.provider) == (id, {"order": 7}, "remote")
    assert heard.meta["forwarded"]["provider"] == "carrier"
    assert heard.msgid == theirs
    assert state(client, id) == "delivered"


@pytest.mark.parametrize("on_unknown", ["resend", "hold"])
@pytest.mark.parametrize("window", [0.0, 3600.0])
def test_an_answer_that_is_lost_and_repeated_sends_once(
    client: Side, server: Side, on_unknown: str, window: float
) -> None:
    _, carrier = bind(client, server, client_options={"dedup_window": window})
    server.front = lose_answers(1)
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
    # The report is one of the attempt that was answered, though the first one is out.
    theirs = client.gateway.lookup(id).msgid
    report(server, MessageError, server.gateway.lookup(theirs).msgid, carrier.calls[0])
    server.deliver()
    client.deliver()
    assert state(client, id) == "undelivered"


@pytest.mark.parametrize(("window", "before"), [(0.0, "unknown"), (3600.0, "retrying")])
def test_a_report_finds_a_message_whose_answer_was_lost(
    client: Side, server: Side, window: float, before: str
) -> None:
    _, carrier = bind(client, server, client_options={"dedup_window": window})
    server.front = lose_answers(1)
    id = client.send()
    assert client.bench
    client.bench.deliver(id)
    server.deliver()
    assert state(client, id) == before
    report(server, MessageDelivered, None, carrier.calls[0])
    server.deliver()
    client.deliver()
    assert state(client, id) == "delivered"


def test_a_request_that_the_server_never_got_is_repeated(client: Side, server: Side) -> None:
    """The client cannot tell that from a lost answer."""
    _, carrier = bind(client, server)

    def front(environ: Any, start: Any, app: Any) -> Any:
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        server.front = None
        return []

    server.front = front
    id = client.send()
    client.deliver()
    assert [each["error"] for each in client.gateway.lookup(id).timeline if each.get("error")]
    server.deliver()
    assert (state(client, id), len(carrier.calls)) == ("sent", 1)


def test_what_the_sender_chose_for_lost_answers_holds_at_the_server(
    client: Side, server: Side
) -> None:
    _, carrier = bind(client, server)
    carrier.then(exc.ConnectionError("no answer", ambiguous=True))
    client.send(on_unknown="resend")
    client.deliver()
    server.deliver()
    assert len(carrier.calls) == 2


def test_a_message_that_the_server_could_not_send_is_sent_again_when_requeued(
    client: Side, server: Side
) -> None:
    _, carrier = bind(client, server)
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
    server.repeat()  # the second attempt once more
    server.deliver()
    assert len(carrier.calls) == 2


def test_a_repeated_request_sends_nothing_though_the_first_one_failed(
    client: Side, server: Side
) -> None:
    _, carrier = bind(client, server)
    carrier.then(exc.RequestError("no such number"))
    client.send()
    client.deliver()
    server.deliver()
    assert server.repeat().json()["taken"]["duplicate"]
    server.deliver()
    assert len(carrier.calls) == 1


def test_a_server_without_redis_has_surely_not_taken_the_message(
    client: Side, server: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, carrier = bind(client, server)

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
def test_a_server_whose_redis_goes_meanwhile_says_what_it_knows(
    client: Side,
    server: Side,
    monkeypatch: pytest.MonkeyPatch,
    error: exc.QueueUnavailable,
    ambiguous: bool,
) -> None:
    bind(client, server)
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


def test_a_repetition_is_called_one(client: Side, server: Side) -> None:
    """So that a server without a ledger does not send it again."""
    bind(client, server)
    server.front = lose_answers(1)
    client.send()
    client.deliver()
    told = [json.loads(body) for _, _, body in server.requests]
    assert [(each["attempt"], each["repeated"]) for each in told] == [(1, False), (1, True)]
    assert told[0]["id"] == told[1]["id"]


def test_a_server_that_is_not_there(client: Side) -> None:
    url = f"http://127.0.0.1:{free_port()}/hook/forward"
    client.gateway.add_provider("remote", ForwardClientProvider, server_url=url, secret=SECRET)
    id = client.send()
    assert client.bench
    assert client.bench.deliver(id).error == "ConnectionError"
    assert state(client, id) == "retrying"


def test_a_router_that_leads_to_the_forward_server_itself_says_what_to_do(
    client: Side, server: Side
) -> None:
    bind(client, server)
    server.gateway.default_provider = "forward"
    id = client.send()
    client.deliver()
    server.deliver()
    client.deliver()
    assert state(client, id) == "undelivered"
    with pytest.raises(exc.UnsupportedError, match="default_provider"):
        server.gateway.get_provider("forward").send(OutgoingMessage("1", "x"))
