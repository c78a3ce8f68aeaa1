"""Both sides with real worker processes, receivers and ledgers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from smsqueue import Gateway, OutgoingMessage, Settings
from tests.conftest import free_port
from tests.forward.side import SECRET
from tests.receivers.conftest import start
from tests.receivers.server import PYTHON, Start
from tests.workers.conftest import Worker, start_worker, until

__all__ = ["start", "start_worker"]

SERVER = """
from smsqueue import Gateway, RetryPolicy
from smsqueue.providers import LoopbackProvider
from smsqueue.providers.forward import ForwardServerProvider
gateway = Gateway(retry=RetryPolicy(base=0.2, cap=0.5))
phone = gateway.add_provider("phone", LoopbackProvider)
phone.subscribe("15550001", lambda message: message.reply("got " + message.body))
gateway.add_provider("forward", ForwardServerProvider, secret={secret!r}, clients=[
    "http://127.0.0.1:{dead}/hidden/remote", "http://127.0.0.1:{client}/hidden/remote"])
"""
CLIENT = """
from smsqueue import Gateway, OutgoingMessage, RetryPolicy
from smsqueue.providers.forward import ForwardClientProvider
gateway = Gateway(retry=RetryPolicy(base=0.2, cap=0.5))
gateway.add_provider("remote", ForwardClientProvider, secret={secret!r},
    server_url="http://127.0.0.1:{server}/hidden/forward")
def thank(message):
    if "well?" in message.body:
        gateway.send(OutgoingMessage("15550002", "thanks", provider=message.provider))
gateway.onReceive += thank
"""


def test_a_message_its_report_and_a_reply(
    settings: Settings, start: Start, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    ports = {"server": free_port(), "client": free_port(), "dead": free_port()}
    spaces = {}
    for side, text in (("server", SERVER), ("client", CLIENT)):
        (tmp_path / f"{side}_sms.py").write_text(text.format(secret=SECRET, **ports))
        spaces[side] = replace(settings, namespace=f"{settings.namespace}.{side}")
        env = {
            "SMSQUEUE_GATEWAY": f"{side}_sms:gateway",
            "SMSQUEUE_NAMESPACE": spaces[side].namespace,
            "SMSQUEUE_REDIS_URL": settings.redis_url,
            "SMSQUEUE_RECEIVER_PREFIX": "hidden",
        }
        where = f"127.0.0.1:{ports[side]}"
        command = ("gunicorn", "--config", "python:receivers.server", "--bind", where)
        receivers = start((*PYTHON, *command), **env | {"SMSQUEUE_EAGER": "0"})
        receivers.wait_for("Listening at")
        start_worker("", **env)
    with Gateway(spaces["client"]) as client, Gateway(spaces["server"]) as server:
        message = OutgoingMessage("+1 555 0001", "well?").options(status_report=True)
        id = client.send(message).id
        assert id
        until(lambda: client.lookup(id).state == "delivered")
        # The answer to the reply, sent by a handler of the client.
        until(lambda: [r.state for r in client.find("15550002")] == ["sent"])
        until(lambda: [r.state for r in server.find("15550002")] == ["sent"])
        record: Any = server.lookup(client.lookup(id).msgid)
        assert record.state == "delivered"
        assert record.attempts == 1
        # The events for the unreachable client are kept: a report and a reply.
        counts = server.ledger.counts()
        assert counts["waiting"] + counts["running"] + counts["dead"] == 2
