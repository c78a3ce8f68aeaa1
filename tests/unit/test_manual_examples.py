"""The examples of smsframework's manual, written down as they stand there: eager and queued.

Changed are Python 2's print statements, what stands for a configuration (``...``), and names.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from smsqueue import Gateway, Settings
from tests.compat.plugin import Plugin
from tests.ledger.bench import Bench

#: Does what workers do, until nothing is left to be done.
Work = Callable[[], None]


@pytest.fixture(params=["eager", "queued"])
def bench(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Bench | None]:
    bench = Bench(settings) if request.param == "queued" else None
    yield bench
    if bench:
        bench.close()


@pytest.fixture
def gateway(bench: Bench | None) -> Any:
    return bench.gateway if bench else Gateway(eager=True)


@pytest.fixture
def work(bench: Bench | None) -> Work:
    def work() -> None:
        for _ in range(3 if bench else 0):
            assert bench
            for id in bench.redis.zrange(bench.key("due", "send"), 0, -1):
                bench.deliver(id)
            bench.run_hooks()

    return work


@pytest.fixture
def printed() -> list[Any]:
    return []


def test_providers(gateway: Any, work: Work) -> None:
    from smsqueue import OutgoingMessage
    from smsqueue.providers import NullProvider

    gateway.add_provider("main", Plugin)  # the default one
    gateway.add_provider("null", NullProvider)
    assert gateway.default_provider == "main"
    gateway.default_provider = "null"
    assert gateway.get_provider("null").name == "null"
    sent: list[Any] = []
    gateway.onSend += lambda message: sent.append(message.provider)
    gateway.send(OutgoingMessage("+123456789", "hi there!"))
    work()
    assert sent == ["null"]


def test_sending(gateway: Any, work: Work, printed: list[Any]) -> None:
    from smsqueue import OutgoingMessage
    from smsqueue.providers import NullProvider

    gateway.add_provider("null", NullProvider)

    def on_send(message: Any) -> None:
        """:type message: OutgoingMessage"""
        printed.append(message)

    gateway.onSend += on_send
    given = OutgoingMessage("+123456789", "hi there!")
    msg = gateway.send(given)
    work()
    assert msg is given
    [sent] = printed
    assert (sent.dst, sent.body, sent.msgid, sent.provider) == (
        *("123456789", "hi there!"),
        *("1", "null"),
    )


def test_event_hooks(gateway: Any, work: Work, printed: list[Any]) -> None:
    from smsqueue import OutgoingMessage
    from smsqueue.providers import LoopbackProvider

    gateway.add_provider("lo", LoopbackProvider)

    def on_receive(message: Any) -> None:
        """:type message: IncomingMessage"""
        printed.append(message)

    gateway.onReceive += on_receive

    def on_status(status: Any) -> None:
        """:type status: MessageStatus"""
        printed.append(status)

    gateway.onStatus += on_status
    gateway.get_provider("lo").received("+1 55", "hello")
    gateway.send(OutgoingMessage("+123", "hi").options(status_report=True))
    work()
    incoming, status = printed
    assert (incoming.src, incoming.body, incoming.provider) == ("155", "hello", "lo")
    assert status.accepted


def test_receivers(gateway: Any, work: Work) -> None:
    from smsframework_vianett import VianettProvider

    gateway.add_provider("one", VianettProvider, user="u", password="p")
    gateway.add_provider("two", VianettProvider, user="u", password="p")
    heard: list[Any] = []
    gateway.onReceive += lambda message: heard.append(message.provider)

    app = Flask(__name__)
    for name, bp in gateway.receiver_blueprints():
        app.register_blueprint(bp, url_prefix="/sms/" + name)

    hidden = gateway.receiver_blueprints_register(Flask(__name__), "/24fb0d6963f/")
    query = "sourceaddr=1555&destinationaddr=1963&refno={}&retrycount=0&operator=1&replypathid=0"
    query += "&prefix=CALL&message=me"
    assert app.test_client().get(f"/sms/one/im?{query.format(1)}").status_code == 200
    assert hidden.test_client().get(f"/24fb0d6963f/two/im?{query.format(2)}").status_code == 200
    assert hidden.test_client().get(f"/two/im?{query.format(3)}").status_code == 404
    work()
    assert sorted(heard) == ["one", "two"]
    assert gateway.receiver_blueprint_for("one").name
    with pytest.raises(KeyError):
        gateway.receiver_blueprint_for("three")


def test_routing(gateway: Any, work: Work) -> None:
    from smsqueue import OutgoingMessage
    from smsqueue.providers import NullProvider

    gateway.add_provider("primary", NullProvider)
    gateway.add_provider("quick", NullProvider)
    gateway.add_provider("usa", NullProvider)

    def router(message: Any, module: str, type: str) -> str | None:
        """Custom router function"""
        if message.dst.startswith("1"):
            return "usa"  # Use 'usa' for all messages sent to the United States
        elif type == "notification":
            return "quick"  # use the 'quick' for all notifications
        else:
            return None  # Use the default provider ('primary') for everything else

    gateway.router = router
    sent: dict[str, str] = {}
    gateway.onSend += lambda message: sent.update({message.dst: message.provider})
    gateway.send(OutgoingMessage("+1234", "hi").route("users", "notification"))
    gateway.send(OutgoingMessage("+44", "hi").route("users", "notification"))
    gateway.send(OutgoingMessage("+45", "hi").route("users", "alert"))
    gateway.send(OutgoingMessage("+46", "hi"))
    work()
    assert sent == {"1234": "usa", "44": "quick", "45": "primary", "46": "primary"}


def test_log(gateway: Any, work: Work, caplog: pytest.LogCaptureFixture) -> None:
    from smsqueue import OutgoingMessage
    from smsqueue.providers import LogProvider

    gateway.add_provider("log", LogProvider, logger=logging.getLogger("manual"))
    with caplog.at_level(logging.INFO, "manual"):
        gateway.send(OutgoingMessage("+15551234567", "hi"))
        work()
    [line] = [text for name, _, text in caplog.record_tuples if name == "manual"]
    assert line.startswith("Sent SMS to 1555")


def test_loopback(gateway: Any, work: Work, printed: list[Any]) -> None:
    from smsqueue import OutgoingMessage
    from smsqueue.providers import LoopbackProvider

    gateway.add_provider("lo", LoopbackProvider)
    gateway.send(OutgoingMessage("+123", "hi"))
    work()
    traffic = gateway.get_provider("lo").get_traffic()
    assert traffic[0].body == "hi"

    def subscriber(message: Any) -> None:
        printed.append(message)
        message.reply("got it")  # use the augmented reply method

    provider = gateway.get_provider("lo")
    provider.subscribe("+1", subscriber)  # register the subscriber
    replies: list[Any] = []
    gateway.onReceive += replies.append
    gateway.send(OutgoingMessage("+1", "obey me"))
    work()
    assert (printed[0].dst, printed[0].body) == ("1", "obey me")
    assert [(reply.src, reply.body) for reply in replies] == [("1", "got it")]


def test_forwarding(gateway: Any) -> None:
    from smsqueue.providers import ForwardClientProvider, ForwardServerProvider, NullProvider

    gateway.add_provider("main", NullProvider)  # Default provider
    gateway.add_provider("fwd", ForwardClientProvider, server_url="http://sms.example.com/sms/fwd")
    gateway.add_provider(
        "server",
        ForwardServerProvider,
        clients=["http://a.example.com/sms/fwd", "http://b.example.com/sms/fwd"],
    )
    # What the manual leaves open is asked for when receivers are made.
    for name in ("fwd", "server"):
        with pytest.raises(ValueError, match=r"accept requests from anybody.*secret="):
            gateway.receiver_blueprint_for(name)


def test_a_routing_server(gateway: Any, monkeypatch: pytest.MonkeyPatch, work: Work) -> None:
    from smsqueue import ForwardServerProvider, IncomingMessage
    from smsqueue.data import MessageStatus, OutgoingMessage
    from smsqueue.providers import LoopbackProvider

    class RoutingProvider(ForwardServerProvider):
        def choose_clients(self, obj: Any) -> list[str]:
            # The manual asks for OutgoingMessage, which never comes here.
            if isinstance(obj, IncomingMessage):
                return [self.clients[0]]
            else:
                return [self.clients[1]]

    gateway.add_provider("lo", LoopbackProvider)  # Default provider
    server = gateway.add_provider(
        "fwd",
        RoutingProvider,
        clients=["http://a.example.com/sms/fwd", "http://b.example.com/sms/fwd"],
    )
    passed: dict[str, list[str]] = {}
    monkeypatch.setattr(
        server._fan_out, "deliver", lambda obj, to: passed.update({type(obj).__name__: to})
    )
    gateway.get_provider("lo").received("1", "hi")
    gateway.send(OutgoingMessage("1", "hi").options(status_report=True))
    work()
    assert issubclass(MessageStatus, object)
    assert passed == {
        "IncomingMessage": ["http://a.example.com/sms/fwd"],
        "MessageAccepted": ["http://b.example.com/sms/fwd"],
    }
