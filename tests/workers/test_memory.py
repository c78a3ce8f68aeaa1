"""A Redis without memory for more: what was accepted is finished all the same, by real workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smsqueue import Gateway, OutgoingMessage, Settings, exc
from smsqueue.message.states import EventState, State
from smsqueue.message.statuses import MessageAccepted, MessageDelivered
from tests.conftest import RedisServer

#: A carrier that refuses each tenth message once, and everything while the file "down" exists. The
#: handlers write down what they were called with.
APP = """
from pathlib import Path
from smsqueue import Gateway, IProvider, exc

class Carrier(IProvider):
    def send(self, message):
        if Path("down").exists():
            with open("refused", "a") as refused:
                refused.write(message.reference + "\\n")
            raise exc.ServerError("the service is not available", code="E503")
        if message.dst.endswith("7") and message.reference.endswith(".1"):
            raise exc.ServerError("try again", code="E500")
        message.msgid = "carrier-" + message.reference
        return message

def sent(message):
    with open("sent", "a") as lines:
        lines.write(message.id + "\\n")

def reported(status):
    with open("reported", "a") as lines:
        lines.write(f"{status.id} {status.state}\\n")

gateway = Gateway()
gateway.add_provider("carrier", Carrier)
gateway.onSend.connect(sent, name="sent")
gateway.onStatus.connect(reported, name="reported")
"""

#: Ends that need no operator.
OPEN = (State.QUEUED, State.SCHEDULED, State.RETRYING, State.SENDING)


class Shop:
    """An application that sends until it is refused, and its carrier's webhooks."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.gateway = Gateway(settings)
        # So that reports find their messages by our reference, as a carrier's webhooks do.
        self.accepted: list[str] = []

    def fill(self) -> None:
        """Send 500 at a time until Redis refuses more."""
        refusal = None
        while refusal is None:
            first = len(self.accepted)
            batch = [
                OutgoingMessage(f"1555{first + n:07}", "x" * 100).options(status_report=True)
                for n in range(500)
            ]
            try:
                self.gateway.send_many(batch)
            except exc.QueueUnavailable as error:
                batch, refusal = error.accepted, str(error)
            self.accepted += [message.id or "" for message in batch]
        assert "nearly full" in refusal
        assert "Raise maxmemory" in refusal

    def report(self) -> None:
        """The carrier reports each message twice."""
        for id in self.accepted:
            attempt = self.gateway.lookup(id).attempts
            for kind in (MessageAccepted, MessageDelivered):
                status = kind(f"carrier-{id}.{attempt}")
                status.provider, status.reference = "carrier", f"{id}.{attempt}"
                self.gateway.receive_status(status)

    def counts(self) -> dict[str, int]:
        return self.gateway.ledger.counts()

    def info(self, name: str) -> int:
        info: Any = self.gateway.ledger.redis.info("memory")
        return int(info[name])

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().split("\n")[:-1] if path.exists() else []


@pytest.fixture
def shop(settings: Settings, tmp_path: Path) -> Iterator[Callable[..., Shop]]:
    made: list[Shop] = []

    def make(server: RedisServer, **changed: float) -> Shop:
        made.append(Shop(replace(settings, redis_url=server.url, **changed), tmp_path))
        return made[-1]

    yield make
    for each in made:
        each.gateway.close()


def _started(start_worker: Any, shop: Shop, *options: str) -> Any:
    grace = str(shop.settings.grace)
    return start_worker(
        APP, *options, SMSQUEUE_REDIS_URL=shop.settings.redis_url, SMSQUEUE_GRACE=grace
    )


def test_when_redis_refuses_new_messages_accepted_ones_are_finished(
    redis_server: Callable[..., RedisServer],
    shop: Callable[..., Shop],
    start_worker: Any,
    until: Any,
) -> None:
    """The hardest order: all of them wait, then all of their events wait."""
    it = shop(redis_server("--maxmemory", "10mb", "--hash-max-ziplist-value", "64"))
    it.fill()
    many = len(it.accepted)
    assert many > 300
    send = _started(start_worker, it, "-Q", it.settings.send_queue)
    until(lambda: it.counts()[State.SENT] == many, 240)
    it.report()
    assert it.counts()[State.DELIVERED] == many
    assert it.counts()[EventState.WAITING] == 3 * many
    assert it.info("used_memory_peak") < it.info("maxmemory")
    hook = _started(start_worker, it, "-Q", it.settings.hook_queue)
    until(lambda: len(it.lines("reported")) >= 2 * many, 240)
    until(lambda: not it.gateway.ledger.backlog()["hook"].held)
    assert sorted(set(it.lines("sent"))) == sorted(it.accepted)
    ends = {f"{id} {state}" for id in it.accepted for state in ("accepted", "delivered")}
    assert set(it.lines("reported")) == ends
    for worker in (send, hook):
        assert "OOM" not in worker.text()
        assert "maxmemory" not in worker.text()
    # What is finished needs less than was reserved for it: there is room again.
    assert it.gateway.send(OutgoingMessage("15550001", "room again")).id


def test_a_provider_is_down_while_redis_refuses_new_messages(
    redis_server: Callable[..., RedisServer],
    shop: Callable[..., Shop],
    start_worker: Any,
    until: Any,
) -> None:
    it = shop(redis_server("--maxmemory", "10mb"))
    down = it.folder / "down"
    down.touch()
    worker = _started(start_worker, it)
    it.fill()
    # Some messages have met the outage, and the carrier is paused.
    until(lambda: len(it.lines("refused")) >= 3)
    it.fill()
    many = len(it.accepted)
    assert many > 300
    down.unlink()
    until(lambda: it.counts()[State.SENT] == many, 240)
    it.report()
    until(lambda: not it.gateway.ledger.backlog()["hook"].held, 240)
    counts = it.counts()
    assert counts[State.DELIVERED] == many
    assert sum(counts[state] for state in OPEN) == 0
    assert sorted(set(it.lines("sent"))) == sorted(it.accepted)
    assert it.info("used_memory_peak") < it.info("maxmemory")
    assert "OOM" not in worker.text()


def test_redis_is_full_of_something_else_and_accepted_messages_are_finished(
    redis_server: Callable[..., RedisServer],
    shop: Callable[..., Shop],
    start_worker: Any,
    until: Any,
) -> None:
    """Another application uses up all memory: Redis refuses the broker's commands too, and a worker
    that starts now does its work."""
    it = shop(redis_server(), grace=3.0)
    for n in range(50):
        message = OutgoingMessage(f"1555{n:07}", "hello").options(status_report=True)
        it.accepted.append(it.gateway.send(message).id or "")
    # Their triggers were lost: upkeep has to publish them.
    redis = it.gateway.ledger.redis
    redis.delete(it.settings.send_key)
    redis.zadd(f"{it.settings.namespace}:due:send", dict.fromkeys(it.accepted, 1), xx=True)
    redis.config_set("maxmemory", 1)
    with pytest.raises(exc.QueueUnavailable, match="maxmemory"):
        it.gateway.send(OutgoingMessage("15550001", "no"))
    _started(start_worker, it)
    until(lambda: it.counts()[State.SENT] == 50)
    it.report()
    until(lambda: len(it.lines("reported")) >= 100)
    until(lambda: not it.gateway.ledger.backlog()["hook"].held)
    assert sorted(set(it.lines("sent"))) == sorted(it.accepted)
