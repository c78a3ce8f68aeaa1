"""A ``rediss://`` Redis with a wrong certificate gets not one byte from any process."""

from __future__ import annotations

import datetime
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner

from receivers import create_app
from smsqueue import Gateway, OutgoingMessage, Settings, exc
from smsqueue.broker.queue import DELIVER, Queue
from smsqueue.cli import main
from smsqueue.message.states import State
from smsqueue.providers import NullProvider
from smsqueue.settings import SettingsError
from tests.conftest import RedisServer
from tests.workers.conftest import Worker, until
from tests.workers.test_refused import TlsProxy

ROOT = Path(__file__).parents[2]
NULL = """
from smsqueue import Gateway
from smsqueue.providers import NullProvider
gateway = Gateway()
gateway.add_provider("null", NullProvider)
"""
PROCESSES = ("send", "broker", "receivers", "check", "status", "worker", "flower", "inspect")
COMMANDS = {
    "worker": ["worker", "--without-gossip", "--without-mingle"],
    "flower": ["flower", "--address=127.0.0.1", "--port=0"],
    "inspect": ["inspect", "ping", "--timeout=1"],
}


class Impostor:
    """Listens where Redis should be, with a certificate of its own; keeps all that it is sent."""

    def __init__(self, certificate: trustme.LeafCert) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self.context)
        self.received = b""
        self.handshakes = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"rediss://user:hush@localhost:{self.listener.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, self.context.wrap_socket(connection, server_side=True) as here:
                while data := here.recv(65536):
                    self.received += data
                    here.sendall(b"-ERR no\r\n")
        except OSError:
            pass
        finally:
            self.handshakes += 1


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return made


@pytest.fixture(params=["foreign", "wrong host", "expired"])
def impostor(request: pytest.FixtureRequest, authority: trustme.CA) -> Iterator[Impostor]:
    now = datetime.datetime.now(datetime.UTC)
    match request.param:
        case "foreign":
            certificate = trustme.CA().issue_cert("localhost")
        case "wrong host":
            certificate = authority.issue_cert("redis.example.org")
        case _:
            past = now - datetime.timedelta(days=1)
            certificate = authority.issue_cert("localhost", not_after=past)
    made = Impostor(certificate)
    yield made
    made.listener.close()


def _run(process: str, impostor: Impostor, environment: dict[str, str], folder: Path) -> None:
    """Let a process try to use Redis."""
    settings = Settings(
        redis_url=environment["SMSQUEUE_REDIS_URL"],
        redis_ca=environment.get("SMSQUEUE_REDIS_CA", ""),
        receiver_prefix=("a-long-prefix",),
    )
    gateway = Gateway(settings)
    gateway.add_provider("null", NullProvider)
    match process:
        case "send":
            with pytest.raises(exc.QueueUnavailable):
                gateway.send(OutgoingMessage("15550001", "hi"))
        case "broker":
            queue = Queue(settings)
            with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
                queue.app.send_task(DELIVER, args=("m",), retry=False)
            queue.deliver([("m", 0)])
            queue.close()
        case "receivers":
            assert create_app(gateway=gateway).test_client().get("/readyz").status_code == 503
        case "check" | "status":
            result = CliRunner().invoke(main, [process], env=environment)
            assert result.exit_code in (1, 2)
            assert "not trusted" in result.output or "cannot be used" in result.output
        case _:
            (folder / "app_sms.py").write_text(NULL)
            log = (folder / "process.log").open("wb")
            running = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "workers", *COMMANDS[process]],
                cwd=folder,
                env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
            try:
                until(
                    lambda: (
                        running.poll() is not None
                        or impostor.handshakes > 2
                        or b"AUTH" in impostor.received
                    )
                )
            finally:
                running.send_signal(signal.SIGKILL)
                running.wait()
                log.close()
    gateway.close()


@pytest.mark.parametrize(
    ("process", "place"),
    [*((process, "setting") for process in PROCESSES), ("send", "url"), ("broker", "url")],
)
def test_nothing_is_sent_to_a_redis_whose_certificate_is_wrong(
    process: str, place: str, impostor: Impostor, tmp_path: Path
) -> None:
    environment = {
        "SMSQUEUE_REDIS_URL": impostor.url,
        "SMSQUEUE_GATEWAY": "app_sms:gateway",
        "SMSQUEUE_EAGER": "0",
    }
    if place == "url":
        environment["SMSQUEUE_REDIS_URL"] += f"?ssl_ca_certs={tmp_path}/ca.pem"
    else:
        environment["SMSQUEUE_REDIS_CA"] = f"{tmp_path}/ca.pem"
    _run(process, impostor, environment, tmp_path)
    until(lambda: impostor.handshakes > 0)
    assert impostor.received == b""


@pytest.mark.parametrize("process", COMMANDS)
def test_a_process_logs_in_where_the_certificate_is_right(
    process: str, authority: trustme.CA, tmp_path: Path
) -> None:
    impostor = Impostor(authority.issue_cert("localhost"))
    environment = {
        "SMSQUEUE_REDIS_URL": impostor.url,
        "SMSQUEUE_REDIS_CA": f"{tmp_path}/ca.pem",
        "SMSQUEUE_GATEWAY": "app_sms:gateway",
    }
    _run(process, impostor, environment, tmp_path)
    assert b"AUTH" in impostor.received


