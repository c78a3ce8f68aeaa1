"""What the ledger knows, as Prometheus reads it: see docs/metrics.md for what each metric means.

Needs prometheus_client, and is imported by nobody who does not ask for metrics. The counters live
in the ledger, so it does not matter which process is asked, nor how often it was restarted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from smsqueue.ledger import Activity, Direction, Ledger, Room, Worker
from smsqueue.ledger.pauses import EVERYTHING
from smsqueue.message.states import EventState, State

__all__ = ["BUCKETS", "CONTENT_TYPE", "scrape"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
#: Upper ends of the histograms' buckets in seconds, those of shared/base.lua in the ledger.
BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)

_INF = float("inf")

_Labels = tuple[str, ...]
#: The ledger's counters: name and labels to value.
_Counts = Mapping[_Labels, int]


class _Kind(NamedTuple):
    """One of the ledger's counters."""

    name: str
    labels: _Labels
    help: str


_KINDS = (
    _Kind("accepted", (), "Messages taken in by send()."),
    _Kind("attempts", ("provider",), "Calls of a provider that were begun."),
    _Kind(
        "errors",
        ("provider", "error", "verdict"),
        "Attempts that failed, by error class and what became of the message: retry (later or "
        "elsewhere), failed or unknown.",
    ),
    _Kind(
        "ended",
        ("state", "provider", "error"),
        "Messages that came into a final state or became unknown. One message may count in "
        "several: unknown, then delivered.",
    ),
    _Kind(
        "policy",
        ("decision",),
        "Decisions of the application's own rules: refused, not_before, opted_out.",
    ),
    _Kind("requeued", (), "Messages that an operator sent again."),
    _Kind("pauses", ("provider", "error"), "Pauses of a provider, by the error that began them."),
    _Kind("lapses", ("provider",), "Messages whose worker was lost while it held them."),
    _Kind(
        "reports",
        ("provider", "state", "outcome"),
        "Delivery reports: matched to a message, parked (it was not known yet), or repeated.",
    ),
    _Kind("incoming", ("provider", "outcome"), "Incoming messages: recorded, or repeated."),
    _Kind(
        "webhooks_refused",
        ("provider", "reason"),
        "Webhooks that were refused with 503: Redis is nearly full (memory), or those of the "
        "provider hold too much (quota).",
    ),
    _Kind(
        "hooks",
        ("kind", "outcome"),
        "Events given to the handlers: done, retry (a handler failed), dead (given up), or "
        "unheard (there is no handler).",
    ),
)


