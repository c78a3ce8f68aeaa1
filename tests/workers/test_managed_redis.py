"""A server without the commands that managed services block: see docs/deploy/managed-redis.md."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import CliRunner

from smsqueue import Gateway, OutgoingMessage, Settings
from smsqueue.cli import main
from smsqueue.message.states import State
from tests.conftest import RedisServer
from tests.workers.conftest import Worker, until

#: By service, as its documentation lists them; subcommands cannot be blocked here.
BLOCKED = {
    "elasticache": "bgrewriteaof bgsave config debug migrate replicaof save slaveof sync",
    "memorystore": (
        "acl bgrewriteaof bgsave client cluster command config debug lastsave migrate monitor "
        "object replicaof save"
    ),
    "aiven": (
        "bgrewriteaof cluster command debug failover migrate slaveof acl bgsave config lastsave "
        "monitor replicaof save"
    ),
}
NULL = """
from smsqueue import Gateway
from smsqueue.providers import NullProvider
gateway = Gateway()
gateway.add_provider("null", NullProvider)
"""


@pytest.mark.parametrize("service", BLOCKED)
def test_everything_works_without_the_commands_that_a_service_blocks(
    service: str,
    redis_server: Callable[..., RedisServer],
    start_worker: Callable[..., Worker],
    settings: Settings,
) -> None:
    options = [part for name in BLOCKED[service].split() for part in ("--rename-command", name, "")]
    server = redis_server(*options)
    worker = start_worker(NULL, SMSQUEUE_REDIS_URL=server.url)
    ours = Settings(redis_url=server.url, namespace=settings.namespace)
    with Gateway(ours) as gateway:
        sent = gateway.send(OutgoingMessage("15550001", "hi"))
        gateway.send_many(OutgoingMessage("15550001", str(number)) for number in range(20))
        until(lambda: gateway.lookup(sent.id or "").state == State.SENT)
        until(lambda: gateway.ledger.counts()["sent"] == 21)
    environment = {
        "SMSQUEUE_REDIS_URL": server.url,
        "SMSQUEUE_NAMESPACE": settings.namespace,
        "SMSQUEUE_EAGER": "0",
    }
    status = CliRunner().invoke(main, ["status"], env=environment)
    assert status.stdout.startswith("OK: "), status.output
    check = CliRunner().invoke(main, ["check"], env=environment)
    assert "ok       redis" in check.output, check.output
    assert worker is not None
