"""What goes round in a circle, or too far, ends there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from smsqueue import (
    IncomingMessage,
    OutgoingMessage,
    exc,
)
from smsqueue.providers.forward import ForwardClientProvider, ForwardServerProvider
from tests.forward.side import SECRET, Side, bind
from tests.forward.speaking import come_in
from tests.ledger.bench import Told


def test_where_it_has_been_travels_beside_what_the_provider_told(
    eager_client: Side, eager_server: Side
) -> None:
    _, carrier = bind(eager_client, eager_server, origin="here")
    meta = {"cell": 4, "forwarded": {"hops": ["there"]}}
    carrier._receive_message(IncomingMessage("1555", "YES", "m1", meta=meta))
    document = json.loads(eager_client.requests[0][2])
    assert document["hops"] == ["there", "here"]
    assert document["message"]["meta"] == {"cell": 4}


def circle(make: Callable[..., Side], size: int, *, eager: bool = False) -> list[Side]:
    """Each sends through the next one, and passes events on to its neighbours."""
    sides = [make(eager=eager) for _ in range(size)]
    for i, one in enumerate(sides):
        following, before = sides[(i + 1) % size], sides[i - 1]
        one.gateway.add_provider("carrier", Told)
        clients = list({following.url("remote"), before.url("remote")})
        one.gateway.add_provider("forward", ForwardServerProvider, clients=clients, secret=SECRET)
        url = following.url("forward")
        one.gateway.add_provider("remote", ForwardClientProvider, server_url=url, secret=SECRET)
        one.gateway.default_provider = "remote"
        one.listen()
    for one in sides:
        one.serve()
    return sides


def go_round(sides: list[Side]) -> None:
    for _ in range(2 * len(sides)):
        for one in sides:
            one.deliver()


@pytest.mark.parametrize("size", [2, 3])
def test_a_message_that_comes_back_is_refused(make_side: Callable[..., Side], size: int) -> None:
    sides = circle(make_side, size)
    id: Any = sides[0].send()
    go_round(sides)
    for one in sides[:-1]:
        record = one.gateway.lookup(id)
        assert record.state == "undelivered"
        id = record.msgid
    # The last one asked the first one, which had seen it.
    last = sides[-1].gateway.lookup(id)
    assert (last.state, last.error, last.code) == ("failed", "RequestError", "loop")
    assert [path for path, _, _ in sides[0].requests].count("/hook/forward/im") == 1


@pytest.mark.parametrize("size", [2, 3])
def test_eager_ones_tell_the_sender(make_side: Callable[..., Side], size: int) -> None:
    sides = circle(make_side, size, eager=True)
    with pytest.raises(exc.RequestError) as caught:
        sides[0].gateway.send(OutgoingMessage("1555", "hi"))
    assert (caught.value.code, caught.value.ambiguous) == ("loop", False)
    assert [len(one.requests) for one in sides] == [1] * size


@pytest.mark.parametrize(("size", "heard"), [(2, [1, 1]), (3, [1, 2, 2])])
def test_an_event_that_comes_back_ends_there(
    make_side: Callable[..., Side], size: int, heard: list[int]
) -> None:
    """Of three, the second and the third hear it from both sides: two servers tell them of it."""
    sides = circle(make_side, size)
    come_in(sides[0])
    go_round(sides)
    assert [len(one.received) for one in sides] == heard
    asked = [len(one.requests) for one in sides]
    go_round(sides)
    assert [len(one.requests) for one in sides] == asked
    for one in sides:
        assert one.bench
        assert one.bench.events("received")
        assert one.bench.ledger.counts()["waiting"] == 0


def test_a_message_that_has_come_too_far_is_refused(eager_client: Side, eager_server: Side) -> None:
    bind(eager_client, eager_server, max_hops=0)
    with pytest.raises(exc.RequestError, match="max_hops") as caught:
        eager_client.gateway.send(OutgoingMessage("1555", "hi"))
    assert caught.value.code == "loop"
