"""A migrated application with a real worker, its plugin, a carrier, receivers and handlers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from smsframework_gatewayapi import GatewayAPIProvider

from receivers import create_app
from smsqueue import Gateway, OutgoingMessage
from tests.compat.carrier import HANG_UP, Answer, Carrier
from tests.workers.conftest import until

MODULE = """
from pathlib import Path
from smsqueue import Gateway
from smsframework_gatewayapi import GatewayAPIProvider

gateway = Gateway()
gateway.add_provider("main", GatewayAPIProvider, key="k", secret="s")

def write(*fields):
    with Path("events.txt").open("a") as file:
        print(*fields, file=file)

gateway.onSend += lambda message: write("sent", message.id, message.msgid)
gateway.onStatus += lambda status: write(status.state, status.id, status.status)
gateway.onReceive += lambda message: write("received", message.provider, message.body)
"""


def test_a_message_its_report_and_a_reply(
    gateway: Gateway, carrier: Carrier, start_worker: Callable[..., Any], tmp_path: Path
) -> None:
    gateway.add_provider("main", GatewayAPIProvider, key="k", secret="s")
    start_worker(MODULE)
    carrier.then(Answer('{"ids": [17]}'), HANG_UP)
    message = OutgoingMessage("+45 55 50 00 01", "hi").options(status_report=True)
    id = gateway.send(message).id or ""
    until(lambda: gateway.lookup(id).state == "sent")
    unanswered = gateway.send(OutgoingMessage("4555500002", "hi")).id or ""
    until(lambda: gateway.lookup(unanswered).state == "unknown")

    settings = replace(gateway.settings, receiver_prefix=("secret",))
    client = create_app(settings, gateway).test_client()
    reported = {"id": 17, "time": 1, "status": "DELIVERED"}
    reply = {"id": 9, "msisdn": 4555500001, "receiver": 1, "message": "JA", "senttime": 1}
    for webhook in (reported, reply):
        assert client.post("/secret/main/callback", json=webhook).status_code == 200
    expected = {f"sent {id} 17", f"delivered {id} Delivered", "received main JA"}
    events = tmp_path / "events.txt"
    until(lambda: events.exists() and set(events.read_text().splitlines()) == expected)
    assert gateway.lookup(id).state == "delivered"
    assert len(carrier.requests) == 2
