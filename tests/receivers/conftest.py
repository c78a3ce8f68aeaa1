"""An eager gateway, and server processes with a gateway of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from smsqueue.gateway import Gateway
from smsqueue.providers import NullProvider
from tests.receivers.plugin import PREFIX, Heard, PluginProvider
from tests.receivers.server import Server, Start

ROOT = Path(__file__).resolve().parents[2]

GATEWAY = """
import time
from smsqueue.gateway import Gateway
from tests.receivers.plugin import PluginProvider
gateway = Gateway()
gateway.add_provider("main", PluginProvider)
def hang(message):
    if message.body == "hang": time.sleep(60)
gateway.onReceive += hang
"""


@pytest.fixture
def gateway() -> Gateway:
    gateway = Gateway(eager=True)
    gateway.add_provider("main", PluginProvider)
    gateway.add_provider("other", PluginProvider, key="left")
    gateway.add_provider("null", NullProvider)
    return gateway


@pytest.fixture
def heard(gateway: Gateway) -> Heard:
    heard: Heard = []
    gateway.onReceive += lambda message: heard.append((message.provider, message.body))
    return heard


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    (tmp_path / "servers_sms.py").write_text(GATEWAY)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SMSQUEUE_", "FLASK_"))}
    servers: list[Server] = []

    def start(command: tuple[str, ...], **extra: str) -> Server:
        env = clean | {
            "PYTHONPATH": str(ROOT),
            "HOME": str(tmp_path),  # gunicorn keeps a control socket there
            "SMSQUEUE_GATEWAY": "servers_sms:gateway",
            "SMSQUEUE_RECEIVER_PREFIX": PREFIX,
            "SMSQUEUE_EAGER": "1",
        }
        servers.append(Server(command, tmp_path, env | extra))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.stdout and not server.process.stdout.closed:
            server.end()
