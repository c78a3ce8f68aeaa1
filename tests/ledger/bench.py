"""A gateway with everything that a worker has, in this process, against a real Redis.

Nothing waits here: a test that wants time to pass moves the scores and times in the ledger.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, ClassVar

from smsqueue import Gateway, IProvider, OutgoingMessage, RetryPolicy, Settings
from smsqueue.delivery import Delivery, Slots, TriggerResult
from smsqueue.delivery.event_runner import EventRunner
from smsqueue.ledger import Ledger, Record
from smsqueue.message import statuses
from smsqueue.message.statuses import MessageStatus
from smsqueue.operation.upkeep import Upkeep

STATUSES: dict[str, type[MessageStatus]] = {
    "accepted": statuses.MessageAccepted,
    "delivered": statuses.MessageDelivered,
    "undelivered": statuses.MessageError,
    "expired": statuses.MessageExpired,
}

#: What a provider does at a call: take the message, raise, or whatever a function does.
Step = None | BaseException | Callable[[OutgoingMessage], object]


class Told(IProvider):
    """Does what the test tells it, in turn; takes the message when it was told nothing."""

    _numbers: ClassVar[itertools.count[int]] = itertools.count(1)

    def __init__(self, gateway: Any, name: str) -> None:
        super().__init__(gateway, name)
        self.plan: list[Step] = []
        self.calls: list[str] = []

    def then(self, *steps: Step) -> None:
        self.plan.extend(steps)

    def send(self, message: OutgoingMessage) -> OutgoingMessage:
        self.calls.append(message.reference or "")
        step = self.plan.pop(0) if self.plan else None
        if isinstance(step, BaseException):
            raise step
        message.msgid = f"{self.name}-{next(self._numbers)}"
        if step is not None:
            step(message)
        return message


class HttpTold(Told):
    """Sends through our HTTP layer, which then knows whether anything was written."""

    through_http_layer = True


class Bench:
    """See the module."""

    def __init__(self, settings: Settings, retry: RetryPolicy | None = None) -> None:
        self.settings = settings
        self.gateway = Gateway(settings, retry=retry)
        self.ledger = Ledger(settings, timeout=5.0)
        self.redis = self.ledger.redis
        self.queue = self.gateway.queue
        self.give_slots(4)
        self.hooks = EventRunner(self.gateway, self.ledger, "bench", retry)
        self.upkeep = Upkeep(settings, self.ledger, self.queue, max_lapses=3)
        #: What onStatus was called with.
        self.heard: list[MessageStatus] = []

    def give_slots(self, number: int) -> None:
        """Let each provider have so many from now on."""
        self.slots = Slots(number)
        self.delivery = Delivery(self.gateway, self.ledger, self.queue, self.slots, "bench")

    def close(self) -> None:
        self.gateway.close()
        self.ledger.close()

    # --- making --------------------------------------------------------------------------------

    def add(self, name: str, *plan: Step, cls: type[Told] = Told) -> Told:
        provider = self.gateway.add_provider(name, cls)
        assert isinstance(provider, Told)
        provider.then(*plan)
        return provider

    def listen(self) -> list[MessageStatus]:
        self.gateway.onStatus.connect(self.heard.append, name="listen")
        return self.heard

    def send(self, body: str = "hello", *, dst: str = "15550001", **options: Any) -> str:
        sent = self.gateway.send(OutgoingMessage(dst, body).options(**options))
        assert sent.id is not None
        return sent.id

    def send_by(self, *names: str, **options: Any) -> str:
        """Send a message whose route is these providers."""
        self.gateway.router = lambda message, *values: list(values)
        sent = self.gateway.send(OutgoingMessage("15550001", "hi").options(**options).route(*names))
        assert sent.id is not None
        return sent.id

    def deliver(self, id: str) -> TriggerResult:
        return self.delivery.deliver(id)

    def report(
        self,
        state: str,
        *,
        msgid: Any = None,
        reference: str | None = None,
        provider: str = "a",
        code: Any = None,
        event_id: str | None = None,
        of_part: bool = False,
    ) -> MessageStatus:
        status = STATUSES[state](msgid)
        status.provider, status.reference, status.status_code = provider, reference, code
        status.event_id, status.of_part = event_id, of_part
        self.gateway.receive_status(status)
        return status

    # --- time ----------------------------------------------------------------------------------

    def ripe(self, id: str) -> None:
        """What a waiting message waits for has come."""
        self.redis.hset(self.key("msg", id), "not_before", 1)

    def outdated(self, id: str) -> None:
        """The message's validity has run out."""
        self.redis.hset(self.key("msg", id), "expires", 1)

    def lapse(self, id: str) -> None:
        """What somebody waits for (the end of a lease, a report) has not come in time."""
        assert self.redis.zadd(self.key("due", "watch"), {id: 1}, xx=True, ch=True) == 1
        self.upkeep.turn()

    def ripe_event(self, event: str) -> None:
        self.redis.hset(self.key("event", event), "not_before", 1)

    def unpause(self, name: str) -> None:
        """The provider's pause has run out; probes may begin."""
        self.redis.hset(self.key("pause", name), "until", 1)

    def drain(self, queue: str = "send") -> None:
        """A broker queue is emptied, some time after upkeep's last turn."""
        triggers = {"send": self.settings.send_key, "hook": self.settings.hook_key}[queue]
        self.redis.delete(triggers, self.key("filled", queue))

    def fail_in_a_row(self, provider: Told, error: Exception, messages: int = 5) -> list[str]:
        """So many messages fail at a provider one after the other; their ids."""
        ids = []
        for _ in range(messages):
            provider.then(error)
            ids.append(self.send_by(provider.name))
            self.deliver(ids[-1])
        return ids

    # --- looking -------------------------------------------------------------------------------

    def key(self, *parts: str) -> str:
        return ":".join((self.settings.namespace, *parts))

    def record(self, id: str) -> Record:
        return self.gateway.lookup(id)

    def state(self, id: str) -> str:
        return str(self.record(id).state)

    def field(self, id: str, name: str) -> str | None:
        value: Any = self.redis.hget(self.key("msg", id), name)
        return value if value is None else str(value)

    def tries(self, id: str) -> int:
        return int(self.field(id, "tries") or 0)

    def look(self, lane: str, id: str) -> float | None:
        score: Any = self.redis.zscore(self.key("due", lane), id)
        return score if score is None else float(score)

    def due(self) -> set[str]:
        """Everything that somebody must still look at."""
        found: set[str] = set()
        for lane in ("send", "send_bulk", "watch", "hook", "hook_bulk"):
            members: Any = self.redis.zrange(self.key("due", lane), 0, -1)
            found |= set(members)
        return found

    def keys(self) -> set[str]:
        """The ledger's keys, without the namespace."""
        prefix = self.settings.namespace + ":"
        keys = {str(k).removeprefix(prefix) for k in self.redis.scan_iter(prefix + "*", count=1000)}
        return {key for key in keys if not key.startswith("broker:")}

    def events(self, kind: str | None = None) -> list[str]:
        """Ids of the events there are, whatever their state."""
        ids = [key.removeprefix("event:") for key in self.keys() if key.startswith("event:")]
        if kind is None:
            return sorted(ids)
        return sorted(id for id in ids if (self.ledger.read_event(id) or {})["kind"] == kind)

    def run_hooks(self) -> None:
        """Run every event that can be run now."""
        for event in self.events():
            self.hooks.run(event)

    def published(self, queue: str | None = None) -> int:
        """Triggers in a broker queue (the sends', if none is named)."""
        length: Any = self.redis.llen(queue or self.settings.send_key)
        return int(length)

    def now(self) -> int:
        seconds, micros = self.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000