def scrape(ledger: Ledger) -> bytes:
    """The page of metrics, of the type CONTENT_TYPE.

    Raises:
        QueueUnavailable: Redis did not answer.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(ledger))
    return generate_latest(registry)


class _Page(Collector):
    """A bounded number of questions to Redis, however much there is."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        counts, states = self.ledger.counters(), self.ledger.counts()
        called = sorted(labels[0] for labels in _fitting(counts, "attempts", 1))
        zero = _zeros(called)
        for kind in _KINDS:
            values = zero.get(kind.name, {}) | _fitting(counts, kind.name, len(kind.labels))
            counter = CounterMetricFamily(f"smsqueue_{kind.name}", kind.help, labels=kind.labels)
            for labels, value in sorted(values.items()):
                counter.add_metric(labels, value)
            yield counter
        yield from _durations(counts, called)
        yield from self._pauses(called)
        yield from self._backlog(states)
        yield from _lately(self.ledger.activity(counts, states))
        yield from self._workers()
        yield from self._server()

    def _pauses(self, called: list[str]) -> Iterator[GaugeMetricFamily]:
        paused = GaugeMetricFamily(
            "smsqueue_paused",
            "1: the provider is paused, or was and has not worked since. 0: it is not.",
            labels=("provider", "error"),
        )
        left = GaugeMetricFamily(
            "smsqueue_pause_left_seconds",
            "Time until the provider's pause is over and a message probes it.",
            labels=("provider",),
        )
        pauses = {pause.provider: pause for pause in self.ledger.pauses()}
        for name in sorted({*called, *pauses}):
            pause = pauses.get(name)
            error = (pause.error or "") if pause else ""
            if pause and pause.operator:
                error = "Operator"
            paused.add_metric((name, error), 1 if pause else 0)
            left.add_metric((name,), pause.left if pause else 0)
        yield paused
        yield left
        yield from self._operator_pauses()

    def _operator_pauses(self) -> Iterator[GaugeMetricFamily]:
        labels = ("kind", "name")
        paused = GaugeMetricFamily(
            "smsqueue_operator_paused",
            "1: an operator has paused a provider, a tag, or everything (all). 0: not.",
            labels=labels,
        )
        since = GaugeMetricFamily(
            "smsqueue_operator_paused_seconds", "Time since the pause began.", labels=labels
        )
        waiting = GaugeMetricFamily(
            "smsqueue_operator_paused_messages",
            "Messages that wait because of an operator's pause; of a provider about how many.",
            labels=labels,
        )
        now, pauses = self.ledger.now(), self.ledger.operator_pauses()
        if not any(pause.scope == EVERYTHING for pause in pauses):
            for family in (paused, since, waiting):
                family.add_metric((EVERYTHING, ""), 0)
        for pause in pauses:
            values = (pause.kind, pause.name)
            paused.add_metric(values, 1)
            since.add_metric(values, max(0.0, now - pause.since.timestamp()))
            waiting.add_metric(values, pause.waiting)
        yield paused
        yield since
        yield waiting

    def _backlog(self, counts: Mapping[str, int]) -> Iterator[GaugeMetricFamily]:
        lanes = self.ledger.backlog()
        yield _gauge("messages", "Messages in a state.", "state", {s: counts[s] for s in State})
        yield _gauge("events", "Events in a state.", "state", {s: counts[s] for s in EventState})
        yield _gauge(
            "due",
            "What should have been looked at by now: messages that wait (send), leases and waits "
            "for reports (watch), events (hook).",
            "lane",
            {lane: backlog.due for lane, backlog in lanes.items()},
        )
        yield _gauge(
            "due_oldest_seconds",
            "Time since the oldest of it was due; 0 if nothing is.",
            "lane",
            {lane: backlog.oldest for lane, backlog in lanes.items()},
        )
        yield GaugeMetricFamily(
            "smsqueue_queued_oldest_seconds",
            "Time since the oldest queued message was queued; 0 if none is.",
            self.ledger.oldest(State.QUEUED),
        )
        yield GaugeMetricFamily(
            "smsqueue_events_oldest_seconds",
            "Time since the oldest event that is not handled began to wait for its handlers, "
            "however often they were tried; 0 if there is none.",
            self.ledger.oldest_event(),
        )
        short = self._queue_names()
        lengths = self.ledger.queued_triggers().items()
        yield _gauge(
            "triggers",
            "Triggers that wait in the broker's queue.",
            "queue",
            {short.get(name, name): length for name, length in lengths},
        )
        yield GaugeMetricFamily(
            "smsqueue_damaged",
            "Records that were put aside as damaged; `smsqueue list --damaged` names them.",
            self.ledger.count_damaged(),
        )
        yield GaugeMetricFamily(
            "smsqueue_unrouted",
            "Messages for which the router raised, or named an unknown provider, within the last "
            "15 minutes, and that have not gone out since.",
            self.ledger.unrouted().number,
        )

    def _queue_names(self) -> dict[str, str]:
        """Names of the broker's queues without the namespace: the same alerts fit everywhere."""
        settings = self.ledger.settings
        return {settings.send_queue: "send", settings.hook_queue: "hook"}

    def _workers(self) -> Iterator[GaugeMetricFamily]:
        """Live workers only: a worker that ended or was lost has no lines."""
        workers = [worker for worker in self.ledger.workers() if worker.alive]
        short = self._queue_names()
        queues = Counter(dict.fromkeys(short.values(), 0))
        hung = Counter(dict.fromkeys(("handler", "look-up", "provider", "router"), 0))
        for worker in workers:
            hung.update(worker.hung)
            queues.update({short.get(name, name) for name in worker.queues})
        yield _gauge("workers", "Worker processes that take from a queue.", "queue", queues)
        yield GaugeMetricFamily(
            "smsqueue_upkeep_failing",
            "Live worker processes whose upkeep fails.",
            sum(bool(worker.failing) for worker in workers),
        )
        yield _gauge(
            "hung_calls",
            "Calls that are past their time limit and hold a thread of a live worker.",
            "kind",
            hung,
        )
        yield from _worker_gauges(workers)

    def _server(self) -> Iterator[GaugeMetricFamily]:
        server = self.ledger.server()
        yield GaugeMetricFamily(
            "smsqueue_redis_memory_used_bytes", "Memory that Redis uses.", server.used
        )
        yield GaugeMetricFamily(
            "smsqueue_redis_memory_max_bytes",
            "Memory that Redis may use; 0: no limit.",
            server.max,
        )
        room = self.ledger.room()
        yield GaugeMetricFamily(
            "smsqueue_redis_memory_reserved_bytes",
            "Memory that accepted messages will still need; 0: no limit.",
            room.reserved,
        )
        yield GaugeMetricFamily(
            "smsqueue_redis_memory_left_bytes",
            "Memory that is left for new messages; below 0 send() is refused. 0: no limit.",
            room.left,
        )
        yield GaugeMetricFamily(
            "smsqueue_redis_memory_webhooks_left_bytes",
            "Memory that is left for webhooks; below 0 they are refused, but for reports of "
            "accepted messages. 0: no limit.",
            room.webhooks_left,
        )
        yield GaugeMetricFamily(
            "smsqueue_webhook_quota_bytes",
            "What the webhooks of one provider may hold while they wait for their handlers.",
            room.quota,
        )
        yield from _webhooks(room)
        if server.aof is not None:
            yield GaugeMetricFamily(
                "smsqueue_redis_aof_enabled",
                "1: Redis writes an append-only file. 0: accepted messages are lost when it stops.",
                server.aof,
            )


