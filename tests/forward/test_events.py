"""What comes in at the server reaches the clients: all that are chosen, at once, none twice."""

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
from smsqueue.providers.forward.peer import peer_format
from smsqueue.providers.forward.protocol import ForwardedEvent
from tests.forward.side import SECRET, NoPauses, Side, answering, bind, carrier_of
from tests.forward.speaking import come_in
from tests.workers.conftest import until


def hanging(release: threading.Event) -> Callable[..., Any]:
    def front(environ: Any, start: Any, app: Any) -> Any:
        release.wait(120)
        return app()

    return front


def broken(environ: Any, start: Any, app: Any) -> Any:
    start("500 Broken", [("Content-Length", "0")])
    return [b""]


def bind_two(make: Callable[..., Side], **options: Any) -> tuple[Side, Side, Side]:
    """A server with the clients ``one`` and ``two``."""
    server, one, two = make(), make(), make()
    bind(one, server, clients=[one.url("remote"), two.url("remote")], **options)
    url = server.url("forward")
    two.gateway.add_provider("remote", ForwardClientProvider, server_url=url, secret=SECRET)
    two.listen()
    two.serve()
    return server, one, two


def bodies(side: Side) -> list[str]:
    side.deliver()
    return [message.body for message in side.received]


def test_all_clients_get_what_comes_in(make_side: Callable[..., Side]) -> None:
    server, one, two = bind_two(make_side)
    message = come_in(server)
    server.deliver()
    for client in (one, two):
        client.deliver()
        [heard] = client.received
        assert (heard.src, heard.dst, heard.body) == ("15550001", "777", "YES")
        assert (heard.provider, heard.msgid) == ("remote", message.id)
        assert (heard.meta["cell"], heard.rtime) == (4, message.rtime)
        told = heard.meta["forwarded"]
        assert (told["provider"], told["msgid"]) == ("carrier", "m1")
    assert [heard.meta for heard in server.received] == [{"cell": 4}]


def test_a_client_that_fails_neither_fails_nor_doubles_the_others(
    make_side: Callable[..., Side],
) -> None:
    server, one, two = bind_two(make_side, server_class=NoPauses)
    one.front = broken
    come_in(server)
    for _ in range(3):
        server.deliver()
    assert bodies(two) == ["YES"]
    assert len(two.requests) == 1
    assert len(one.requests) >= 3
    one.front = None
    server.deliver()
    server.deliver()
    assert bodies(one) == ["YES"]
    assert len(two.requests) == 1
    assert len(server.received) == 1


def test_the_clients_are_called_at_the_same_time(make_side: Callable[..., Side]) -> None:
    server, one, two = bind_two(make_side)
    both = threading.Barrier(2)

    def together(environ: Any, start: Any, app: Any) -> Any:
        both.wait(15)  # for the other one's request
        return app()

    one.front = two.front = together
    come_in(server)
    server.deliver()
    assert (len(one.requests), len(two.requests)) == (1, 1)
    assert (bodies(one), bodies(two)) == (["YES"], ["YES"])


def test_a_client_that_hangs_does_not_delay_the_others(make_side: Callable[..., Side]) -> None:
    server, one, two = bind_two(make_side)
    release = threading.Event()
    one.front = hanging(release)
    come_in(server)
    work = threading.Thread(target=server.deliver)
    work.start()
    try:
        until(lambda: bodies(two) == ["YES"])
        assert work.is_alive()
    finally:
        release.set()
        work.join()
    assert bodies(one) == ["YES"]


def test_a_client_that_failed_is_not_called_for_a_while(make_side: Callable[..., Side]) -> None:
    class LongPauses(ForwardServerProvider):
        client_pauses = (3600.0, 3600.0)

    server, one, two = bind_two(make_side, server_class=LongPauses)
    one.front = broken
    for n in range(3):
        come_in(server, f"text {n}", n)
        server.deliver()
    assert len(one.requests) == 1
    assert sorted(bodies(two)) == ["text 0", "text 1", "text 2"]


def test_a_client_that_refuses_an_event_is_well(make_side: Callable[..., Side]) -> None:
    """It is there, and gets the next one at once."""
    server, one, _ = bind_two(make_side)
    one.front = answering(400, b"")
    come_in(server, "first", 1)
    server.deliver()
    one.front = None
    come_in(server, "second", 2)
    server.deliver()
    assert sorted(bodies(one)) == ["first", "second"]


def test_a_client_whose_password_changes_gets_nothing_twice(
    make_side: Callable[..., Side],
) -> None:
    server, one, two = bind_two(make_side, server_class=NoPauses)
    one.front = broken
    come_in(server)
    server.deliver()
    forward: Any = server.gateway.get_provider("forward")
    forward.clients = [one.url("remote", "u:new"), two.url("remote", "u:new")]
    one.front = None
    server.deliver()
    assert len(two.requests) == 1
    assert (bodies(one), bodies(two)) == (["YES"], ["YES"])


def test_after_a_failure_one_call_at_a_time_is_allowed_until_one_succeeds() -> None:
    health = ClientHealth(3600.0, pauses=(0.0, 0.0))
    assert health.may_call()
    health.report_failure()
    assert (health.may_call(), health.may_call()) == (True, False)
    health.report_success()
    assert (health.may_call(), health.may_call()) == (True, True)


def test_what_a_client_heard_already_is_heard_once(client: Side, server: Side) -> None:
    bind(client, server)
    come_in(server)
    server.deliver()
    assert client.repeat().status_code == 200
    assert bodies(client) == ["YES"]


