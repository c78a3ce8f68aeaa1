"""What it costs that a replica confirms: SMSQUEUE_WAIT_REPLICAS=1 beside 0, on the same servers."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator

from benchmarks.measured_figures import Figure, alternate, compared
from benchmarks.sending import messages
from benchmarks.stage import Stage
from smsqueue import Gateway
from smsqueue.ledger import GROUP_LIMIT, AttemptOutcome, Claiming, Ledger, Settlement
from smsqueue.message.ids import new_token
from smsqueue.settings import Settings
from smsqueue.stack import ReplicatedRedis

__all__ = ["measure_replication"]


def measure_replication(stage: Stage) -> Iterator[Figure]:
    """``send``, ``send_many``, and the groups of a worker, on a primary with two replicas.

    All servers run on this machine, so the network adds nothing: add its round trip from the
    primary to the faster replica.
    """
    with ReplicatedRedis(stage.folder / "replicated", "--appendfsync", "everysec") as servers:
        settings = [
            Settings(redis_url=servers.url, namespace=f"wait{replicas}", wait_replicas=replicas)
            for replicas in (1, 0)
        ]
        with Gateway(settings[0]) as confirmed, Gateway(settings[1]) as plain:
            yield _send(stage, confirmed, plain)
            yield _per_message(
                "send_many, confirmed",
                "send_many, 64 messages in each call of Redis",
                stage,
                lambda gateway, count, first: _send_many(gateway, count, first),
                confirmed,
                plain,
            )
            yield _per_message(
                "claim and settle, confirmed",
                "groups of 64, as in a busy worker",
                stage,
                lambda gateway, count, first: _work(gateway, count),
                confirmed,
                plain,
            )


def _send(stage: Stage, confirmed: Gateway, plain: Gateway) -> Figure:
    rounds, per_round = stage.size(9, 3), stage.size(400, 200)
    found: list[tuple[float, float]] = []
    for i in range(-1, rounds):  # the first one warms up
        stage.told(f"send, round {i + 1} of {rounds}")
        ours, bare = messages(per_round), messages(per_round)
        pair = alternate(
            per_round,
            lambda n, ours=ours: confirmed.send(ours[n]),  # type: ignore[misc]
            lambda n, bare=bare: plain.send(bare[n]),  # type: ignore[misc]
        )
        found += [pair] if i >= 0 else []
    return compared(
        "replication",
        "send(), confirmed",
        "p50 with SMSQUEUE_WAIT_REPLICAS=1, beside 0",
        "us",
        found,
        at_most=2.0,
        notes={"calls": rounds * per_round},
    )


def _per_message(
    title: str,
    what: str,
    stage: Stage,
    run: Callable[[Gateway, int, int], float],
    confirmed: Gateway,
    plain: Gateway,
) -> Figure:
    rounds, count = stage.size(9, 3), 2000
    found: list[tuple[float, float]] = []
    for i in range(rounds):
        stage.told(f"{title}, round {i + 1} of {rounds}")
        order = (confirmed, plain) if i % 2 else (plain, confirmed)
        took = {gateway: run(gateway, count, i * count) / count * 1e6 for gateway in order}
        found.append((took[confirmed], took[plain]))
    return compared(
        "replication", title, f"per message, {what}", "us", found, at_most=2.0, notes={}
    )


def _send_many(gateway: Gateway, count: int, first: int) -> float:
    batch = messages(count, first)
    gc.collect()
    began = time.perf_counter()
    gateway.send_many(batch)
    return time.perf_counter() - began


def _work(gateway: Gateway, count: int) -> float:
    """Seconds in which messages are claimed and settled."""
    ids = [message.id or "" for message in gateway.send_many(messages(count))]
    with_timeout = Ledger(gateway.settings, timeout=10.0)
    outcome = AttemptOutcome("sent", provider="p", msgid='"m"', msgids=("m",))
    gc.collect()
    began = time.perf_counter()
    for start in range(0, count, GROUP_LIMIT):
        tokens = {id: new_token() for id in ids[start : start + GROUP_LIMIT]}
        with_timeout.claim_many(
            [Claiming(id, token, 60, "w", "p", 60, False) for id, token in tokens.items()]
        )
        with_timeout.settle_many(
            [Settlement(id, token, 1, outcome) for id, token in tokens.items()]
        )
    took = time.perf_counter() - began
    with_timeout.close()
    return took