def _worker_gauges(workers: list[Worker]) -> Iterator[GaugeMetricFamily]:
    info = GaugeMetricFamily(
        "smsqueue_worker_info",
        "1: what a worker process runs: version, hash of the code, version of Python.",
        labels=("worker", "version", "build", "python"),
    )
    memory = GaugeMetricFamily(
        "smsqueue_worker_memory_bytes",
        "Memory that a worker process holds (RSS).",
        labels=("worker",),
    )
    uptime = GaugeMetricFamily(
        "smsqueue_worker_uptime_seconds",
        "Time since a worker process started.",
        labels=("worker",),
    )
    labels = ("worker", "provider")
    in_use = GaugeMetricFamily(
        "smsqueue_slots_in_use", "Calls of a provider in flight in a worker.", labels=labels
    )
    limit = GaugeMetricFamily(
        "smsqueue_slots_limit",
        "Calls of a provider that may be in flight in a worker; it adapts to the answers.",
        labels=labels,
    )
    handlers = GaugeMetricFamily(
        "smsqueue_handlers_running", "Events whose handlers run in a worker.", labels=("worker",)
    )
    for worker in workers:
        code = (worker.version, worker.build or "", worker.python or "")
        info.add_metric((worker.name, *code), 1)
        for gauge, value in ((memory, worker.memory), (uptime, worker.uptime)):
            if value is not None:  # an older version does not report it
                gauge.add_metric((worker.name,), value)
        for provider, use in worker.slots.items():
            in_use.add_metric((worker.name, provider), use.in_use)
            limit.add_metric((worker.name, provider), use.limit)
        if worker.handlers:
            handlers.add_metric((worker.name,), worker.handlers.in_use)
    yield from (info, memory, uptime, in_use, limit, handlers)


def _lately(activity: Activity | None) -> Iterator[GaugeMetricFamily]:
    """Rates and recent errors, as ``smsqueue status`` shows them."""
    minute = activity.minute if activity else None
    rates = {}
    if minute:
        rates = {
            "accepted": minute.per_second("accepted"),
            "sent": minute.per_second("sent"),
            "failed": minute.per_second("ended", "failed"),
        }
    yield _gauge(
        "messages_per_second",
        "Messages that send() took in, that a provider took, and that failed, in the last minute.",
        "kind",
        rates,
    )
    left = GaugeMetricFamily(
        "smsqueue_backlog_left_seconds",
        "Time until no message is queued or retrying, if it goes on as in the last minute; +Inf: "
        "the backlog does not shrink.",
    )
    if activity and activity.backlog.direction is not Direction.UNKNOWN:
        empty = activity.backlog.direction is Direction.EMPTY
        seconds = activity.backlog.seconds_left
        left.add_metric((), 0.0 if empty else _INF if seconds is None else seconds)
    yield left
    recent = GaugeMetricFamily(
        "smsqueue_recent_errors",
        "Attempts that failed within the last 15 minutes, by error class; without a provider: the "
        "router failed, or named an unknown provider.",
        labels=("provider", "error"),
    )
    if activity and activity.quarter_hour:
        numbers = Counter[_Labels]()
        for (provider, error, _), n in _fitting(activity.quarter_hour.counts, "errors", 3).items():
            numbers[provider, error] += n
        for labels, number in sorted(numbers.items()):
            recent.add_metric(labels, number)
    yield recent


