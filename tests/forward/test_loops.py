"""Forwarding loops and chains that are too long end with an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from smsqueue import IncomingMessage, OutgoingMessage, exc
from smsqueue.providers.forward import ForwardClientProvider, ForwardServerProvider
from tests.forward.actions import receive_message
from tests.forward.side import SECRET, Side, connect
from tests.ledger.bench import Told


def test_hops_are_sent_beside_the_providers_meta(eager_client: Side, eager_server: Side) -> None:
    _, carrier = connect(eager_client, eager_server, origin="here")
    meta = {"cell": 4, "forwarded": {"hops": ["there"]}}
    carrier._receive_message(IncomingMessage("1555", "YES", "m1", meta=meta))
    document = json.loads(eager_client.requests[0][2])
    assert document["hops"] == ["there", "here"]
    assert document["message"]["meta"] == {"cell": 4}


def make_ring(make: Callable[..., Side], size: int, *, eager: bool = False) -> list[Side]:
    """Sides that send through the next one, and forward events to both neighbors."""
    sides = [make(eager=eager) for _ in range(size)]
    for i, side in enumerate(sides):
        following, previous = sides[(i + 1) % size], sides[i - 1]
        side.gateway.add_provider("carrier", Told)
        clients = list({following.url("remote"), previous.url("remote")})
        side.gateway.add_provider("forward", ForwardServerProvider, clients=clients, secret=SECRET)
        url = following.url("forward")
        side.gateway.add_provider("remote", ForwardClientProvider, server_url=url, secret=SECRET)
        side.gateway.default_provider = "remote"
        side.listen()
    for side in sides:
        side.serve()
    return sides


def deliver_around(sides: list[Side]) -> None:
    for _ in range(2 * len(sides)):
        for side in sides:
            side.deliver()


@pytest.mark.parametrize("size", [2, 3])
def test_a_message_that_returns_to_a_gateway_is_refused(
    make_side: Callable[..., Side], size: int
) -> None:
    sides = make_ring(make_side, size)
    id: Any = sides[0].send()
    deliver_around(sides)
    for side in sides[:-1]:
        record = side.gateway.lookup(id)
        assert record.state == "undelivered"
        id = record.msgid
    # The last side sent it to the first one, which refused it.
    last = sides[-1].gateway.lookup(id)
    assert (last.state, last.error, last.code) == ("failed", "RequestError", "loop")
    assert [path for path, _, _ in sides[0].requests].count("/hook/forward/im") == 1


@pytest.mark.parametrize("size", [2, 3])
def test_eager_sides_raise_the_error_of_a_loop_at_the_sender(
    make_side: Callable[..., Side], size: int
) -> None:
    sides = make_ring(make_side, size, eager=True)
    with pytest.raises(exc.RequestError) as caught:
        sides[0].gateway.send(OutgoingMessage("1555", "hi"))
    assert (caught.value.code, caught.value.ambiguous) == ("loop", False)
    assert [len(side.requests) for side in sides] == [1] * size


@pytest.mark.parametrize(("size", "received"), [(2, [1, 1]), (3, [1, 2, 2])])
def test_an_event_that_returns_to_a_gateway_is_dropped(
    make_side: Callable[..., Side], size: int, received: list[int]
) -> None:
    """Of three, the second and the third receive it twice: from two servers each."""
    sides = make_ring(make_side, size)
    receive_message(sides[0])
    deliver_around(sides)
    assert [len(side.received) for side in sides] == received
    requests = [len(side.requests) for side in sides]
    deliver_around(sides)
    assert [len(side.requests) for side in sides] == requests
    for side in sides:
        assert side.bench
        assert side.bench.events("received")
        assert side.bench.ledger.counts()["waiting"] == 0


def test_a_message_with_too_many_hops_is_refused(eager_client: Side, eager_server: Side) -> None:
    connect(eager_client, eager_server, max_hops=0)
    with pytest.raises(exc.RequestError, match="max_hops") as caught:
        eager_client.gateway.send(OutgoingMessage("1555", "hi"))
    assert caught.value.code == "loop"
