"""SMSQUEUE_WAIT_REPLICAS: what counts, and when; and a server that may not write."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis

from smsqueue import Gateway, IncomingMessage, IProvider, OutgoingMessage, Settings, exc
from smsqueue.delivery import Delivery, Slots
from smsqueue.ledger import AttemptOutcome, ClaimLost, Ledger, NotClaimable
from smsqueue.message.states import State
from tests.conftest import RedisServer


class Pair:
    """A primary and a replica that a test takes away."""

    def __init__(self, make: Callable[..., RedisServer]) -> None:
        fast = ("--repl-diskless-sync-delay", "0")
        self.primary, self.replica = make(*fast), make(*fast)
        self.clients = [redis.Redis(port=each.port) for each in (self.primary, self.replica)]

    def attach(self) -> None:
        self.clients[1].replicaof("127.0.0.1", self.primary.port)  # type: ignore[no-untyped-call]
        assert self.clients[0].set("probe", 1)
        while not self.clients[0].wait(1, 1000):  # type: ignore[no-untyped-call]
            pass

    def detach(self) -> None:
        self.clients[1].replicaof("no", "one")  # type: ignore[no-untyped-call]
        # Until the primary has noticed, and no answer is under way.
        while self.clients[0].info("replication")["connected_slaves"]:
            pass

    def close(self) -> None:
        for client in self.clients:
            client.close()


@pytest.fixture
def pair(redis_server: Callable[..., RedisServer]) -> Iterator[Pair]:
    made = Pair(redis_server)
    yield made
    made.close()


class Provider(IProvider):
    calls = 0
    #: Called in the middle of each call.
    meanwhile: Callable[[], None] = staticmethod(lambda: None)

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        type(self).calls += 1
        type(self).meanwhile()
        message.msgid = "m-1"
        return message


@pytest.fixture
def gateway(pair: Pair) -> Iterator[Gateway]:
    Provider.calls, Provider.meanwhile = 0, staticmethod(lambda: None)
    settings = Settings(redis_url=pair.primary.url, wait_replicas=1)
    with Gateway(settings) as made:
        made.add_provider("p", Provider)
        yield made


def _delivery(gateway: Gateway) -> Delivery:
    ledger = Ledger(gateway.settings, timeout=1.0)
    return Delivery(gateway, ledger, gateway.queue, Slots(1, {"p": 1}))


def test_a_message_is_accepted_once_a_replica_has_it(pair: Pair, gateway: Gateway) -> None:
    message = OutgoingMessage("15550001", "hi")
    with pytest.raises(exc.QueueUnavailable, match="0 of 1 replicas confirmed it") as caught:
        gateway.send(message)
    assert not caught.value.refused
    assert message.id is None
    told = "is a primary with no replicas, but SMSQUEUE_WAIT_REPLICAS is 1"
    assert any(told in warning for warning in gateway.check())
    id = message.unconfirmed_id
    pair.attach()
    assert gateway.send(message).id == id
    assert not message.duplicate
    assert not any("SMSQUEUE_WAIT_REPLICAS" in warning for warning in gateway.check())
    assert gateway.ledger.counts()["queued"] == 1
    assert pair.clients[1].exists(f"sms:msg:{id}")


def test_no_provider_is_called_for_what_a_failover_would_forget(
    pair: Pair, gateway: Gateway
) -> None:
    pair.attach()
    id = gateway.send(OutgoingMessage("15550001", "hi")).id or ""
    pair.detach()
    delivery = _delivery(gateway)
    with pytest.raises(exc.QueueUnavailable, match="replicas confirmed it"):
        delivery.deliver(id)
    assert Provider.calls == 0
    pair.attach()
    delivery.claims.lost.release()
    assert gateway.lookup(id).state == State.RETRYING  # it was given back
    delivery.deliver(id)
    assert (gateway.lookup(id).state, Provider.calls) == (State.SENT, 1)


def test_an_outcome_is_repeated_until_a_replica_has_it(pair: Pair, gateway: Gateway) -> None:
    pair.attach()
    id = gateway.send(OutgoingMessage("15550001", "hi")).id or ""
    delivery = _delivery(gateway)
    Provider.meanwhile = staticmethod(pair.detach)
    settle, tries = delivery.ledger.settle_many, []

    def counted(items: object) -> object:
        tries.append(1)
        if len(tries) == 2:
            pair.attach()
        return settle(items)  # type: ignore[arg-type]

    delivery.ledger.settle_many = counted  # type: ignore[method-assign, assignment]
    delivery.deliver(id)
    assert len(tries) >= 2
    assert pair.clients[1].hget(f"sms:msg:{id}", "state") == b"sent"
    assert Provider.calls == 1


@pytest.mark.parametrize(("verdict", "state"), [("sent", "sent"), ("unknown", "unknown")])
@pytest.mark.parametrize("claimed_again", [False, True])
def test_an_outcome_counts_though_a_failover_took_its_beginning_back(
    pair: Pair, gateway: Gateway, verdict: str, state: str, claimed_again: bool
) -> None:
    pair.attach()
    id = gateway.send(OutgoingMessage("15550001", "hi")).id or ""
    pair.detach()
    old = Ledger(Settings(redis_url=pair.primary.url))
    new = Ledger(Settings(redis_url=pair.replica.url))
    old.claim(id, "token", lease=60, worker="w1", default=("p", 60))
    if claimed_again:  # by a worker whose router has not answered yet
        new.claim(id, "other", lease=60, worker="w2")
    outcome = AttemptOutcome(verdict, provider="p", msgid='"m-1"', msgids=("m-1",))
    assert new.settle(id, "token", 1, outcome).state == state
    assert new.settle(id, "token", 1, outcome).state == state
    again = new.claim(id, "third", lease=60, worker="w3", default=("p", 60))
    assert isinstance(again, NotClaimable)
    if claimed_again:
        assert isinstance(new.begin(id, "other", "p", lease=60, attempt=1), ClaimLost)
    record = new.read(id)
    assert record is not None
    assert (record.state, record.attempts) == (state, 1)


def test_a_campaign_and_a_webhook_wait_for_a_replica_too(pair: Pair, gateway: Gateway) -> None:
    messages = [OutgoingMessage("15550001", str(number)) for number in range(70)]
    with pytest.raises(exc.QueueUnavailable, match="replicas confirmed it"):
        gateway.send_many(messages)
    with pytest.raises(exc.QueueUnavailable, match="replicas confirmed it"):
        gateway.receive_message(IncomingMessage("15550001", "YES", msgid="in-1"))
    pair.attach()
    gateway.send_many(messages)
    gateway.receive_message(IncomingMessage("15550001", "YES", msgid="in-1"))
    assert pair.clients[1].zcard("sms:state:waiting") == 1
    assert gateway.ledger.counts()["queued"] == 70
    assert pair.clients[1].hget("sms:counts", "accepted") == b"70"


def test_a_demoted_primary_surely_did_nothing_and_is_asked_again(
    pair: Pair, gateway: Gateway
) -> None:
    pair.attach()
    gateway.send(OutgoingMessage("15550001", "hi"))
    pair.detach()
    first, second = pair.clients
    first.replicaof("127.0.0.1", pair.replica.port)  # type: ignore[no-untyped-call]
    message = OutgoingMessage("15550001", "hi")
    with pytest.raises(exc.QueueUnavailable, match="is a replica") as caught:
        gateway.send(message)
    assert caught.value.refused
    assert second.dbsize()
    first.replicaof("no", "one")  # type: ignore[no-untyped-call]
    second.replicaof("127.0.0.1", pair.primary.port)  # type: ignore[no-untyped-call]
    while not first.info("replication")["connected_slaves"]:
        pass
    assert gateway.send(message).id


def test_too_few_replicas_refuse_a_message_for_sure(pair: Pair) -> None:
    pair.clients[0].config_set("min-replicas-to-write", 1)
    with Gateway(Settings(redis_url=pair.primary.url)) as gateway:
        with pytest.raises(exc.QueueUnavailable, match="min-replicas-to-write") as caught:
            gateway.send(OutgoingMessage("15550001", "hi"))
        assert caught.value.refused
        assert gateway.ledger.counts()["queued"] == 0


def test_an_earlier_error_says_nothing_about_a_later_one(
    redis_server: Callable[..., RedisServer],
) -> None:
    server = redis_server()
    with (
        Gateway(Settings(redis_url="redis://127.0.0.1:1/0")) as nowhere,
        Gateway(Settings(redis_url=server.url)) as gateway,
    ):
        gateway.send(OutgoingMessage("15550001", "hi"))
        client = redis.Redis.from_url(server.url)
        client.execute_command("CLIENT", "PAUSE", "3000")  # type: ignore[no-untyped-call]

        def retried() -> None:
            try:
                nowhere.send(OutgoingMessage("15550001", "hi"))
            except exc.QueueUnavailable:
                gateway.send(OutgoingMessage("15550001", "hi"))

        with pytest.raises(exc.QueueUnavailable) as caught:
            retried()
        assert not caught.value.refused  # Redis may execute it later
        client.close()
