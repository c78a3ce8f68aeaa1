"""The other side is an application on smsframework 0.0.9 itself: a real process, real HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from smsqueue import IncomingMessage, MessageDelivered, OutgoingMessage, exc
from smsqueue.providers.forward import ForwardClientProvider
from tests.forward.side import NoPauses, Side, carrier_of
from tests.forward.speaking import state
from tests.ledger.bench import Told

PROGRAM = Path(__file__).with_name("original_app.py")
USERS = {"old": "pass"}


class Original:
    """The process, and what it wrote."""

    def __init__(self, role: str, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(PROGRAM), role, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.told: list[dict[str, Any]] = []
        self.port: int = self.next("ready")["port"]

    def next(self, what: str) -> dict[str, Any]:
        """The next line of a kind; others that come before it are kept."""
        for line in self.told:
            if line["what"] == what:
                self.told.remove(line)
                return line
        assert self.process.stdout
        while True:
            text = self.process.stdout.readline()
            assert text, f"it ended before it told of {what}"
            line: dict[str, Any] = json.loads(text)
            if line["what"] == what:
                return line
            self.told.append(line)

    def send(self, dst: str, body: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps([dst, body]) + "\n")
        self.process.stdin.flush()

    def url(self, name: str, user: str = "") -> str:
        return f"http://{user}{'@' if user else ''}127.0.0.1:{self.port}/hook/{name}"


@pytest.fixture
def original() -> Iterator[Callable[[str, str], Original]]:
    made: list[Original] = []

    def make(role: str, url: str) -> Original:
        made.append(Original(role, url))
        return made[-1]

    yield make
    for each in made:
        each.process.kill()
        each.process.communicate()


def our_client(side: Side, original: Callable[[str, str], Original], **options: Any) -> Original:
    """Our client, and their server."""
    server = original("server", side.url("remote", "old:pass"))
    speak = {"speak": "smsframework", "users": USERS} | options
    url = server.url("forward")
    side.gateway.add_provider("remote", ForwardClientProvider, server_url=url, **speak)
    side.listen()
    side.serve()
    return server


def our_server(side: Side, original: Callable[[str, str], Original], **options: Any) -> Original:
    """Our server, and their client."""
    client = original("client", side.url("forward", "old:pass"))
    side.gateway.add_provider("carrier", Told)
    speak = {"speak": "smsframework", "users": USERS} | options
    clients = [client.url("remote")]
    side.gateway.add_provider("forward", NoPauses, clients=clients, **speak)
    side.listen()
    side.serve()
    return client


def test_our_client_sends_and_hears_through_its_server(
    make_side: Callable[..., Side], original: Callable[[str, str], Original]
) -> None:
    side = make_side(eager=True)
    our_client(side, original)
    message = OutgoingMessage("+1 555 0001", "blåbær").options(status_report=True)
    sent = side.gateway.send(message.params(flash=1))
    assert (sent.msgid, sent.provider, sent.provider_params) == ("1", "remote", {"flash": 1})
    [reply], [report] = side.received, side.reports
    assert (reply.src, reply.body, reply.provider) == ("15550001", "got blåbær", "remote")
    assert (type(report), report.msgid, report.status) == (MessageDelivered, "1", "OK")
    assert report.rtime.tzinfo is not None
    with pytest.raises(exc.CreditError, match="pay first") as caught:
        side.gateway.send(OutgoingMessage("+1 555 0001", "no money"))
    assert not caught.value.ambiguous


def test_through_the_queue(
    client: Side, original: Callable[[str, str], Original], server: Side
) -> None:
    our_client(client, original)
    id = client.send("hi", status_report=True)
    client.deliver()
    # Its report came before its answer, and was found by the message's id there.
    assert state(client, id) == "delivered"
    assert [message.body for message in client.received] == ["got hi"]
    theirs = our_server(server, original)
    theirs.send("15550001", "hi")
    server_id = theirs.next("sent")["msgid"]
    server.deliver()
    assert state(server, server_id) == "sent"
    reference = carrier_of(server).calls[0]  # type: ignore[attr-defined]
    report = MessageDelivered(None)
    report.reference = reference
    carrier_of(server)._receive_status(report)
    server.deliver()
    told = theirs.next("status")
    assert (told["kind"], told["msgid"], told["delivered"]) == ("MessageDelivered", server_id, True)


def test_its_client_sends_and_hears_through_our_server(
    make_side: Callable[..., Side], original: Callable[[str, str], Original]
) -> None:
    side = make_side(eager=True)
    client = our_server(side, original)
    carrier: Any = carrier_of(side)
    client.send("+1 555 0002", "grün")
    sent = client.next("sent")
    assert (sent["msgid"].startswith("carrier-"), sent["provider"]) == (True, "remote")
    carrier.then(exc.LimitsError("slow down"), KeyError("oh"))
    for kind in ("LimitsError", "ServerError"):
        client.send("15550002", "again")
        assert client.next("failed")["kind"] == kind
    even = datetime(2026, 2, 3, 13, 32, 7, tzinfo=UTC)
    carrier._receive_message(IncomingMessage("1555", "JA", "m1", "777", even, {"at": even}))
    told = client.next("received")
    assert (told["kind"], told["src"], told["body"]) == ("IncomingMessage", "1555", "JA")
    assert (told["msgid"], told["rtime"]) == ("m1", "2026-02-03 13:32:07")


def test_who_does_not_say_what_the_other_side_runs_is_told(
    make_side: Callable[..., Side],
    original: Callable[[str, str], Original],
) -> None:
    side = make_side(eager=True)
    our_client(side, original, speak="smsqueue")
    with pytest.raises(exc.UnsupportedError, match="speak='smsframework'"):
        side.gateway.send(OutgoingMessage("15550001", "hi"))
    side = make_side(eager=True)
    client = our_server(side, original, speak="smsqueue")
    for come in (
        lambda: carrier_of(side)._receive_message(IncomingMessage("1555", "JA")),
        lambda: carrier_of(side)._receive_status(MessageDelivered("c-1")),
    ):
        with pytest.raises(exc.ProviderError, match="speaks smsframework"):
            come()
    assert client.process.poll() is None
