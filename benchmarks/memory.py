"""What messages take in Redis's memory and in its append-only file, from waiting to delivered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from benchmarks.measured_figures import Figure
from benchmarks.sending import messages
from benchmarks.stage import Stage, connected
from smsqueue import Gateway, IProvider, OutgoingMessage
from smsqueue.delivery import Delivery, Slots
from smsqueue.delivery.event_runner import EventRunner
from smsqueue.message.ids import new_id
from smsqueue.message.statuses import MessageAccepted, MessageDelivered
from smsqueue.settings import Settings
from smsqueue.stack import RedisServer

__all__ = ["measure_memory"]

#: Bytes that a final message should take at most.
BYTES = 1500


class _Carrier(IProvider):
    """Takes everything, as a carrier with ids of 34 characters does."""

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        message.msgid = f"SM{new_id()}0123456789ab"
        return message


def measure_memory(stage: Stage) -> Iterator[Figure]:
    """Messages with a text of 100 characters: without reports, and with two; records packed, as
    shipped, and as Redis keeps them by default."""
    many = stage.size(10_000, 2000)
    for packed in (True, False):
        for reports in (0, 2):
            stage.told(f"{many} messages with {reports} reports")
            options = () if packed else ("--hash-max-ziplist-value", "64")
            server = stage.redis(f"{'packed' if packed else 'default'}-{reports}", *options)
            found = _measure(server, stage.folder, many, reports)
            kept = "" if packed else ", Redis's default"
            yield Figure(
                f"memory_{reports}_reports{'' if packed else '_default'}",
                f"memory, {reports} reports{kept}",
                "Redis memory per final message, hooks done; at its peak all events wait",
                "B",
                ours=found["final"],
                bare=None,
                value=found["final"],
                low=found["final"],
                high=found["final"],
                target=BYTES,
                at_most=True,
                notes=found | {"messages": many},
            )


def _measure(server: RedisServer, folder: Path, many: int, reports: int) -> dict[str, Any]:
    client = connected(server)
    settings = Settings(redis_url=server.url)
    with Gateway(settings) as gateway:
        gateway.add_provider("main", _Carrier)
        gateway.onSend.connect(_ignore, name="shop.sms:on_send")
        gateway.onStatus.connect(_ignore, name="shop.sms:on_status")
        delivery = Delivery(gateway, gateway.ledger, gateway.queue, Slots(4), "celery@a")
        hooks = EventRunner(gateway, gateway.ledger, "celery@a", gateway.retry)

        def finish(batch: list[OutgoingMessage], found: dict[str, Any]) -> None:
            for message in batch:
                message.options(status_report=bool(reports))
            ids = [message.id or "" for message in gateway.send_many(batch)]
            found["waiting"] = used()
            for id in ids:
                delivery.deliver(id)
            kinds = (MessageAccepted, MessageDelivered)[:reports]
            for kind in kinds:
                for id in ids:
                    status = kind(gateway.lookup(id).msgid)
                    status.provider, status.reference = "main", f"{id}.1"
                    gateway.receive_status(status)
            found["peak"] = used()
            lanes = [f"{settings.namespace}:due:{lane}" for lane in ("hook", "hook_bulk")]
            events: Any = client.zunion(lanes)
            for event in events:
                hooks.run(event)
            found["final"] = used()

        def used() -> int:
            client.delete(settings.send_key, settings.hook_key)  # triggers are few in real life
            return _used(client)

        finish(messages(20, 9_000_000), {})  # scripts and bindings are there from now on
        before, wrote = used(), _aof(client)
        found: dict[str, Any] = {}
        finish(messages(many), found)
        each = {name: round((value - before) / many) for name, value in found.items()}
        each["written to the AOF"] = round((_aof(client) - wrote) / many)
        client.bgrewriteaof()
        _used(client)
        each["AOF after its rewrite"] = round(_aof(client) / many)
        return each


def _ignore(event: object) -> None:
    pass


def _used(client: redis.Redis) -> int:
    info: Any = client.info()
    while info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"]:
        info = client.info()
    return int(info["used_memory"]) - int(info.get("mem_not_counted_for_evict", 0))


def _aof(client: redis.Redis) -> int:
    info: Any = client.info("persistence")
    return int(info["aof_current_size"])