def test_one_client_that_cannot_be_reached_is_a_connection_error(
    eager_client: Side, eager_server: Side
) -> None:
    """As smsframework has it; and so while it is not called again for a moment."""
    _, carrier = bind(eager_client, eager_server, clients=["http://127.0.0.1:9/remote"])
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
def test_several_clients_raise_the_class_that_their_errors_share(
    eager_client: Side, eager_server: Side, clients: list[str | None], kind: type[Exception]
) -> None:
    urls = [url or eager_client.url("remote") for url in clients]
    _, carrier = bind(eager_client, eager_server, clients=urls)
    eager_client.front = answering(403, b"")
    with pytest.raises(exc.ProviderError) as caught:
        carrier._receive_message(IncomingMessage("1555", "YES"))
    assert type(caught.value) is kind


def test_the_error_of_one_of_several_clients_is_of_its_own_class(
    eager_client: Side, eager_server: Side
) -> None:
    urls = ["http://127.0.0.1:9/a", eager_client.url("remote")]
    _, carrier = bind(eager_client, eager_server, clients=urls)
    with pytest.raises(exc.ConnectionError, match="1 of 2 clients"):
        carrier._receive_message(IncomingMessage("1555", "YES"))
    assert [message.body for message in eager_client.received] == ["YES"]


class Choosing(ForwardServerProvider):
    def choose_clients(self, obj: IncomingMessage | MessageStatus) -> list[str]:
        return [self.clients[0 if isinstance(obj, IncomingMessage) else 1]]


def test_choose_clients(make_side: Callable[..., Side]) -> None:
    server, one, two = bind_two(make_side, server_class=Choosing)
    come_in(server)
    carrier_of(server)._receive_status(MessageDelivered("elsewhere-1"))
    server.deliver()
    assert ([path for path, _, _ in one.requests], [path for path, _, _ in two.requests]) == (
        ["/hook/remote/im"],
        ["/hook/remote/status"],
    )


def test_every_field_of_a_report_comes_through(eager_client: Side, eager_server: Side) -> None:
    class Plugins(MessageExpired):
        status = "too late"

    _, carrier = bind(eager_client, eager_server)
    report = Plugins("c-1", meta={"price": 0.5})
    report.status_code, report.accepted = 17, None
    carrier._receive_status(report)
    [heard] = eager_client.reports
    assert type(heard) is MessageExpired
    assert (heard.status, heard.status_code, heard.accepted) == ("too late", 17, None)
    assert (heard.states, heard.rtime) == (report.states, report.rtime)
    assert heard.meta["price"] == 0.5


@pytest.mark.parametrize("speak", ["smsqueue", "smsframework"])
def test_what_published_plugins_report_comes_through(
    eager_client: Side, eager_server: Side, speak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their times have no zone and mean UTC, and their fields are not of our types."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    users = {"u": "p"}
    options = {"speak": speak, "users": users, "clients": [eager_client.url("remote", "u:p")]}
    _, carrier = bind(eager_client, eager_server, client_options={"users": users}, **options)
    naive = datetime(2026, 2, 3, 13, 32, 7)  # noqa: DTZ001  as plugins have it
    carrier._receive_message(IncomingMessage("1555", "YES", rtime=naive))
    report = MessageDelivered(b"c-1", naive, {"price": Decimal("0.5")})
    loose: Any = report
    loose.accepted, loose.delivered, loose.error, loose.status_code = 1, 1, 0, b"OK"
    carrier._receive_status(report)
    [message], [heard] = eager_client.received, eager_client.reports
    right = naive.replace(tzinfo=UTC)
    assert (message.rtime, heard.rtime) == (right, right)
    assert (heard.states, heard.meta["price"]) == ({"accepted", "delivered"}, "0.5")
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("rtime", ["yesterday", None, 17])
def test_a_time_that_is_none_comes_through_as_the_time_of_arrival(
    eager_client: Side, eager_server: Side, rtime: Any
) -> None:
    _, carrier = bind(eager_client, eager_server)
    before = datetime.now(UTC)
    message = IncomingMessage("1555", "YES")
    message.rtime = rtime
    carrier._receive_message(message)
    [heard] = eager_client.received
    assert before <= heard.rtime <= datetime.now(UTC)


def test_an_address_may_be_chosen_by_itself(make_side: Callable[..., Side]) -> None:
    class First(ForwardServerProvider):
        def choose_clients(self, obj: Any) -> str:
            return self.clients[0]

    server, one, two = bind_two(make_side, server_class=First)
    come_in(server)
    server.deliver()
    assert (len(one.requests), len(two.requests)) == (1, 0)


@pytest.mark.parametrize("order", [("p1", "p2"), ("p2", "p1")])
def test_a_client_hears_delivered_once_all_parts_are(
    client: Side, server: Side, order: tuple[str, str]
) -> None:
    _, carrier = bind(client, server)
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
def test_senders_that_are_no_numbers_and_pictures_are_passed_on(
    make_side: Callable[..., Side], eager: bool
) -> None:
    server, client = make_side(eager=eager), make_side(eager=eager)
    bind(client, server)
    pictures = (Media("https://a.example/1", "image/png"), Media("https://a.example/2"))
    message = IncomingMessage("INFO4242", "look", "m1", dst="SHOP24", media=pictures)
    message.channel = "rcs"
    carrier_of(server)._receive_message(message)
    if not eager:
        server.deliver()
        client.deliver()
    [heard] = client.received
    assert (heard.src, heard.dst, heard.body) == ("INFO4242", "SHOP24", "look")
    assert (heard.media, heard.channel, heard.replyable) == (pictures, "rcs", False)


def test_smsframework_gets_the_pictures_beside_the_text() -> None:
    message = IncomingMessage("15550001", "look", "m1", media=[("https://a.example/1", None)])
    told = peer_format("smsframework").dump_event(ForwardedEvent(message))
    assert told["message"]["?"][1]["meta"]["media"] == [["https://a.example/1", None]]
    assert message.meta == {}
