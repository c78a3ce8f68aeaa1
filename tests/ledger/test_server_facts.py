"""What is said of the Redis server: from INFO alone, if CONFIG or a part of INFO is forbidden."""

from __future__ import annotations

import logging
import socketserver
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from smsqueue import Gateway, Settings
from smsqueue.ledger import Ledger
from smsqueue.ledger.server_facts import Server
from smsqueue.logs import get_logger
from smsqueue.operation.redis_at_start import log_server

VALKEY = {
    "redis_version": "7.2.4",
    "server_name": "valkey",
    "valkey_version": "8.0.1",
    "used_memory": "1048576",
    "maxmemory": "4194304",
    "maxmemory_policy": "noeviction",
    "total_system_memory": "8388608",
    "aof_enabled": "1",
    "role": "master",
    "connected_slaves": "1",
}


class _Managed(socketserver.StreamRequestHandler):
    """Answers INFO, refuses CONFIG."""

    def handle(self) -> None:
        while header := self.rfile.readline():
            words = []
            for _ in range(int(header[1:])):
                words.append(self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2].upper())
            if words[0] == b"INFO":
                text = "".join(f"{k}:{v}\r\n" for k, v in self.server.info.items())  # type: ignore[attr-defined]
                self.wfile.write(f"${len(text)}\r\n{text}\r\n".encode())
            elif words[0] == b"CONFIG":
                self.server.refused += 1  # type: ignore[attr-defined]
                self.wfile.write(b"-ERR unknown command 'CONFIG'\r\n")
            elif words[0] == b"HELLO":
                self.wfile.write(b"%1\r\n$5\r\nproto\r\n:3\r\n")
            else:
                self.wfile.write(b"+PONG\r\n" if words[0] == b"PING" else b"+OK\r\n")


@pytest.fixture
def managed() -> Iterator[Callable[[dict[str, str]], Any]]:
    """Starts a server that answers INFO as given."""
    made: list[socketserver.ThreadingTCPServer] = []

    def start(info: dict[str, str]) -> Any:
        server: Any = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Managed)
        server.daemon_threads = True
        server.info, server.refused = info, 0
        made.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.settings = Settings(redis_url=f"redis://127.0.0.1:{server.server_address[1]}/0")
        return server

    yield start
    for server in made:
        server.shutdown()
        server.server_close()


def risks(server: Server, wait_replicas: int = 0) -> list[tuple[str, str]]:
    settings = Settings(redis_url="redis://x/0", wait_replicas=wait_replicas)
    where = f"{server.name} at redis://x/0 "
    return [(risk.level, risk.text.removeprefix(where)) for risk in server.risks(settings)]


def test_a_server_that_tells_everything(redis_server: Callable[..., Any]) -> None:
    options = ("--appendfsync", "always", "--maxmemory", "64mb")
    with Gateway(Settings(redis_url=redis_server(*options).url)) as gateway:
        server = gateway.ledger.server(configuration=True)
        assert server.free == 64 * 1024 * 1024 - server.used
        assert str(server).startswith(
            f"Redis {server.version}, primary with no replicas, AOF with appendfsync always, "
            "no RDB snapshots, eviction policy noeviction, "
        )
        assert " of 64.0 MB in use, " in str(server)
        assert risks(server) == []
        redis = gateway.ledger.redis
        redis.config_set("save", "60 1")
        assert ", RDB snapshots, " in str(gateway.ledger.server(configuration=True))
        redis.config_set("appendfsync", "everysec")
        assert [level for level, _ in risks(gateway.ledger.server(configuration=True))] == ["note"]
        assert gateway.check() == []
        redis.config_set("maxmemory-policy", "allkeys-lru")
        redis.config_set("maxmemory", 0)
        redis.config_set("appendonly", "no")
        assert risks(gateway.ledger.server(configuration=True)) == [
            ("problem", "has no AOF"),
            ("problem", "evicts keys when it is full (maxmemory-policy allkeys-lru)"),
            ("warning", "has no maxmemory"),
        ]
        assert len(gateway.check()) == 2


def test_valkey_without_config(managed: Callable[..., Any]) -> None:
    service = managed(VALKEY)
    ledger = Ledger(service.settings)
    for _ in range(2):
        server = ledger.server(configuration=True)
        assert str(server) == (
            "Valkey 8.0.1 (as Redis 7.2.4), primary with 1 replica, "
            "AOF with appendfsync unknown, RDB unknown, eviction policy noeviction, "
            "1.0 MB of 4.0 MB in use, 3.0 MB free"
        )
    assert "primary with 1 replica, AOF, eviction" in str(ledger.server())
    assert risks(server, 1)[0][0] == "note"
    assert risks(server, 2)[0] == ("problem", "has 1 of 2 replicas")
    assert service.refused == 2  # appendfsync and save, once: ACL LOG would fill
    assert risks(server) == [("note", "does not tell its appendfsync, as CONFIG is not allowed")]
    ledger.close()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"redis_version": "6.0.16"}, ("problem", "is version 6.0.16")),
        ({"aof_last_write_status": "err"}, ("problem", "cannot write its AOF")),
        ({"aof_last_bgrewrite_status": "err"}, ("warning", "could not rewrite its AOF")),
        ({"rdb_last_bgsave_status": "err"}, ("warning", "could not write its last snapshot")),
        (
            {"maxmemory": str(16 << 20)},
            ("warning", "has a maxmemory of 16.0 MB, more than its machine has"),
        ),
    ],
)
def test_what_breaks_a_promise(
    managed: Callable[..., Any], changed: dict[str, str], expected: tuple[str, str]
) -> None:
    ledger = Ledger(managed(VALKEY | changed).settings)
    assert risks(ledger.server(configuration=True))[0] == expected
    ledger.close()


def test_what_is_not_told_is_unknown(managed: Callable[..., Any]) -> None:
    ledger = Ledger(managed({}).settings)
    server = ledger.server(configuration=True)
    assert str(server) == (
        "Redis, version unknown, role unknown, AOF unknown, RDB unknown, eviction policy unknown, "
        "memory unknown"
    )
    assert risks(server) == [
        ("note", "does not tell its version, AOF, eviction policy, maxmemory, role")
    ]
    assert (server.aof, server.policy, server.free) == (None, None, None)
    ledger.close()


def test_only_the_first_process_that_starts_logs_the_warnings(
    redis_server: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    url = redis_server("--appendonly", "no", "--maxmemory", "64mb").url
    for warned in (True, False):
        caplog.clear()
        with Gateway(Settings(redis_url=url)) as gateway:
            log_server(get_logger("smsqueue.worker"), gateway.ledger)
        line, *warnings = [(r.levelname, r.getMessage()) for r in caplog.records]
        assert line[0] == "INFO"
        assert line[1].startswith(f"{url}: Redis ")
        assert line[1].endswith("; 1 warning, see smsqueue check")
        assert [text.partition(": ")[0] for _, text in warnings] == (
            [f"Redis at {url} has no AOF"] if warned else []
        )
