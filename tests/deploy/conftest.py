from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deploy.compose import Compose, Variables

#: What has to be set. The prefix is one that a public gateway could have.
VARIABLES = {
    "SMSQUEUE_RECEIVER_PREFIX": "k3-Zx_9",
    "FLOWER_BASIC_AUTH": "ann:s3cret",
    "REDIS_PASSWORD_WORKER": "worker-0123456789-0123456789",
    "REDIS_PASSWORD_RECEIVERS": "receivers-0123456789-0123456789",
    "REDIS_PASSWORD_FLOWER": "flower-0123456789-0123456789",
}
#: What ``smsqueue acl`` needs beside them.
PASSWORDS = {
    f"REDIS_PASSWORD_{role}": f"{role.lower()}-0123456789-0123456789"
    for role in ("SENDER", "OPERATOR", "MONITOR", "ADMIN")
}
#: Of the sets of services that share a Redis here.
NAMESPACES = ("sms", "other", "logs", "rolling")
#: What may be set.
TOKEN = {"SMSQUEUE_METRICS_TOKEN": "t0ken-of-metrics"}

Make = Callable[..., Compose]


@pytest.fixture(scope="session")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """Every service of docker-compose.yml, as it stands."""
    made = Compose(tmp_path_factory.mktemp("compose"), VARIABLES | TOKEN)
    try:
        made.write_accounts(NAMESPACES, VARIABLES | PASSWORDS)
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def another(compose: Compose, tmp_path: Path) -> Iterator[Make]:
    """Makes further sets of services, which share the first one's Redis and simulator."""
    made: list[Compose] = []
    shared = {k: port for k, port in compose.ports.items() if k[0] in ("redis", "simulator")}

    def make(**variables: str) -> Compose:
        given: Variables = VARIABLES | variables
        made.append(Compose(tmp_path / str(len(made)), given, shared))
        return made[-1]

    yield make
    for each in made:
        each.stop()
