"""What goes round in a circle, or too far, ends there."""

from __future__ import annotations

import json
from collections.abc import Callable

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


def circle(make: Callable[..., Side]) -> tuple[Side, Side]:
    """Each is the other's server and the other's client."""
    a, b = make(), make()
    for one, other in ((a, b), (b, a)):
        one.gateway.add_provider("carrier", Told)
        clients, url = [other.url("remote")], other.url("forward")
        one.gateway.add_provider("forward", ForwardServerProvider, clients=clients, secret=SECRET)
        one.gateway.add_provider("remote", ForwardClientProvider, server_url=url, secret=SECRET)
        one.gateway.default_provider = "remote"
        one.listen()
    for one in (a, b):
        one.serve()
    return a, b


def test_a_message_that_comes_back_is_refused(make_side: Callable[..., Side]) -> None:
    a, b = circle(make_side)
    id = a.send()
    for _ in range(2):
        a.deliver()
        b.deliver()
    assert a.gateway.lookup(id).state == "undelivered"
    theirs = b.gateway.lookup(a.gateway.lookup(id).msgid)
    assert (theirs.state, theirs.error, theirs.code) == ("failed", "RequestError", "loop")


def test_an_event_that_comes_back_ends_there(make_side: Callable[..., Side]) -> None:
    a, b = circle(make_side)
    come_in(a)
    for _ in range(3):
        a.deliver()
        b.deliver()
    assert (len(a.received), len(b.received)) == (1, 1)
    assert b.bench
    assert b.bench.events("received")
    assert b.bench.ledger.counts()["waiting"] == 0


def test_a_message_that_has_come_too_far_is_refused(eager_client: Side, eager_server: Side) -> None:
    bind(eager_client, eager_server, max_hops=0)
    with pytest.raises(exc.RequestError, match="max_hops") as caught:
        eager_client.gateway.send(OutgoingMessage("1555", "hi"))
    assert caught.value.code == "loop"
