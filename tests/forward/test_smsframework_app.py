"""The other side is a real application on smsframework 0.0.9, in a process of its own."""

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
from tests.forward.actions import state
from tests.forward.side import NoPauses, Side, carrier_of
from tests.ledger.bench import Told

PROGRAM = Path(__file__).with_name("smsframework_app.py")
USERS = {"old": "pass"}


class SmsframeworkApp:
    """The process, and the lines that it wrote."""

    def __init__(self, role: str, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(PROGRAM), role, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.lines: list[dict[str, Any]] = []
        self.port: int = self.next("ready")["port"]

    def next(self, what: str) -> dict[str, Any]:
        """The next line of a kind; earlier lines of other kinds are kept."""
        for line in self.lines:
            if line["what"] == what:
                self.lines.remove(line)
                return line
        assert self.process.stdout
        while True:
            text = self.process.stdout.readline()
            assert text, f"the process ended before it wrote {what!r}"
            line: dict[str, Any] = json.loads(text)
            if line["what"] == what:
                return line
            self.lines.append(line)

    def send(self, dst: str, body: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps([dst, body]) + "\n")
        self.process.stdin.flush()

    def url(self, name: str, user: str = "") -> str:
        return f"http://{user}{'@' if user else ''}127.0.0.1:{self.port}/hook/{name}"


@pytest.fixture
def start_app() -> Iterator[Callable[[str, str], SmsframeworkApp]]:
    apps: list[SmsframeworkApp] = []

    def start(role: str, url: str) -> SmsframeworkApp:
        apps.append(SmsframeworkApp(role, url))
        return apps[-1]

    yield start
    for app in apps:
        app.process.kill()
        app.process.communicate()


def our_client(
    side: Side, start_app: Callable[[str, str], SmsframeworkApp], **options: Any
) -> SmsframeworkApp:
    """Our client, with their server."""
    server = start_app("server", side.url("remote", "old:pass"))
    speak = {"speak": "smsframework", "users": USERS} | options
    url = server.url("forward")
    side.gateway.add_provider("remote", ForwardClientProvider, server_url=url, **speak)
    side.listen()
    side.serve()
    return server


def our_server(
    side: Side, start_app: Callable[[str, str], SmsframeworkApp], **options: Any
) -> SmsframeworkApp:
    """Our server, with their client."""
    client = start_app("client", side.url("forward", "old:pass"))
    side.gateway.add_provider("carrier", Told)
    speak = {"speak": "smsframework", "users": USERS} | options
    clients = [client.url("remote")]
    side.gateway.add_provider("forward", NoPauses, clients=clients, **speak)
    side.listen()
    side.serve()
    return client


def test_our_eager_client_with_its_server(
    make_side: Callable[..., Side], start_app: Callable[[str, str], SmsframeworkApp]
) -> None:
    side = make_side(eager=True)
    our_client(side, start_app)
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


def test_queued_sides(
    client: Side, start_app: Callable[[str, str], SmsframeworkApp], server: Side
) -> None:
    our_client(client, start_app)
    id = client.send("hi", status_report=True)
    client.deliver()
    # The report came before the answer, and was matched by the server's id.
    assert state(client, id) == "delivered"
    assert [message.body for message in client.received] == ["got hi"]
    theirs = our_server(server, start_app)
    theirs.send("15550001", "hi")
    server_id = theirs.next("sent")["msgid"]
    server.deliver()
    assert state(server, server_id) == "sent"
    reference = carrier_of(server).calls[0]  # type: ignore[attr-defined]
    report = MessageDelivered(None)
    report.reference = reference
    carrier_of(server)._receive_status(report)
    server.deliver()
    line = theirs.next("status")
    assert (line["kind"], line["msgid"], line["delivered"]) == ("MessageDelivered", server_id, True)


def test_its_client_with_our_eager_server(
    make_side: Callable[..., Side], start_app: Callable[[str, str], SmsframeworkApp]
) -> None:
    side = make_side(eager=True)
    client = our_server(side, start_app)
    carrier: Any = carrier_of(side)
    client.send("+1 555 0002", "grün")
    sent = client.next("sent")
    assert (sent["msgid"].startswith("carrier-"), sent["provider"]) == (True, "remote")
    carrier.then(exc.LimitsError("slow down"), KeyError("oh"))
    for kind in ("LimitsError", "ServerError"):
        client.send("15550002", "again")
        assert client.next("failed")["kind"] == kind
    whole_second = datetime(2026, 2, 3, 13, 32, 7, tzinfo=UTC)
    carrier._receive_message(
        IncomingMessage("1555", "JA", "m1", "777", whole_second, {"at": whole_second})
    )
    line = client.next("received")
    assert (line["kind"], line["src"], line["body"]) == ("IncomingMessage", "1555", "JA")
    assert (line["msgid"], line["rtime"]) == ("m1", "2026-02-03 13:32:07")


def test_a_missing_speak_option_is_named_in_the_error(
    make_side: Callable[..., Side],
    start_app: Callable[[str, str], SmsframeworkApp],
) -> None:
    side = make_side(eager=True)
    our_client(side, start_app, speak="smsqueue")
    with pytest.raises(exc.UnsupportedError, match="speak='smsframework'"):
        side.gateway.send(OutgoingMessage("15550001", "hi"))
    side = make_side(eager=True)
    client = our_server(side, start_app, speak="smsqueue")
    for report in (
        lambda: carrier_of(side)._receive_message(IncomingMessage("1555", "JA")),
        lambda: carrier_of(side)._receive_status(MessageDelivered("c-1")),
    ):
        with pytest.raises(exc.ProviderError, match="speaks smsframework"):
            report()
    assert client.process.poll() is None