@pytest.mark.parametrize(
    "query",
    [
        "ssl_cert_reqs=required&ssl_cert_reqs=none",
        "ssl_check_hostname=true&ssl_check_hostname=false",
        "ssl_check_hostname=T",
        "ssl_cert_reqs=optional",
    ],
)
def test_the_broker_reads_the_address_as_the_ledger_does(query: str, authority: trustme.CA) -> None:
    impostor = Impostor(authority.issue_cert("redis.example.org"))
    settings = Settings(redis_url=f"{impostor.url}?{query}")
    assert not settings.unverified_tls
    queue = Queue(settings)
    with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
        queue.app.send_task(DELIVER, args=("m",), retry=False)
    queue.close()
    assert impostor.received == b""


@pytest.mark.parametrize("query", ["ssl_cert_reqs=none", "ssl_check_hostname=false"])
def test_check_warns_of_tls_that_is_not_verified(query: str, authority: trustme.CA) -> None:
    impostor = Impostor(authority.issue_cert("localhost"))
    environment = {"SMSQUEUE_REDIS_URL": f"{impostor.url}?{query}", "SMSQUEUE_EAGER": "0"}
    result = CliRunner().invoke(main, ["check"], env=environment)
    assert f"warning  redis      {query} in SMSQUEUE_REDIS_URL lets others" in result.output
    safe = CliRunner().invoke(
        main, ["check"], env=environment | {"SMSQUEUE_REDIS_URL": impostor.url}
    )
    assert "in SMSQUEUE_REDIS_URL lets others" not in safe.output


def test_unverified_tls_works_where_it_is_asked_for() -> None:
    impostor = Impostor(trustme.CA().issue_cert("localhost"))
    queue = Queue(Settings(redis_url=f"{impostor.url}?ssl_cert_reqs=none"))
    with pytest.raises(Exception, match="no"):
        queue.app.send_task(DELIVER, args=("m",), retry=False)
    queue.close()
    assert b"AUTH" in impostor.received


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://h/0", "does not use TLS: write rediss://"),
        ("rediss://h/0?ssl_ca_certs=/ca.pem", "remove one of them"),
    ],
)
def test_a_ca_that_would_not_count_is_refused(url: str, text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        Settings(redis_url=url, redis_ca="/ca.pem")
    with pytest.raises(SettingsError, match="ssl_check_hostname must be true or false"):
        Settings(redis_url="rediss://h/0?ssl_check_hostname=off")


def test_every_process_works_with_a_private_authority_in_the_setting(
    authority: trustme.CA,
    redis_server: Callable[..., RedisServer],
    start_worker: Callable[..., Worker],
    settings: Settings,
    tmp_path: Path,
) -> None:
    proxy = TlsProxy(redis_server().port, authority)
    url, file = f"rediss://localhost:{proxy.port}/0", f"{tmp_path}/ca.pem"
    start_worker(NULL, SMSQUEUE_REDIS_URL=url, SMSQUEUE_REDIS_CA=file)
    ours = Settings(
        redis_url=url,
        redis_ca=file,
        namespace=settings.namespace,
        receiver_prefix=("a-long-prefix",),
    )
    environment = {
        "SMSQUEUE_REDIS_URL": url,
        "SMSQUEUE_REDIS_CA": file,
        "SMSQUEUE_NAMESPACE": settings.namespace,
        "SMSQUEUE_EAGER": "0",
    }
    with Gateway(ours) as gateway:
        sent = gateway.send(OutgoingMessage("15550001", "hi"))
        until(lambda: gateway.lookup(sent.id or "").state == State.SENT)
        assert create_app(gateway=gateway).test_client().get("/readyz").status_code == 200
    assert CliRunner().invoke(main, ["status"], env=environment).stdout.startswith("OK: ")
    answered = subprocess.run(
        [
            *(sys.executable, "-m", "celery", "-A", "workers", "inspect", "ping"),
            # It waits no longer than until this one has answered.
            *(f"--destination=celery@{socket.gethostname()}", "--timeout=30"),
        ],
        env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "pong" in answered.stdout, answered.stderr


@pytest.mark.parametrize(
    ("fault", "command"),
    [
        ("missing", ["list"]),
        ("closed port", ["check"]),
        ("no certificate", ["send", "+15551234567", "hello"]),
        ("plain port", ["send", "+15551234567", "hello"]),
    ],
)
def test_every_command_says_what_is_wrong_with_tls(
    fault: str, command: list[str], redis_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    environment = {"SMSQUEUE_REDIS_URL": redis_url.replace("redis:", "rediss:", 1)}
    if fault != "plain port":
        environment["SMSQUEUE_REDIS_CA"] = str(file)
    if fault == "closed port":
        environment["SMSQUEUE_REDIS_URL"] = "rediss://127.0.0.1:1/0"
    if fault == "no certificate":
        file.write_text("nothing")
    says = {
        "no certificate": f"needs {file}, which cannot be read (no certificate is in it)",
        "plain port": "does not speak TLS at this port: write redis://",
    }
    result = CliRunner().invoke(main, command, env=environment)
    assert result.exit_code == 1
    missing = f"needs {file}, which cannot be read (No such file or directory)"
    assert says.get(fault, missing) in result.output
    assert "may be queued" not in result.output
