"""A backlog is records in Redis and nothing else: it costs workers no memory, the broker's queue
stays short, nothing is triggered twice, and a fresh single message need not wait for it.

A third of it waits for a provider that throttles, a third for one that is slow, and a third has
been refused, or will be, and is retried.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from smsqueue import IncomingMessage, OutgoingMessage
from tests.chaos.conftest import ROUNDS
from tests.chaos.figures import add_figures
from tests.chaos.invariants import LANES, STATES, check
from tests.chaos.load import come_in, send, send_many
from tests.chaos.rig import Rig, until

if TYPE_CHECKING:
    from smsqueue import Gateway

#: The second backlog is ten times the first. Each is watched for so many seconds.
MESSAGES, SECONDS = (200_000, 180) if ROUNDS else (4_000, 3)
#: Incoming messages that wait for slow handlers.
EVENTS = 20_000 if ROUNDS else 4_000
#: What a worker may grow by as it works on, whatever waits.
GROWTH_KIB = 20_000
WAITING = [state for state, lane in LANES.items() if lane == "send"]


def _slow(message: IncomingMessage) -> None:
    time.sleep(0.05)


def __getattr__(name: str) -> Gateway:
    """``gateway``: what the workers load that are to have a backlog of events."""
    if name != "gateway":
        raise AttributeError(name)
    from tests.chaos.plain import gateway

    gateway.onReceive += _slow
    globals()["gateway"] = gateway
    return gateway


class _Watch:
    """Looks at the queue and the workers all the time, while its block runs."""

    def __init__(self, rig: Rig, queue: str = "") -> None:
        self.rig, self.key = rig, queue or rig.settings.send_key
        #: The longest queue, triggers that were in it twice, the most memory of a worker (KiB).
        self.queue = self.doubled = self.memory = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._over.wait(0.1):
            triggers = self.rig.direct.lrange(self.key, 0, -1)
            ids = [id for each in triggers for id in _ids(each)]
            self.queue = max(self.queue, len(triggers))
            self.doubled += len(ids) - len(set(ids))
            self.memory = max(self.memory, *(_memory(worker.pid) for worker in self.rig.workers))

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        assert self._thread.is_alive(), "nobody was looking"
        self._over.set()
        self._thread.join()


def _ids(trigger: str) -> list[str]:
    """What a trigger carries: one id or many."""
    (argument,), _, _ = json.loads(base64.b64decode(json.loads(trigger)["body"]))
    return [argument] if isinstance(argument, str) else list(argument)


def _memory(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def _backlog(rig: Rig, count: int) -> None:
    made = [OutgoingMessage(f"1555{n}", "late").route("abc"[n % 3]) for n in range(count)]
    send_many(rig, made)


def _ahead(rig: Rig, account: str) -> int:
    """How many others come to the provider between the sending of a single message and it."""
    before = len(rig.asked())
    id = send(rig, OutgoingMessage("15550", "accept").route(account))
    until(lambda: any(line["id"] == id for line in rig.asked()), what="the single message")
    return [line["id"] for line in rig.asked()[before:]].index(str(id))


def _counted(rig: Rig) -> int:
    """All that was sent is in one state, and looked at if it waits; how many do."""
    pipe = rig.direct.pipeline()  # in one moment
    for place in (*(f"state:{state}" for state in STATES), "due:send", "due:send_bulk"):
        pipe.zrange(rig.key(*place.split(":")), 0, -1)
    *states, single, bulk = pipe.execute()
    due = {*single, *bulk}
    assert sorted(rig.book.sent) == sorted(id for ids in states for id in ids)
    waiting = [
        id for state, ids in zip(STATES, states, strict=True) if state in WAITING for id in ids
    ]
    assert sorted(waiting) == sorted(due)
    took = Counter(line["id"] for line in rig.asked() if line["took"])
    assert not took or max(took.values()) == 1
    return len(waiting)


def test_a_backlog_is_records_only(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(plain=True, environment={"CHAOS_PROVIDERS": "a,b,c,d"})
    rig.tell("a", "limit")
    rig.tell("c", "busy")
    with _Watch(rig) as few:
        _backlog(rig, MESSAGES // 10)
        until(lambda: len(rig.asked()) > 100, what="work with all threads")
        time.sleep(SECONDS)  # what is promised is that nothing happens
    with _Watch(rig) as many:
        _backlog(rig, MESSAGES)
        ahead = [_ahead(rig, account) for account in "bd"]
        time.sleep(SECONDS)
    waiting = _counted(rig)
    needless = [line for line in rig.heard() if line["kind"] == "needless"]
    grown = many.memory - few.memory
    add_figures(
        test="backlog", messages=MESSAGES, waiting=waiting, longest_queue=many.queue, ahead=ahead,
        doubled=few.doubled + many.doubled, needless=len(needless), memory_kib=many.memory,
        grown_kib=grown,
    )  # fmt: skip
    assert waiting > MESSAGES / 2
    assert grown < GROWTH_KIB
    assert max(few.queue, many.queue) <= rig.settings.watermark
    assert (few.doubled, many.doubled, needless) == (0, 0, [])
    # Before it are the triggers that were in the queue, and those that the workers have in hand.
    in_hand = len(rig.workers) * rig.settings.max_in_flight
    assert max(ahead) <= many.queue + in_hand


def test_a_backlog_of_events_is_triggered_once(make_rig: Callable[..., Rig]) -> None:
    """It lasts for several times the grace, after which a trigger may count as lost."""
    more = {"SMSQUEUE_GATEWAY": f"{__name__}:gateway", "SMSQUEUE_GRACE": "1"}
    rig = make_rig(plain=True, environment=more)
    with _Watch(rig, rig.settings.hook_key) as watch:
        for n in range(EVENTS):
            come_in(rig, f"m{n}", "hello")
        rig.settle()
    needless = [line for line in rig.heard() if line["kind"] == "needless"]
    add_figures(
        test="events", events=EVENTS, longest_queue=watch.queue, doubled=watch.doubled,
        needless=len(needless),
    )  # fmt: skip
    assert rig.direct.zcard(rig.key("state", "done")) == EVENTS
    # Whoever publishes has looked at the queue a moment before: a worker takes up to 16 events at
    # once that get a trigger each, whoever takes in a message one.
    assert watch.queue <= rig.settings.watermark + 16 * len(rig.workers) + 1
    assert (watch.doubled, needless) == (0, [])
    check(rig)