def _webhooks(room: Room) -> Iterator[GaugeMetricFamily]:
    held = GaugeMetricFamily(
        "smsqueue_webhook_bytes",
        "What webhooks hold in Redis: those that wait for their handlers (waiting), and what "
        "is kept of handled ones (kept).",
        labels=("provider", "state"),
    )
    refused = GaugeMetricFamily(
        "smsqueue_webhook_quota_reached",
        "1: webhooks of the provider are refused, because those that are there hold too much.",
        labels=("provider",),
    )
    for webhooks in room.webhooks:
        held.add_metric((webhooks.provider, "waiting"), webhooks.held)
        held.add_metric((webhooks.provider, "kept"), webhooks.kept)
        refused.add_metric((webhooks.provider,), int(webhooks.refused))
    yield held
    yield refused


def _fitting(counts: _Counts, name: str, labels: int) -> dict[_Labels, int]:
    """The counters of a name by their labels.

    What has more or fewer labels was counted by another version, or has the separator in a
    label. One wrong line would make Prometheus refuse the whole page.
    """
    return {
        (*rest,): value
        for (first, *rest), value in counts.items()
        if first == name and len(rest) == labels
    }


def _zeros(called: list[str]) -> dict[str, dict[_Labels, int]]:
    """Counters that are shown from the start: Prometheus sees no increase in a first value."""
    kinds, outcomes = ("received", "sent", "status"), ("done", "retry", "dead", "unheard")
    return {
        "accepted": {(): 0},
        "requeued": {(): 0},
        "lapses": {(provider,): 0 for provider in ("", *called)},
        "webhooks_refused": {
            (provider, reason): 0 for provider in called for reason in ("memory", "quota")
        },
        "hooks": {(kind, outcome): 0 for kind in kinds for outcome in outcomes},
    }


def _durations(
    counts: _Counts, called: list[str]
) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
    sent = CounterMetricFamily(
        "smsqueue_sent", "Messages that a provider took.", labels=("provider",)
    )
    send = HistogramMetricFamily(
        "smsqueue_send_seconds",
        "Time from accepting a message (of a scheduled one: from its time on; of one that was "
        "requeued: from then on) until a provider took it.",
        labels=("provider",),
    )
    delivery = HistogramMetricFamily(
        "smsqueue_delivery_seconds",
        "Time from when a provider took a message until it was reported as delivered.",
        labels=("provider",),
    )
    families = {"sent": send, "delivered": delivery}
    empty = dict.fromkeys((*BUCKETS, _INF), 0)
    series = {(what, name): empty.copy() for what in families for name in called}
    for (what, name, end), value in _fitting(counts, "took", 3).items():
        buckets = series.setdefault((what, name), empty.copy())
        # Another version may have counted with other buckets.
        buckets[float(end)] = buckets.get(float(end), 0) + value
    sums = _fitting(counts, "took_ms", 2)
    for (what, name), buckets in sorted(series.items(), key=lambda item: item[0]):
        total, rising = 0, []
        for upper in sorted(buckets):
            total += buckets[upper]
            rising.append(("+Inf" if upper == _INF else str(upper), total))
        families[what].add_metric((name,), rising, sums.get((what, name), 0) / 1000)
        if what == "sent":
            sent.add_metric((name,), total)
    yield sent
    yield send
    yield delivery


def _gauge(name: str, help: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(f"smsqueue_{name}", help, labels=(label,))
    for value, number in values.items():
        gauge.add_metric((str(value),), number)
    return gauge
