"""What a worker, ``smsqueue check`` and ``/readyz`` say of a Redis, or a pool, that cannot work."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis as redis_client
import trustme
from click.testing import CliRunner
from kombu.exceptions import OperationalError

from receivers import create_app
from smsqueue import Gateway, OutgoingMessage, Settings, exc
from smsqueue.broker.queue import Queue
from smsqueue.cli import main
from smsqueue.ledger import RedisMisconfigured
from smsqueue.message.states import State
from smsqueue.operation.metrics import scrape
from smsqueue.providers import NullProvider
from tests.conftest import RedisServer, free_port, redis_program

ROOT = Path(__file__).parents[2]
NULL = """
from smsqueue import Gateway
from smsqueue.providers import NullProvider
gateway = Gateway()
gateway.add_provider("null", NullProvider)
"""
SECRET = "hush-hush"


class TlsProxy:
    """Speaks TLS at a port and hands what it reads to a plain Redis."""

    def __init__(self, port: int, authority: trustme.CA) -> None:
        self.target = port
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self.context)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with (
            suppress(OSError),
            connection,
            socket.create_connection(("127.0.0.1", self.target)) as there,
            self.context.wrap_socket(connection, server_side=True) as here,
        ):
            back = threading.Thread(target=self._pump, args=(there, here), daemon=True)
            back.start()
            self._pump(here, there)
            back.join()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@dataclass
class Wrong:
    url: str
    text: str


def _cluster(redis_server: Callable[..., RedisServer]) -> RedisServer:
    # Its second port is 10,000 higher, and has to exist and be free.
    while True:
        with suppress(redis_client.exceptions.ConnectionError):
            return redis_server("--cluster-enabled", "yes")


def _sentinel(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    port = free_port()
    file = folder / "sentinel.conf"
    file.write_text(f"port {port}\nbind 127.0.0.1\n")
    process = subprocess.Popen(
        [redis_program(), str(file), "--sentinel"], stdout=subprocess.DEVNULL
    )
    client = redis_client.Redis(port=port)
    for _ in range(500):
        with suppress(redis_client.exceptions.ConnectionError):
            client.ping()
            break
        threading.Event().wait(0.02)
    client.close()
    return process, port


@pytest.fixture(
    params=[
        *("cluster", "replica", "sentinel", "sentinel/1", "CA", "TLS to plain", "plain to TLS"),
        *("password", "no password", "database"),
    ]
)
def wrong(
    request: pytest.FixtureRequest, redis_server: Callable[..., RedisServer], tmp_path: Path
) -> Iterator[Wrong]:
    """A Redis that cannot be used, and what is to be said of it."""
    authority, sentinel = trustme.CA(), None
    match request.param:
        case "cluster":
            made = Wrong(_cluster(redis_server).url, "is in cluster mode")
        case "replica":
            primary = redis_server()
            replica = redis_server("--replicaof", "127.0.0.1", str(primary.port))
            made = Wrong(replica.url, f"is a replica.*its primary .127.0.0.1:{primary.port}.")
        case "sentinel" | "sentinel/1":
            sentinel, port = _sentinel(tmp_path)
            made = Wrong(f"redis://127.0.0.1:{port}/{request.param[9:] or 0}", "is a sentinel")
        case "CA":
            proxy = TlsProxy(redis_server().port, authority)
            made = Wrong(
                f"rediss://localhost:{proxy.port}/0", "shows a certificate that is not trusted"
            )
        case "TLS to plain":
            url = redis_server().url.replace("redis:", "rediss:")
            made = Wrong(url, "does not speak TLS at this port: write redis://")
        case "plain to TLS":
            proxy = TlsProxy(redis_server().port, authority)
            url = f"redis://localhost:{proxy.port}/0"
            made = Wrong(url, "speaks TLS at this port: write rediss://")
        case "password" | "no password":
            server = redis_server("--requirepass", "right")
            login = f":{SECRET}@" if request.param == "password" else ""
            url = f"redis://{login}127.0.0.1:{server.port}/0"
            made = Wrong(url, "refuses the user or password: correct SMSQUEUE_REDIS_URL")
        case "database":
            server = redis_server("--databases", "2")
            made = Wrong(server.url[:-1] + "7", "has no database of that number")
    yield made
    if sentinel is not None:
        sentinel.kill()
        sentinel.wait()


def test_a_redis_that_cannot_be_used_is_refused_with_its_reason(
    wrong: Wrong, start_worker: Callable[..., Any], settings: Settings, tmp_path: Path
) -> None:
    worker = start_worker(NULL, wait=False, SMSQUEUE_REDIS_URL=wrong.url)
    # Meanwhile the same is asked here.
    environment = {"SMSQUEUE_REDIS_URL": wrong.url, "SMSQUEUE_NAMESPACE": settings.namespace}
    checked = CliRunner().invoke(main, ["check"], env=environment | {"SMSQUEUE_EAGER": None})
    status = CliRunner().invoke(main, ["status"], env=environment | {"SMSQUEUE_EAGER": None})
    web = Settings(
        redis_url=wrong.url, receiver_prefix=("a-prefix-for-tests",), metrics_token=SECRET
    )
    with Gateway(web) as gateway:
        gateway.add_provider("null", NullProvider)
        client = create_app(gateway=gateway).test_client()
        stranger = client.get("/readyz")
        ready = client.get("/readyz", headers={"Authorization": f"Bearer {SECRET}"})
    assert (stranger.status_code, ready.status_code) == (503, 503)
    assert stranger.text == "not ready: Redis cannot be used as it is\n"
    assert re.search(f"Redis at .*{wrong.text}", ready.text), ready.text
    assert checked.exit_code == 1
    assert re.search(f"problem +redis +Redis at .*{wrong.text}", checked.output), checked.output
    assert status.exit_code == 2
    assert status.stdout == "CRITICAL: Redis cannot be used as it is\n"
    assert worker.process.wait(timeout=60) == 1
    lines = [line for line in worker.text().splitlines() if line.startswith("smsqueue: ")]
    assert len(lines) == 1, worker.text()
    assert re.search(wrong.text, lines[0])
    for text in (worker.text(), checked.output, status.output, ready.text):
        assert "Traceback" not in text
        assert SECRET not in text


def test_an_address_with_an_unknown_parameter_is_refused(start_worker: Callable[..., Any]) -> None:
    url = "redis://127.0.0.1:1/0?foo=1"
    worker = start_worker(NULL, wait=False, SMSQUEUE_REDIS_URL=url)
    assert worker.process.wait(timeout=60) == 1
    assert "smsqueue: SMSQUEUE_REDIS_URL is" in worker.text()
    assert "Traceback" not in worker.text()
    worker = start_worker(NULL, wait=False, SMSQUEUE_GATEWAY="none:gateway", SMSQUEUE_LOG="json")
    assert worker.process.wait(timeout=60) == 1
    *_, last = [json.loads(line) for line in worker.text().splitlines()]
    assert last["level"] == "CRITICAL"
    assert last["message"].startswith("SMSQUEUE_GATEWAY names the module 'none', but there is no")


def test_a_worker_waits_for_a_redis_that_is_away(
    start_worker: Callable[..., Any],
    until: Callable[..., None],
    redis_server: Callable[..., RedisServer],
    settings: Settings,
) -> None:
    server = redis_server()
    server.stop()
    worker = start_worker(NULL, wait=False, SMSQUEUE_REDIS_URL=server.url)
    until(lambda: "waiting for it" in worker.text())
    server.start()
    worker.wait_ready()
    until(lambda: "primary with no replicas, AOF with appendfsync everysec" in worker.text())
    with Gateway(Settings(redis_url=server.url, namespace=settings.namespace)) as gateway:
        sent = gateway.send(OutgoingMessage("15550001", "hi"))
        until(lambda: gateway.lookup(sent.id or "").state == State.SENT)


def test_a_redis_that_comes_and_cannot_be_used_ends_the_worker(
    start_worker: Callable[..., Any],
    until: Callable[..., None],
    redis_server: Callable[..., RedisServer],
) -> None:
    server = redis_server()
    server.stop()
    worker = start_worker(NULL, wait=False, SMSQUEUE_REDIS_URL=server.url)
    until(lambda: "waiting for it" in worker.text())
    server.options = ("--requirepass", SECRET)
    server.start()
    assert worker.process.wait(timeout=60) == 1
    assert "refuses the user or password: correct SMSQUEUE_REDIS_URL" in worker.text()


def test_a_redis_that_is_away_or_frozen_is_not_misconfigured(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for scheme in ("redis", "rediss"):
            for port in (silent.getsockname()[1], free_port()):
                url = f"{scheme}://127.0.0.1:{port}/0"
                with Gateway(Settings(redis_url=url)) as gateway:
                    with pytest.raises(exc.QueueUnavailable) as caught:
                        gateway.ping()
                    assert not isinstance(caught.value, RedisMisconfigured)


def test_a_worker_with_tls_verifies_and_works(
    start_worker: Callable[..., Any],
    until: Callable[..., None],
    redis_server: Callable[..., RedisServer],
    settings: Settings,
    tmp_path: Path,
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    proxy = TlsProxy(redis_server().port, authority)
    url = f"rediss://localhost:{proxy.port}/0?ssl_ca_certs={tmp_path}/ca.pem"
    worker = start_worker(NULL, SMSQUEUE_REDIS_URL=url)
    assert "insecure" not in worker.text()  # kombu's own default trusts any certificate
    with Gateway(Settings(redis_url=url, namespace=settings.namespace)) as gateway:
        sent = gateway.send(OutgoingMessage("15550001", "hi"))
        until(lambda: gateway.lookup(sent.id or "").state == State.SENT)


def test_the_broker_trusts_no_certificate_that_the_ledger_does_not_trust(
    redis_server: Callable[..., RedisServer],
) -> None:
    proxy = TlsProxy(redis_server().port, trustme.CA())
    queue = Queue(Settings(redis_url=f"rediss://localhost:{proxy.port}/0"))
    with pytest.raises(OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
        queue.app.connection().ensure_connection(max_retries=1, interval_start=0)
    queue.close()


@pytest.mark.parametrize("password", ["", "se/cret@1"])
def test_a_unix_socket_works_for_everything(
    password: str,
    start_worker: Callable[..., Any],
    until: Callable[..., None],
    redis_server: Callable[..., RedisServer],
    settings: Settings,
    tmp_path: Path,
) -> None:
    path = tmp_path / "r.sock"
    redis_server("--unixsocket", str(path), *(["--requirepass", password] if password else []))
    login = f":{quote(password, safe='')}@" if password else ""
    url = f"unix://{login}{path}?db=3"
    worker = start_worker(NULL, SMSQUEUE_REDIS_URL=url)
    with Gateway(Settings(redis_url=url, namespace=settings.namespace)) as gateway:
        sent = [gateway.send(OutgoingMessage("15550001", "hi")) for _ in range(3)]
        until(lambda: all(gateway.lookup(m.id or "").state == State.SENT for m in sent))
        assert gateway.ledger.redis.connection_pool.connection_kwargs["db"] == 3
        # The triggers went through the same database, not through upkeep after a minute.
        assert gateway.ledger.queued_triggers()[settings.send_queue] == 0
        until(lambda: bool(gateway.ledger.workers()))  # it has said that it lives
        environment = {"SMSQUEUE_REDIS_URL": url, "SMSQUEUE_NAMESPACE": settings.namespace}
        result = CliRunner().invoke(main, ["status"], env=environment | {"SMSQUEUE_EAGER": None})
        assert result.stdout.startswith("OK: "), result.output
    assert "cret" not in worker.text() + result.output


@pytest.mark.parametrize(
    "option", [["-P", "prefork"], ["--pool=prefork"], ["-P", "processes"], ["-P", "solo"]]
)
def test_a_pool_without_threads_is_refused(
    option: list[str], start_worker: Callable[..., Any]
) -> None:
    pool = option[-1].removeprefix("--pool=")
    worker = start_worker(NULL, *option, wait=False)
    assert worker.process.wait(timeout=60) == 1
    [line] = [each for each in worker.text().splitlines() if each.startswith("smsqueue: ")]
    name = "prefork" if pool == "processes" else pool
    assert f"the pool {name} does not work here" in line
    assert "Traceback" not in worker.text()


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_pool_that_a_program_chooses_is_refused(
    pool: str, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "app_sms.py").write_text(NULL)
    program = (
        f"from workers import app; app.conf.worker_pool = '{pool}'; app.worker_main(['worker'])"
    )
    environment = {
        "PYTHONPATH": str(ROOT),
        "SMSQUEUE_REDIS_URL": settings.redis_url,
        "SMSQUEUE_NAMESPACE": settings.namespace,
        "SMSQUEUE_GATEWAY": "app_sms:gateway",
    }
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert f"smsqueue: the pool {pool} does not work here" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_info_that_tells_less_raises_nothing(
    redis_server: Callable[..., RedisServer], settings: Settings
) -> None:
    server = redis_server()
    admin = redis_client.Redis.from_url(server.url)
    admin.execute_command("ACL SETUSER app on >pw ~* &* +@all -info")
    url = server.url.replace("//", "//app:pw@")
    with Gateway(Settings(redis_url=url, namespace=settings.namespace)) as gateway:
        assert gateway.check() == []
        for _ in range(64):  # some of these ask Redis how full it is
            gateway.send(OutgoingMessage("15550001", "hi"))
        assert gateway.ledger.server().max == 0
        assert b"smsqueue_redis_memory_max_bytes 0.0" in scrape(gateway.ledger)
        environment = {"SMSQUEUE_REDIS_URL": url, "SMSQUEUE_NAMESPACE": settings.namespace}
        for command in ("check", "status"):
            result = CliRunner().invoke(main, [command], env=environment | {"SMSQUEUE_EAGER": None})
            assert "Traceback" not in result.output
            assert isinstance(result.exception, SystemExit | None), result.exception
    admin.close()
