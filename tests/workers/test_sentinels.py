"""Every process finds the primary by its sentinels, with users and TLS of their own."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme

from smsqueue import Gateway, OutgoingMessage, Settings, exc
from smsqueue.message.states import State
from smsqueue.stack import ReplicatedRedis
from tests.conftest import RedisServer
from tests.workers.conftest import Ask, Worker, until
from tests.workers.test_refused import TlsProxy
from tests.workers.test_tls import Impostor

NULL = """
from smsqueue import Gateway
from smsqueue.providers import NullProvider
gateway = Gateway()
gateway.add_provider("null", NullProvider)
"""


class TlsSentinel:
    """A sentinel that speaks TLS and requires a user and a password: the embedded server cannot."""

    def __init__(self, authority: trustme.CA, primary: int) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self.context)
        self.state = {
            "name": "sms", "ip": "localhost", "port": str(primary), "flags": "master",
            "num-other-sentinels": "2", "config-epoch": "7",
        }  # fmt: skip
        self.asked: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), self.context.wrap_socket(connection, server_side=True) as here:
            logged_in, file = False, here.makefile("rb")
            while line := file.readline():
                words = []
                for _ in range(int(line[1:])):
                    length = int(file.readline()[1:])
                    words.append(file.read(length + 2)[:-2].decode())
                logged_in = logged_in or words[-3:] == ["AUTH", "watcher", "hush"]
                logged_in = logged_in or words == ["AUTH", "watcher", "hush"]
                here.sendall(self._answer(words, logged_in))

    def _answer(self, words: list[str], logged_in: bool) -> bytes:
        if not logged_in:
            return b"-NOAUTH Authentication required.\r\n"
        state = f"%{len(self.state)}\r\n" + "".join(
            f"${len(text)}\r\n{text}\r\n" for pair in self.state.items() for text in pair
        )
        match [word.upper() for word in words]:
            case ["HELLO", *_]:
                return b"%1\r\n$5\r\nproto\r\n:3\r\n"
            case ["SENTINEL", "MASTER", _]:
                self.asked.append("ledger")
                return state.encode()
            case ["SENTINEL", "MASTERS"]:
                self.asked.append("broker")
                return b"*1\r\n" + state.encode()
        return b"+OK\r\n"


def test_sentinels_and_primary_have_tls_and_passwords(
    redis_server: Callable[..., RedisServer],
    start_worker: Callable[..., Worker],
    settings: Settings,
    tmp_path: Path,
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    primary = TlsProxy(redis_server("--requirepass", "s3cret").port, authority)
    sentinel = TlsSentinel(authority, primary.port)
    environment = {
        "SMSQUEUE_REDIS_URL": (
            f"sentinel://:s3cret@localhost:{sentinel.port}/2?master=sms&tls=1&sentinel_tls=1"
            "&sentinel_username=watcher&sentinel_password=hush"
        ),
        "SMSQUEUE_REDIS_CA": f"{tmp_path}/ca.pem",
        "SMSQUEUE_NAMESPACE": settings.namespace,
        "SMSQUEUE_EAGER": "0",
    }
    worker = start_worker(NULL, **environment)
    assert "broker" in sentinel.asked
    assert "s3cret" not in worker.text()
    assert "hush" not in worker.text()
    ours = Settings.from_mapping(environment)
    with Gateway(ours) as gateway:
        message = OutgoingMessage("15550001", "hi")
        # A busy machine may need longer for TLS than a caller of send() waits for a sentinel.
        until(lambda: _is_sent(gateway, message))
        until(lambda: gateway.lookup(message.id or "").state == State.SENT)
    wrong = environment["SMSQUEUE_REDIS_URL"].replace("hush", "other")
    with Gateway(Settings.from_mapping(environment | {"SMSQUEUE_REDIS_URL": wrong})) as gateway:
        until(lambda: "correct sentinel_username and sentinel_password" in _error(gateway))
        assert "other" not in _error(gateway)


def _error(gateway: Gateway) -> str:
    with pytest.raises(exc.QueueUnavailable) as caught:
        gateway.lookup("any")
    return str(caught.value)


def _is_sent(gateway: Gateway, message: OutgoingMessage) -> bool:
    with suppress(exc.QueueUnavailable):
        return bool(gateway.send(message).id)
    return False


def test_nothing_is_said_to_a_sentinel_whose_certificate_is_wrong(tmp_path: Path) -> None:
    impostor = Impostor(trustme.CA().issue_cert("localhost"))
    url = f"sentinel://localhost:{impostor.listener.getsockname()[1]}/0?master=sms&sentinel_tls=1"
    with (
        Gateway(Settings(redis_url=f"{url}&sentinel_password=hush")) as gateway,
        pytest.raises(exc.QueueUnavailable) as caught,
    ):
        gateway.send(OutgoingMessage("15550001", "hi"))
    assert caught.value.refused
    until(lambda: impostor.handshakes > 0)
    assert impostor.received == b""


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicatedRedis]:
    with ReplicatedRedis(tmp_path_factory.mktemp("replicated")) as made:
        yield made


def test_flower_shows_queues_and_workers(
    replicated: ReplicatedRedis,
    start_flower: Callable[[str, str], Ask],
    start_worker: Callable[..., Worker],
) -> None:
    flower = start_flower(replicated.url, "shop")
    with Gateway(Settings(redis_url=replicated.url, namespace="shop")) as gateway:
        gateway.send_many([OutgoingMessage("15557654321", "hi") for _ in range(3)])
        until(lambda: flower("/api/queues/length") is not None)
        lengths = flower("/api/queues/length")["active_queues"]
        assert {"name": "shop.send", "messages": 3} in lengths
        start_worker(NULL, SMSQUEUE_REDIS_URL=replicated.url, SMSQUEUE_NAMESPACE="shop")
        until(lambda: flower("/api/workers?refresh=1"))


@pytest.mark.parametrize("hang", ["two sentinels", "all sentinels", "primary", "everything"])
def test_send_ends_in_time_whatever_hangs(replicated: ReplicatedRedis, hang: str) -> None:
    sentinels = [process.pid for process in replicated.sentinels]
    primary = replicated.primary().process.pid
    frozen = {
        "two sentinels": sentinels[:2],
        "all sentinels": sentinels,
        # With its sentinels, so that no other server becomes the primary.
        "primary": [primary, *sentinels[1:]],
        "everything": [primary, *sentinels],
    }[hang]
    settings = Settings(redis_url=replicated.url, namespace="hang")
    with Gateway(settings) as fresh, Gateway(settings) as used:
        used.send(OutgoingMessage("15550001", "hi"))
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            took, errors = [], list[exc.QueueUnavailable]()
            for gateway in (fresh, used):
                began = time.monotonic()
                try:
                    gateway.send(OutgoingMessage("15550001", "hi"))
                except exc.QueueUnavailable as error:
                    errors.append(error)
                took.append(time.monotonic() - began)
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
    # Whoever has a connection needs no sentinel.
    expected = {"two sentinels": 0, "all sentinels": 1, "primary": 2, "everything": 2}[hang]
    assert len(errors) == expected
    assert errors == [] or hang == "primary" or errors[0].refused
    assert max(took) < 10  # seconds; without limits it would take far longer


def test_a_name_that_no_sentinel_knows_is_told(
    replicated: ReplicatedRedis, redis_server: Callable[..., RedisServer]
) -> None:
    settings = Settings(
        redis_url=replicated.url.replace("master=sms", "master=other"), namespace="hang"
    )
    with Gateway(settings) as gateway:
        with pytest.raises(exc.QueueUnavailable, match="know no primary called 'other'") as caught:
            gateway.send(OutgoingMessage("15550001", "hi"))
        assert caught.value.refused
