"""Events reach all chosen clients: concurrently, and each client once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from smsqueue import (
    IncomingMessage,
    Media,
    MessageDelivered,
    MessageExpired,
    MessageStatus,
    exc,
)
from smsqueue.providers.forward import ForwardClientProvider, ForwardServerProvider
from smsqueue.providers.forward.fanout import ClientHealth
from smsqueue.providers.forward.peer_http import peer_format
from smsqueue.providers.forward.protocol import ForwardedEvent
from tests.forward.actions import receive_message
from tests.forward.side import SECRET, NoPauses, Side, carrier_of, connect, fixed_answer
from tests.workers.conftest import until


def hanging(release: threading.Event) -> Callable[..., Any]:
    def proxy(environ: Any, start: Any, app: Any) -> Any:
        release.wait(120)
        return app()

    return proxy


def broken(environ: Any, start: Any, app: Any) -> Any:
    start("500 Broken", [("Content-Length", "0")])
    return [b""]


def connect_two(make: Callable[..., Side], **options: Any) -> tuple[Side, Side, Side]:
    """A server with the clients ``one`` and ``two``."""
    server, one, two = make(), make(), make()
    connect(one, server, clients=[one.url("remote"), two.url("remote")], **options)
    url = server.url("forward")
    two.gateway.add_provider("remote", ForwardClientProvider, server_url=url, secret=SECRET)
    two.listen()
    two.serve()
    return server, one, two


def received_bodies(side: Side) -> list[str]:
    side.deliver()
    return [message.body for message in side.received]


def test_all_clients_get_an_incoming_message(make_side: Callable[..., Side]) -> None:
    server, one, two = connect_two(make_side)
    message = receive_message(server)
    server.deliver()
    for client in (one, two):
        client.deliver()
        [received] = client.received
        assert (received.src, received.dst, received.body) == ("15550001", "777", "YES")
        assert (received.provider, received.msgid) == ("remote", message.id)
        assert (received.meta["cell"], received.rtime) == (4, message.rtime)
        forwarded = received.meta["forwarded"]
        assert (forwarded["provider"], forwarded["msgid"]) == ("carrier", "m1")
    assert [message.meta for message in server.received] == [{"cell": 4}]


def test_while_a_client_fails_the_others_get_an_event_once(
    make_side: Callable[..., Side],
) -> None:
    server, one, two = connect_two(make_side, server_class=NoPauses)
    one.proxy = broken
    receive_message(server)
    for _ in range(3):
        server.deliver()
    assert received_bodies(two) == ["YES"]
    assert len(two.requests) == 1
    assert len(one.requests) >= 3
    one.proxy = None
    server.deliver()
    server.deliver()
    assert received_bodies(one) == ["YES"]
    assert len(two.requests) == 1
    assert len(server.received) == 1


def test_the_clients_are_called_concurrently(make_side: Callable[..., Side]) -> None:
    server, one, two = connect_two(make_side)
    both = threading.Barrier(2)

    def wait_for_both(environ: Any, start: Any, app: Any) -> Any:
        both.wait(15)
        return app()

    one.proxy = two.proxy = wait_for_both
    receive_message(server)
    server.deliver()
    assert (len(one.requests), len(two.requests)) == (1, 1)
    assert (received_bodies(one), received_bodies(two)) == (["YES"], ["YES"])


def test_a_client_that_hangs_does_not_delay_the_others(make_side: Callable[..., Side]) -> None:
    server, one, two = connect_two(make_side)
    release = threading.Event()
    one.proxy = hanging(release)
    receive_message(server)
    worker = threading.Thread(target=server.deliver)
    worker.start()
    try:
        until(lambda: received_bodies(two) == ["YES"])
        assert worker.is_alive()
    finally:
        release.set()
        worker.join()
    assert received_bodies(one) == ["YES"]


def test_a_client_that_failed_is_not_called_for_a_while(make_side: Callable[..., Side]) -> None:
    class LongPauses(ForwardServerProvider):
        client_pauses = (3600.0, 3600.0)

    server, one, two = connect_two(make_side, server_class=LongPauses)
    one.proxy = broken
    for n in range(3):
        receive_message(server, f"text {n}", n)
        server.deliver()
    assert len(one.requests) == 1
    assert sorted(received_bodies(two)) == ["text 0", "text 1", "text 2"]


def test_a_client_that_refuses_an_event_gets_the_next_one_at_once(
    make_side: Callable[..., Side],
) -> None:
    server, one, _ = connect_two(make_side)
    one.proxy = fixed_answer(400, b"")
    receive_message(server, "first", 1)
    server.deliver()
    one.proxy = None
    receive_message(server, "second", 2)
    server.deliver()
    assert sorted(received_bodies(one)) == ["first", "second"]


def test_a_client_whose_password_changes_gets_an_event_once(
    make_side: Callable[..., Side],
) -> None:
    server, one, two = connect_two(make_side, server_class=NoPauses)
    one.proxy = broken
    receive_message(server)
    server.deliver()
    forward: Any = server.gateway.get_provider("forward")
    forward.clients = [one.url("remote", "u:new"), two.url("remote", "u:new")]
    one.proxy = None
    server.deliver()
    assert len(two.requests) == 1
    assert (received_bodies(one), received_bodies(two)) == (["YES"], ["YES"])


def test_after_a_failure_one_call_at_a_time_is_allowed_until_one_succeeds() -> None:
    health = ClientHealth(3600.0, pauses=(0.0, 0.0))
    assert health.may_call()
    health.report_failure()
    assert (health.may_call(), health.may_call()) == (True, False)
    health.report_success()
    assert (health.may_call(), health.may_call()) == (True, True)


def test_a_repeated_event_reaches_the_handlers_once(client: Side, server: Side) -> None:
    connect(client, server)
    receive_message(server)
    server.deliver()
    assert client.repeat().status_code == 200
    assert received_bodies(client) == ["YES"]


def test_a_single_client_that_is_unreachable_raises_connection_error(
    eager_client: Side, eager_server: Side
) -> None:
    """As in smsframework; also while the client is not called after a failure."""
    _, carrier = connect(eager_client, eager_server, clients=["http://127.0.0.1:9/remote"])
    for _ in range(2):
        with pytest.raises(exc.ConnectionError, match="1 of 1 clients") as caught:
            carrier._receive_message(IncomingMessage("1555", "YES"))
        assert type(caught.value) is exc.ConnectionError


@pytest.mark.parametrize(
    ("clients", "kind"),
    [
        (["http://127.0.0.1:9/a", "http://127.0.0.1:9/b"], exc.ConnectionError),
        (["http://127.0.0.1:9/a", None], exc.ProviderError),
        ([None], exc.AuthError),
    ],
)
def test_the_error_is_of_the_class_that_all_clients_errors_share(
    eager_client: Side, eager_server: Side, clients: list[str | None], kind: type[Exception]
) -> None:
    urls = [url or eager_client.url("remote") for url in clients]
    _, carrier = connect(eager_client, eager_server, clients=urls)
    eager_client.proxy = fixed_answer(403, b"")
    with pytest.raises(exc.ProviderError) as caught:
        carrier._receive_message(IncomingMessage("1555", "YES"))
    assert type(caught.value) is kind


def test_if_one_of_several_clients_fails_the_error_is_of_its_class(
    eager_client: Side, eager_server: Side
) -> None:
    urls = ["http://127.0.0.1:9/a", eager_client.url("remote")]
    _, carrier = connect(eager_client, eager_server, clients=urls)
    with pytest.raises(exc.ConnectionError, match="1 of 2 clients"):
        carrier._receive_message(IncomingMessage("1555", "YES"))
    assert [message.body for message in eager_client.received] == ["YES"]


class Choosing(ForwardServerProvider):
    def choose_clients(self, obj: IncomingMessage | MessageStatus) -> list[str]:
        return [self.clients[0 if isinstance(obj, IncomingMessage) else 1]]


def test_choose_clients_selects_by_kind_of_event(make_side: Callable[..., Side]) -> None:
    server, one, two = connect_two(make_side, server_class=Choosing)
    receive_message(server)
    carrier_of(server)._receive_status(MessageDelivered("elsewhere-1"))
    server.deliver()
    assert ([path for path, _, _ in one.requests], [path for path, _, _ in two.requests]) == (
        ["/hook/remote/im"],
        ["/hook/remote/status"],
    )


def test_all_fields_of_a_report_are_forwarded(eager_client: Side, eager_server: Side) -> None:
    class PluginExpired(MessageExpired):
        status = "too late"

    _, carrier = connect(eager_client, eager_server)
    report = PluginExpired("c-1", meta={"price": 0.5})
    report.status_code, report.accepted = 17, None
    carrier._receive_status(report)
    [received] = eager_client.reports
    assert type(received) is MessageExpired
    assert (received.status, received.status_code, received.accepted) == ("too late", 17, None)
    assert (received.states, received.rtime) == (report.states, report.rtime)
    assert received.meta["price"] == 0.5


@pytest.mark.parametrize("speak", ["smsqueue", "smsframework"])
def test_values_of_published_plugins_are_converted(
    eager_client: Side, eager_server: Side, speak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their times have no zone and are UTC; their fields have other types."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    users = {"u": "p"}
    options = {"speak": speak, "users": users, "clients": [eager_client.url("remote", "u:p")]}
    _, carrier = connect(eager_client, eager_server, client_options={"users": users}, **options)
    naive = datetime(2026, 2, 3, 13, 32, 7)  # noqa: DTZ001  as plugins report it
    carrier._receive_message(IncomingMessage("1555", "YES", rtime=naive))
    report = MessageDelivered(b"c-1", naive, {"price": Decimal("0.5")})
    loose: Any = report
    loose.accepted, loose.delivered, loose.error, loose.status_code = 1, 1, 0, b"OK"
    carrier._receive_status(report)
    [message], [received] = eager_client.received, eager_client.reports
    expected = naive.replace(tzinfo=UTC)
    assert (message.rtime, received.rtime) == (expected, expected)
    assert (received.states, received.meta["price"]) == ({"accepted", "delivered"}, "0.5")
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("rtime", ["yesterday", None, 17])
def test_an_invalid_time_is_replaced_by_the_time_of_arrival(
    eager_client: Side, eager_server: Side, rtime: Any
) -> None:
    _, carrier = connect(eager_client, eager_server)
    before = datetime.now(UTC)
    message = IncomingMessage("1555", "YES")
    message.rtime = rtime
    carrier._receive_message(message)
    [received] = eager_client.received
    assert before <= received.rtime <= datetime.now(UTC)


def test_choose_clients_may_return_a_single_url(make_side: Callable[..., Side]) -> None:
    class First(ForwardServerProvider):
        def choose_clients(self, obj: Any) -> str:
            return self.clients[0]

    server, one, two = connect_two(make_side, server_class=First)
    receive_message(server)
    server.deliver()
    assert (len(one.requests), len(two.requests)) == (1, 0)


@pytest.mark.parametrize("order", [("p1", "p2"), ("p2", "p1")])
def test_a_message_is_reported_delivered_once_all_parts_are(
    client: Side, server: Side, order: tuple[str, str]
) -> None:
    _, carrier = connect(client, server)
    carrier.then(lambda message: setattr(message, "msgid", ["p1", "p2"]))
    id = client.send(status_report=True)
    client.deliver()
    server.deliver()
    assert client.bench
    for part, state in zip(order, ("accepted", "delivered"), strict=True):
        carrier._receive_status(MessageDelivered(part))
        server.deliver()
        assert client.bench.state(id) == state


@pytest.mark.parametrize("eager", [False, True])
def test_alphanumeric_senders_and_media_are_forwarded(
    make_side: Callable[..., Side], eager: bool
) -> None:
    server, client = make_side(eager=eager), make_side(eager=eager)
    connect(client, server)
    pictures = (Media("https://a.example/1", "image/png"), Media("https://a.example/2"))
    message = IncomingMessage("INFO4242", "look", "m1", dst="SHOP24", media=pictures)
    message.channel = "rcs"
    carrier_of(server)._receive_message(message)
    if not eager:
        server.deliver()
        client.deliver()
    [received] = client.received
    assert (received.src, received.dst, received.body) == ("INFO4242", "SHOP24", "look")
    assert (received.media, received.channel, received.replyable) == (pictures, "rcs", False)


def test_smsframework_gets_media_in_meta() -> None:
    message = IncomingMessage("15550001", "look", "m1", media=[("https://a.example/1", None)])
    document = peer_format("smsframework").dump_event(ForwardedEvent(message))
    assert document["message"]["?"][1]["meta"]["media"] == [["https://a.example/1", None]]
    assert message.meta == {}
